"""What every recurrent state-space model shares; how its state moves on is left to the kinds of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from lightning_wm.models import losses
from lightning_wm.models.config import ModelConfig
from lightning_wm.models.distributions import NormalHead, TwoHotHead
from lightning_wm.models.ensemble import Ensemble
from lightning_wm.models.latents import Latent, Statistics
from lightning_wm.models.networks import mlp
from lightning_wm.models.observing import Observing
from lightning_wm.protocols import Spaces, State


class Posterior(NamedTuple):
    """Posterior over time."""

    deter: Tensor
    """`[T, B, D]`."""
    stoch: Tensor
    """`[T, B, S]`."""
    statistics: Statistics
    """Of the stochastic state, each `[T, B, ...]`."""


class LatentModel(Observing):
    """World model with the state `{"deter": [M, D], "stoch": [M, S]}`.

    A kind of it says how the state moves on: `build`, `imagine`, `prior` and `_posterior`.

    Args:
        config: sizes and loss weights.
        spaces: what it observes and the number of action dimensions.
        latent: the distribution of the stochastic state.
    """

    config: ModelConfig

    def __init__(self, config: ModelConfig, spaces: Spaces | None, latent: Latent) -> None:
        if spaces is None:
            name = type(self).__name__
            raise TypeError(f"{name}(config, spaces): spaces is missing; use lightning_wm.envs.spaces(env)")
        features = config.deter + latent.width
        super().__init__(config, spaces, features)
        self.config, self.latent = config, latent
        self._compiled: Callable[..., dict[str, Tensor]] | None = None
        self.build(self.embedding)
        c, layers = config, config.layers if config.head_layers is None else config.head_layers
        norm = (c.activation, c.norm, c.norm_kind)
        two_hot = c.reward_head == "two_hot"
        reward = mlp(features, c.units, layers, c.bins if two_hot else 1, *norm)
        if c.zero_reward:
            nn.init.zeros_(reward[-1].weight)  # type: ignore[arg-type]
            nn.init.zeros_(reward[-1].bias)  # type: ignore[arg-type]
        self.reward_head: TwoHotHead | NormalHead = (
            TwoHotHead(reward, c.bins, c.bin_limit) if two_hot else NormalHead(reward)
        )
        if c.continue_head:
            self.continue_head = mlp(features, c.units, layers, 1, *norm)
        # Last, so that the weights of a model without it are what they are.
        self.ensemble = Ensemble(c.ensemble, c.deter, c.units, 2, latent.width, c.activation) if c.ensemble else None

    # ---- what a kind of it brings

    def build(self, embedding: int) -> None:
        """Make the layers that move the state on; an encoded observation is `embedding` wide."""
        raise NotImplementedError(f"{type(self).__name__} makes no layers: write its build(embedding)")

    def imagine(self, state: State, action: Tensor, noise: Tensor | None = None) -> State:
        """One step of the prior; without noise its mode."""
        raise NotImplementedError(f"{type(self).__name__} imagines nothing: write its imagine(state, action, noise)")

    def prior(self, deter: Tensor) -> Statistics:
        """Of the stochastic state given `deter` `[..., D]`, each `[..., S]` or `[..., S, K]`."""
        raise NotImplementedError(f"{type(self).__name__} has no prior: write its prior(deter)")

    def _posterior(
        self, embed: Tensor, action: Tensor, keep: Tensor, state: State, noise: Tensor | None = None
    ) -> Posterior:
        """Of `[T, B, ...]`; the state and the action are forgotten where `keep` `[T, B, 1]` is 0."""
        raise NotImplementedError(f"{type(self).__name__} filters nothing: write its _posterior")

    # ---- the contract of protocols.WorldModel

    def initial(self, batch: int) -> State:
        """Zeros `[batch, ...]`."""
        like = next(self.parameters())
        return {"deter": like.new_zeros(batch, self.config.deter), "stoch": like.new_zeros(batch, self.latent.width)}

    def noise(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """What `imagine` takes to sample, `[*shape, S]` on the CPU."""
        return self.latent.noise(shape, generator)

    def filter(self, state: State, action: Tensor, observation: TensorDictBase) -> State:
        """One posterior step; takes the posterior's mode."""
        posterior = self._posterior(
            self._embed(observation).unsqueeze(0), action.unsqueeze(0), torch.ones_like(action[:, :1])[None], state
        )
        return {"deter": posterior.deter[0], "stoch": posterior.stoch[0]}

    def observe(
        self, batch: TensorDictBase, state: State | None = None, generator: torch.Generator | None = None
    ) -> tuple[State, dict[str, Tensor]]:
        """Posterior states `[B*T, ...]` and losses of a batch `[B, T]`; see `protocols.WorldModel`."""
        b, t = batch["action"].shape[:2]
        self._notice(batch)
        flat = self._targets(batch.reshape(b * t), generator)
        embed = self._embed_targets(flat).unflatten(0, (b, t)).transpose(0, 1)
        keep = 1.0 - batch["is_init"].transpose(0, 1).to(embed.dtype)
        noise = None
        if generator is not None:
            noise = self.noise((t, b), generator).to(embed)
        state = self.initial(b) if state is None else state
        posterior = self._posterior(embed, batch["action"].transpose(0, 1), keep, state, noise)
        states = {name: getattr(posterior, name).transpose(0, 1).flatten(0, 1) for name in ("deter", "stoch")}
        said = {name: batch[name].flatten(0, 1) for name in ("reward", "terminated", "is_init")}
        measure = self._compiled if self._compiled is not None and torch.is_grad_enabled() else self._losses
        return states, measure(said, flat, states, posterior)

    def reward(self, state: State) -> Tensor:
        """Expected reward of one agent step, `[M]`."""
        value: Tensor = self.reward_head(self.features(state))
        return value

    def continues(self, state: State) -> Tensor:
        """Probability that the episode goes on, `[M]`; ones without a continue head."""
        if not self.config.continue_head:
            return torch.ones_like(state["deter"][:, 0])
        value: Tensor = self.continue_head(self.features(state)).squeeze(-1).sigmoid()
        return value

    # ---- what it offers beyond

    @property
    def predicts_termination(self) -> bool:
        """Whether `continues` is a prediction: there is a continue head."""
        return self.config.continue_head

    @property
    def disagreement(self) -> Callable[[State], Tensor] | None:
        """What the ensemble does not agree on, a function of a state to `[M]` >= 0; None without an ensemble."""
        return None if self.ensemble is None else self._disagreement

    def compile_update(self) -> None:
        """Compile decoders, heads and losses for training (25 s at the first update of each batch shape).

        The time loop stays as it is: unrolled over 50 steps it compiles for minutes and gains nothing. What
        runs without gradients stays eager, since its shapes vary.
        """
        self._compiled = torch.compile(self._losses, dynamic=False)

    # ---- inside

    def _disagreement(self, state: State) -> Tensor:
        assert self.ensemble is not None
        return self.ensemble.disagreement(state["deter"])

    def _losses(
        self, said: dict[str, Tensor], targets: dict[str, Tensor], states: State, posterior: Posterior
    ) -> dict[str, Tensor]:
        """Named losses of `reward`, `terminated`, `is_init` `[B*T, 1]`, targets and states `[B*T, ...]`."""
        c, features = self.config, self.features(states)
        nats = losses.reconstruction(self._decode(features), targets)
        measured = {"loss/reconstruction": c.reconstruction_scale * nats}
        measured["loss/reward"] = c.reward_scale * losses.reward(
            self.reward_head, features, said["reward"], said["is_init"]
        )
        if c.continue_head:
            logits = self.continue_head(features)
            measured["loss/continue"] = c.continue_scale * losses.continuation(logits, said["terminated"])
        prior = self.prior(posterior.deter)
        kl, measured["loss/kl"] = losses.balanced_kl(self.latent, posterior.statistics, prior, c)
        measured["kl"] = kl.detach()
        if self.ensemble is not None:
            mean = self.latent.mean(posterior.statistics).transpose(0, 1).flatten(0, 1)
            measured["loss/ensemble"] = self.ensemble.loss(states["deter"], mean)
        return measured
