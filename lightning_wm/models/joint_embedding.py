"""A world model without a decoder: latents that are to predict the next observation's own encoding.

    z_t = h(o_t)                 encoder
    z_{t+1} = d(z_t, a_{t+1})    latent dynamics
    r_{t+1} = R(z_t, a_{t+1})    reward

a_{t+1} leads from o_t to o_{t+1}, as everywhere here. After TD-MPC2 (arXiv:2310.16828, Sec. 3.1), whose Q-functions and
policy are `agent=tdmpc`'s. There is no recurrence, so what is seen has to tell the whole state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from tensordict import TensorDictBase
from torch import Tensor, nn

from lightning_wm.config.fields import Count, Factor, Positive, Weight, settings
from lightning_wm.errors import UserError
from lightning_wm.models.config import Activation
from lightning_wm.models.distributions import widen
from lightning_wm.models.encoders import Scaling
from lightning_wm.models.heads import TwoHotHead
from lightning_wm.models.networks import mlp
from lightning_wm.protocols import Spaces, State
from lightning_wm.registry import register


@settings("model")
class JointEmbeddingConfig:
    """Sizes of the networks and weights of the losses."""

    name: str = "joint_embedding"
    latent: Count = 128
    """L: width of the latent."""
    simplex: Count = 8
    """V: as many numbers of a latent at a time are shares of one (SimNorm); divides L."""
    units: Count = 256
    """Width of the hidden layers."""
    layers: Count = 2
    """Hidden layers of dynamics, reward and continue head; the encoder has one less."""
    activation: Activation = "silu"
    """`elu`, `relu` or `silu`."""
    symlog: bool = True
    """Squash state vectors with symlog."""
    bins: Count = 121
    """Bins of the two-hot reward head."""
    bin_limit: Positive = 12.0
    """Outermost bins in symlog units: rewards of one agent step within symexp of this, 162,754 at 12, 53.6 at 4."""
    consistency_scale: Weight = 20.0
    """Weight of the squared error between an imagined latent and the encoding of what was then seen."""
    reward_scale: Weight = 0.1
    """Weight of the reward's cross-entropy."""
    continue_head: bool = False
    """Learn the probability that the episode goes on; without it, it always does."""
    continue_scale: Weight = 0.1
    """Weight of the continue head's cross-entropy."""
    rho: Factor = 0.5
    """What is imagined k steps on weighs rho^(k-1)."""

    def __post_init__(self) -> None:
        if self.latent % self.simplex:
            raise ValueError(
                f"model.latent={self.latent}, model.simplex={self.simplex}: the latter has to divide the former; "
                f"type model.latent={self.simplex * max(1, round(self.latent / self.simplex))}"
            )


class SimNorm(nn.Module):
    """Every V numbers of the last dimension become their softmax (arXiv:2310.16828, Eq. 5)."""

    def __init__(self, simplex: int) -> None:
        super().__init__()
        self.simplex = simplex

    def forward(self, x: Tensor) -> Tensor:
        shares: Tensor = widen(x).unflatten(-1, (-1, self.simplex)).softmax(-1).flatten(-2).to(x.dtype)
        return shares


@dataclass(frozen=True)
class Roll:
    """Windows `[B, T]` imagined from their first observation on, time first."""

    latent: Tensor
    """z `[T, B, L]`: the first one encoded, the others imagined; encoded again where an episode begins."""
    encoded: Tensor
    """h(o) `[T, B, L]`, without gradients: what they should have been."""
    action: Tensor
    """`[T, B, A]`, as in replay: a_t led to o_t."""
    reward: Tensor
    """`[T, B]`."""
    terminated: Tensor
    """`[T, B]`: 1 where nothing comes after."""
    weight: Tensor
    """`[T-1, B]` of the steps from t to t+1: rho^(k-1) for the k-th since something was seen, 0 into a new episode."""
    standing: Tensor
    """`[T, B]` of the states: rho^k, k steps after something was seen, 0 where the episode has ended for good."""


@register("model", "joint_embedding")
class JointEmbedding(nn.Module):
    """World model of state vectors with the state `{"latent": [M, L], "before": [M, L], "action": [M, A]}`.

    `before` and `action` are what `latent` came from: the reward is read from them.

    Args:
        config: sizes and loss weights.
        spaces: what it observes and the number of action dimensions.

    Raises:
        UserError: there are pixels to see.
    """

    Config: ClassVar[type[JointEmbeddingConfig]] = JointEmbeddingConfig

    def __init__(self, config: JointEmbeddingConfig | None = None, spaces: Spaces | None = None) -> None:
        super().__init__()
        if spaces is None:
            raise TypeError("JointEmbedding(config, spaces): spaces is missing; use lightning_wm.envs.spaces(env)")
        if spaces.observation is None or spaces.pixels is not None:
            raise UserError(
                "model=joint_embedding remembers nothing, and one picture shows no speed: it learns from the state "
                "vector alone; type observation=state, or model=small"
            )
        c = self.config = self.Config() if config is None else config
        self.spaces = spaces
        shape = (c.units, c.layers)
        pair = c.latent + spaces.action
        encoder = mlp(spaces.observation, c.units, c.layers - 1, c.latent, c.activation, True)
        dynamics = mlp(pair, *shape, c.latent, c.activation, True)
        self.encoder = nn.Sequential(*encoder, nn.LayerNorm(c.latent), SimNorm(c.simplex))
        self.dynamics = nn.Sequential(*dynamics, nn.LayerNorm(c.latent), SimNorm(c.simplex))
        reward = mlp(pair, *shape, c.bins, c.activation, True)
        nn.init.zeros_(reward[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(reward[-1].bias)  # type: ignore[arg-type]
        self.reward_head = TwoHotHead(reward, c.bins, c.bin_limit, "model.bin_limit")
        self.continue_head = mlp(c.latent, *shape, 1, c.activation, True) if c.continue_head else None
        self.scaling = Scaling(c.symlog, 8, None)
        self.predicts_termination = c.continue_head

    # ---- the contract of protocols.WorldModel

    def initial(self, batch: int) -> State:
        """Zeros `[batch, ...]`."""
        like, width = next(self.parameters()), self.config.latent
        sizes = {"latent": width, "before": width, "action": self.spaces.action}
        return {name: like.new_zeros(batch, size) for name, size in sizes.items()}

    def noise(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Nothing is drawn: `[*shape, 0]`."""
        return torch.zeros(*shape, 0)

    def encode(self, observation: TensorDictBase | Mapping[str, Tensor]) -> Tensor:
        """h(o): `[M, L]` of observations `[M]`."""
        like = next(self.parameters())
        latent: Tensor = self.encoder(self.scaling.seen(observation, self.spaces, like.dtype, None)["observation"])
        return latent

    def imagine(self, state: State, action: Tensor, noise: Tensor | None = None) -> State:
        """One step of the latent dynamics; there is no noise."""
        latent = self.dynamics(torch.cat([state["latent"], action], -1))
        return {"latent": latent, "before": state["latent"], "action": action}

    def filter(self, state: State, action: Tensor, observation: TensorDictBase) -> State:
        """What is seen, encoded, whatever came before."""
        return {"latent": self.encode(observation), "before": state["latent"], "action": action}

    def observe(
        self, batch: TensorDictBase, state: State | None = None, generator: torch.Generator | None = None
    ) -> tuple[State, dict[str, Tensor]]:
        """Encoded states `[B*T, ...]` and losses of a batch `[B, T]`; see `protocols.WorldModel`."""
        rolled = self.roll(batch)
        first = self.initial(len(batch))["latent"] if state is None else state["latent"]
        keep = 1.0 - batch["is_init"].transpose(0, 1).to(first)  # T, B, 1
        before = torch.cat([first[None], rolled.encoded[:-1]]) * keep
        states = {"latent": rolled.encoded, "before": before, "action": rolled.action * keep}
        return {name: value.transpose(0, 1).flatten(0, 1) for name, value in states.items()}, self.losses(rolled)

    def reward(self, state: State) -> Tensor:
        """Expected reward of the agent step that ended in the state, `[M]`."""
        value: Tensor = self.reward_head(torch.cat([state["before"], state["action"]], -1))
        return value

    def continues(self, state: State) -> Tensor:
        """Probability that the episode goes on, `[M]`; 1 without a continue head."""
        if self.continue_head is None:
            return state["latent"].new_ones(len(state["latent"]))
        return widen(self.continue_head(state["latent"]).squeeze(-1)).sigmoid()

    def observation_error(self, state: State, observation: TensorDictBase) -> Tensor:
        """Mean squared error `[M]` to what is seen, in latents: nothing is decoded."""
        return (widen(state["latent"]) - widen(self.encode(observation))).square().mean(-1)

    def features(self, state: State) -> Tensor:
        """The latent `[M, L]`."""
        return state["latent"]

    # ---- learning

    def roll(self, batch: TensorDictBase) -> Roll:
        """Imagine a batch `[B, T]` from its first observations and its actions."""
        first, (b, t) = self.encode(batch[:, 0]), batch.shape  # B, L
        # Tensors: a TensorDict reshapes the no observations of T = 1 into one.
        others = {"observation": batch["observation"][:, 1:].flatten(0, 1)}
        with torch.no_grad():
            later = self.encode(others).unflatten(0, (b, t - 1)).transpose(0, 1)  # T-1, B, L
        encoded = torch.cat([first.detach()[None], later])  # T, B, L
        action = batch["action"].transpose(0, 1).to(encoded.dtype)
        begins = batch["is_init"].transpose(0, 1).squeeze(-1)  # T, B
        latents, ages = [first], [torch.zeros_like(begins[0], dtype=torch.int64)]  # B, steps since something was seen
        for t in range(1, len(encoded)):
            imagined = self.dynamics(torch.cat([latents[-1], action[t]], -1))
            latents.append(torch.where(begins[t][:, None], encoded[t], imagined))
            ages.append(torch.where(begins[t], 0, ages[-1] + 1))
        named = {name: batch[name].transpose(0, 1).squeeze(-1).to(encoded.dtype) for name in ("reward", "terminated")}
        fading = (self.config.rho ** torch.stack(ages)).to(encoded.dtype)  # T, B
        weight, standing = torch.where(begins[1:], 0.0, fading[:-1]), fading * (1.0 - named["terminated"])
        return Roll(torch.stack(latents), encoded, action, weight=weight, standing=standing, **named)

    def losses(self, rolled: Roll) -> dict[str, Tensor]:
        """Consistency, reward and continuation, each the mean over steps (arXiv:2310.16828, Eq. 3)."""
        c = self.config
        if not rolled.weight.numel():
            return {"loss/consistency": rolled.latent.sum() * 0.0}
        error = (widen(rolled.latent[1:]) - widen(rolled.encoded[1:])).square().mean(-1)  # T-1, B
        pairs = torch.cat([rolled.latent[:-1], rolled.action[1:]], -1)
        nats = self.reward_head.loss(pairs.flatten(0, 1), rolled.reward[1:].flatten()).view_as(rolled.weight)
        measured = {
            "loss/consistency": c.consistency_scale * (rolled.weight * error).mean(),
            "loss/reward": c.reward_scale * (rolled.weight * nats).mean(),
        }
        if self.continue_head is not None:
            logits = widen(self.continue_head(rolled.latent[1:]).squeeze(-1))
            nats = F.binary_cross_entropy_with_logits(logits, 1.0 - rolled.terminated[1:], reduction="none")
            measured["loss/continue"] = c.continue_scale * (rolled.weight * nats).mean()
        return measured
