"""DreamerV3's world model: a block GRU and categorical latents (arXiv:2301.04104)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_wm.config.fields import Count, settings
from lightning_wm.models.config import Activation, NormKind
from lightning_wm.models.discrete import DiscreteConfig
from lightning_wm.models.latents import Latent, Statistics
from lightning_wm.models.networks import ACTIVATIONS, NORMS, mlp
from lightning_wm.models.rssm import RSSM, Posterior
from lightning_wm.protocols import Spaces, State
from lightning_wm.registry import register


@settings("model")
class BlockConfig(DiscreteConfig):
    """Sizes and loss weights of a categorical RSSM with a block GRU."""

    name: str = "block_rssm"
    deter: Count = 512
    blocks: Count = 8
    """Parts that the deterministic state's weights are block-diagonal in; a divisor of `deter`."""
    prior_layers: Count = 2
    """Hidden layers of the prior."""
    activation: Activation = "silu"
    norm_kind: NormKind = "rms"

    def __post_init__(self) -> None:
        if self.deter % self.blocks:
            raise ValueError(f"model.deter={self.deter}, model.blocks={self.blocks}: expected a multiple of the blocks")


class BlockLinear(nn.Module):
    """A linear layer whose weight is block-diagonal: `[M, inputs]` to `[M, blocks, outputs / blocks]`."""

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        super().__init__()
        bound = math.sqrt(blocks / inputs)  # as nn.Linear draws them
        shape = (blocks, inputs // blocks, outputs // blocks)
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(blocks, 1, outputs // blocks).uniform_(-bound, bound))

    def forward(self, values: Tensor) -> Tensor:
        parts = values.unflatten(-1, (self.weight.shape[0], -1)).transpose(0, 1)
        return torch.baddbmm(self.bias, parts, self.weight).transpose(0, 1)


class BlockGRU(nn.Module):
    """The recurrent step of DreamerV3: every block sees its own part of the state and all of the inputs."""

    def __init__(self, config: BlockConfig, stoch: int, action: int) -> None:
        super().__init__()
        c = config
        norm = (c.activation, c.norm, c.norm_kind)
        self.deter_in, self.stoch_in, self.action_in = (
            mlp(width, c.hidden, 1, None, *norm) for width in (c.deter, stoch, action)
        )
        self.inputs = nn.Linear(3 * c.hidden, c.deter)
        self.own = BlockLinear(c.deter, c.deter, c.blocks)
        self.after = _normed(c, c.deter)
        self.gates = BlockLinear(c.deter, 3 * c.deter, c.blocks)

    def action_share(self, action: Tensor) -> Tensor:
        """What the action `[..., A]` adds to the hidden layer `[..., D]`, whatever the state."""
        hidden = self.action_in(action)
        return F.linear(hidden, self.inputs.weight[:, -hidden.shape[-1] :], self.inputs.bias)

    def forward(self, share: Tensor, stoch: Tensor, deter: Tensor) -> Tensor:
        """The next deterministic state `[M, D]` from `action_share` and the state."""
        seen = torch.cat([self.deter_in(deter), self.stoch_in(stoch)], dim=-1)
        hidden = share + F.linear(seen, self.inputs.weight[:, : seen.shape[-1]]) + self.own(deter).flatten(1)
        reset, candidate, update = (gate.flatten(1) for gate in self.gates(self.after(hidden)).chunk(3, dim=-1))
        # The state is kept at first: an update gate that starts near 0.27.
        update = (update - 1.0).sigmoid()
        after: Tensor = update * torch.tanh(reset.sigmoid() * candidate) + (1.0 - update) * deter
        return after


def block_layers(c: BlockConfig, latent: Latent, action: int, embed: int) -> dict[str, nn.Module]:
    """Recurrent model, prior and posterior by their names in `BlockRSSM`; see `rssm.gru_layers`."""
    norm = (c.activation, c.norm, c.norm_kind)
    return {
        "core": BlockGRU(c, latent.width, action),
        "prior_head": mlp(c.deter, c.hidden, c.prior_layers, latent.outputs, *norm),
        "posterior_in": nn.Linear(c.deter + embed, c.hidden),
        "posterior_after": _normed(c, c.hidden),
        "posterior_out": nn.Linear(c.hidden, latent.outputs),
    }


@register("model", "block_rssm")
class BlockRSSM(RSSM):
    """World model with the state `{"deter": [M, D], "stoch": [M, S*K]}`, S one-hot vectors of K classes.

    Args:
        config: sizes and loss weights.
        spaces: what it observes and the number of action dimensions.
    """

    Config = BlockConfig
    core: BlockGRU
    prior_head: nn.Sequential
    posterior_in: nn.Linear
    posterior_after: nn.Sequential

    def __init__(self, config: BlockConfig | None = None, spaces: Spaces | None = None) -> None:
        super().__init__(config, spaces, block_layers)

    def imagine(self, state: State, action: Tensor, noise: Tensor | None = None) -> State:
        """One step of the prior; without noise its mode."""
        deter = self.core(self.core.action_share(action), state["stoch"], state["deter"])  # M, D
        return {"deter": deter, "stoch": self.latent.draw(self.prior_head(deter), noise)}

    def prior(self, deter: Tensor) -> Statistics:
        """Of the stochastic state given `deter` `[..., D]`."""
        return self.latent.statistics(self.prior_head(deter))

    def posterior(
        self, embed: Tensor, action: Tensor, keep: Tensor, state: State, noise: Tensor | None = None
    ) -> Posterior:
        """Over time; see `RSSM.posterior`."""
        d, into = self.config.deter, self.posterior_in
        shares = self.core.action_share(action.to(embed.dtype) * keep)  # T, B, D
        from_embed = F.linear(embed, into.weight[:, d:], into.bias)  # T, B, hidden
        deter_in = into.weight[:, :d]  # hidden, D

        def step(t: int, deter: Tensor, stoch: Tensor) -> tuple[Tensor, Tensor]:
            deter = self.core(shares[t], stoch, deter)  # B, D
            hidden = self.posterior_after(from_embed[t] + F.linear(deter, deter_in))  # B, hidden
            return deter, self.posterior_out(hidden)  # B, D; B, S*K

        return self.over_time(step, keep, state, noise)


def _normed(c: BlockConfig, width: int) -> nn.Sequential:
    """What follows a linear layer: norm and activation."""
    return nn.Sequential(*([NORMS[c.norm_kind](width)] if c.norm else []), ACTIVATIONS[c.activation]())
