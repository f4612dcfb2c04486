"""The actor and the critics that are learned in imagination; heads on a world model's features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torchrl.modules import TanhNormal

from lightning_wm.config.fields import Count, Positive, Weight, settings
from lightning_wm.models.config import Activation
from lightning_wm.models.distributions import widen
from lightning_wm.models.heads import TwoHotHead
from lightning_wm.models.networks import follow, mlp


@settings("agent.actor")
class ActorConfig:
    """The policy's network and distribution."""

    units: Count = 128
    """Width of the hidden layers."""
    layers: Count = 2
    """Hidden layers."""
    activation: Activation = "silu"
    """`elu`, `relu` or `silu`."""
    norm: bool = True
    """LayerNorm after each hidden layer."""
    distribution: Literal["clipped_normal", "tanh_normal"] = "clipped_normal"
    """`clipped_normal`: Normal(tanh(mean), std), clipped to the bounds with the gradient passed straight through
    (arXiv:2301.04104); `tanh_normal`: tanh of a Normal whose mean is 5 tanh(mean / 5) (arXiv:1912.01603)."""
    min_std: Positive = 0.1
    """Smallest standard deviation, before the bound."""
    max_std: Positive = 1.0
    """Largest standard deviation, before the bound."""

    def __post_init__(self) -> None:
        if self.min_std >= self.max_std:
            raise ValueError(
                f"agent.actor.min_std={self.min_std}, max_std={self.max_std}: expected 0 < min_std < max_std"
            )


def _odd(bins: int) -> int:
    if bins % 2 == 0:
        raise ValueError("an even number")
    return bins


Bins = Annotated[int, Field(ge=3, description="an odd number of at least 3"), AfterValidator(_odd)]
"""Of a two-hot code; zero is one of them."""
Decay = Annotated[float, Field(ge=0, lt=1, description="a factor in [0, 1)")]
"""Of a slow copy."""


@settings("agent.critic")
class CriticConfig:
    """The critics' networks and targets."""

    units: Count = 128
    """Width of the hidden layers."""
    layers: Count = 2
    """Hidden layers."""
    activation: Activation = "silu"
    """`elu`, `relu` or `silu`."""
    norm: bool = True
    """LayerNorm after each hidden layer."""
    members: Count = 1
    """K: critics that are initialised differently and learn from the same targets; their mean is the value."""
    bins: Bins = 151
    """Bins of the two-hot code, even in symlog space."""
    bin_limit: Positive = 12.0
    """Outermost bins in symlog units: values within symexp of this, 162,754 at 12."""
    decay: Decay = 0.98
    """Of the slow copy, an exponential moving average of the critics' weights."""
    bootstrap: Annotated[Literal["slow", "online"], Field(description="slow or online")] = "slow"
    """Whose values the lambda-returns end in: `slow` copy or `online` critics."""
    regulariser: Weight = 0.0
    """Weight of the cross-entropy to the slow copy's values (arXiv:2301.04104 uses 1 with `online`)."""


class PolicyHead(nn.Module):
    """Features `[M, F]` to a distribution over actions `[M, A]` in [-1, 1].

    Sampling takes its noise as an argument, so that the action is a
    differentiable function of features and noise.

    Args:
        features: F.
        action: A.
        config: network and distribution.
    """

    def __init__(self, features: int, action: int, config: ActorConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or ActorConfig()
        self.network = mlp(features, c.units, c.layers, 2 * action, c.activation, c.norm)
        _shrink(self.network, 0.01)

    def statistics(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation `[M, A]` of the Normal before the bound."""
        c = self.config
        mean, raw = widen(self.network(features)).chunk(2, dim=-1)
        mean = mean.tanh() if c.distribution == "clipped_normal" else 5.0 * (mean / 5.0).tanh()
        return mean, c.min_std + (c.max_std - c.min_std) * (raw + 2.0).sigmoid()

    def bound(self, raw: Tensor) -> Tensor:
        """What a draw before the bound becomes; where it is clipped the gradient passes straight through."""
        if self.config.distribution == "tanh_normal":
            return raw.tanh()
        return raw + (raw.clamp(-1.0, 1.0) - raw).detach()

    def entropy(self, std: Tensor, raw: Tensor) -> Tensor:
        """Entropy `[M]` in nats; of the tanh of a Normal the one-sample estimate at the draw `raw` `[M, A]`."""
        nats = std.log() + 0.5 * math.log(2 * math.pi * math.e)
        if self.config.distribution == "tanh_normal":
            nats = nats + log_slope(raw)
        return nats.sum(-1)

    def log_prob(self, mean: Tensor, std: Tensor, raw: Tensor) -> Tensor:
        """Log-density `[M]` of the Normal before the bound at `raw` `[M, A]`.

        It differs from the bounded one's by what does not depend on the policy's weights.
        """
        nats = -0.5 * ((raw - mean) / std).square() - std.log() - 0.5 * math.log(2 * math.pi)
        return nats.sum(-1)

    def unbound(self, action: Tensor) -> Tensor:
        """What before the bound gives `action` `[M, A]` in [-1, 1]."""
        return action.clamp(-0.999, 0.999).atanh() if self.config.distribution == "tanh_normal" else action

    def forward(self, features: Tensor) -> Distribution:
        """The distribution, as planners and TorchRL take it; a sample of `clipped_normal` is not clipped yet."""
        mean, std = self.statistics(features)
        if self.config.distribution == "tanh_normal":
            squashed: Distribution = TanhNormal(mean, std)
            return squashed
        return Independent(Normal(mean, std, validate_args=False), 1, validate_args=False)


def log_slope(raw: Tensor) -> Tensor:
    """log of tanh's derivative at `raw`, without overflow: log(1 - tanh(x)^2) = 2 (log 2 - x - softplus(-2x))."""
    return 2.0 * (math.log(2.0) - raw - F.softplus(-2.0 * raw))


class Critics(nn.Module):
    """K two-hot critics on features `[M, F]`.

    Args:
        features: F.
        config: networks and bins.
    """

    def __init__(self, features: int, config: CriticConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or CriticConfig()
        self.members = nn.ModuleList()
        for _ in range(c.members):
            network = mlp(features, c.units, c.layers, c.bins, c.activation, c.norm)
            _shrink(network, 0.0)
            self.members.append(TwoHotHead(network, c.bins, c.bin_limit, "agent.critic.bin_limit"))

    def forward(self, features: Tensor) -> Tensor:
        """What each critic expects, `[K, M]`."""
        return torch.stack([member(features) for member in self.members])

    def loss(self, features: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy `[M]` in nats to the two-hot code of `target` `[M]`, summed over the critics."""
        return self.losses(features, [target])[0]

    def losses(self, features: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """`loss` to each of n targets, `[n, M]`, from one pass of the critics."""
        each = [torch.stack(member.losses(features, targets)) for member in self.members]  # type: ignore[operator]
        return torch.stack(each).sum(0)

    def follow(self, online: Critics) -> None:
        """Move towards another's weights: w <- decay w + (1 - decay) w_online."""
        follow(self, online, 1.0 - self.config.decay)


def _shrink(network: nn.Sequential, factor: float) -> None:
    """Scale the last layer's weights and clear its bias: a start that has no opinion yet (arXiv:2301.04104)."""
    last = network[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight.mul_(factor)
        last.bias.zero_()
