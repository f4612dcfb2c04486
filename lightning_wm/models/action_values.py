"""Critics of a state and an action, for values that are learned from replay."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from lightning_wm.config.fields import Count, Positive, settings
from lightning_wm.models.behaviour import Bins, Decay
from lightning_wm.models.config import Activation
from lightning_wm.models.heads import TwoHotHead
from lightning_wm.models.networks import Stacked


@settings("agent.critic")
class ActionCriticConfig:
    """The critics' networks and targets."""

    members: Annotated[int, Field(ge=2, description="at least 2: the smaller of two is the target")] = 5
    """K: critics, of which two random ones are asked at each update."""
    units: Count = 256
    """Width of the hidden layers."""
    layers: Count = 2
    """Hidden layers."""
    activation: Activation = "silu"
    """`elu`, `relu` or `silu`."""
    dropout: Annotated[float, Field(ge=0, lt=1, description="a share in [0, 1)")] = 0.01
    """Share of the first hidden layer that is dropped while learning."""
    bins: Bins = 151
    """Bins of the two-hot code, even in symlog space."""
    bin_limit: Positive = 12.0
    """Outermost bins in symlog units: values within symexp of this, 162,754 at 12."""
    decay: Decay = 0.99
    """Of the slow copy, an exponential moving average of the critics' weights."""


class ActionCritics(nn.Module):
    """K two-hot critics Q(z, a), computed as one (arXiv:2310.16828, Sec. 3.1).

    Args:
        features: F.
        action: A.
        config: networks and bins.
    """

    def __init__(self, features: int, action: int, config: ActionCriticConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or ActionCriticConfig()
        network = Stacked(
            c.members, features + action, c.units, c.layers, c.bins, c.activation, norm=True, dropout=c.dropout
        )
        nn.init.zeros_(network.weights[-1])
        nn.init.zeros_(network.biases[-1])
        self.head = TwoHotHead(network, c.bins, c.bin_limit, "agent.critic.bin_limit")

    def forward(self, features: Tensor, action: Tensor, chosen: Tensor | None = None) -> Tensor:
        """What each critic expects of `[M, F]` and `[M, A]`, `[K, M]`; only those `chosen` `[C]`: `[C, M]`."""
        return self.head.decoded(self.head.network(torch.cat([features, action], -1), chosen))

    def loss(self, features: Tensor, action: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy `[M]` in nats to the two-hot code of `target` `[M]`, the mean over the critics."""
        return self.head.loss(torch.cat([features, action], -1), target.expand(self.config.members, -1)).mean(0)

    def two(self, generator: torch.Generator) -> Tensor:
        """Two different critics at random, `[2]`."""
        return torch.randperm(self.config.members, generator=generator)[:2]
