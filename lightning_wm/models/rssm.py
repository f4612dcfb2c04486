"""The recurrent state-space model (arXiv:1811.04551, Sec. 3), whatever the latent.

    h_t = f(h_{t-1}, s_{t-1}, a_{t-1})    recurrent model, a GRU    `deter`
    s_t ~ p(s_t | h_t)                    prior                     `stoch`, imagined
    s_t ~ q(s_t | h_t, o_t)               posterior                 `stoch`, observed

Observation, reward and the chance to go on are read from (h_t, s_t). `fast/` has the loops over time by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from tensordict import TensorDictBase
from torch import Tensor, nn

from lightning_wm.config.fields import Count, Positive, settings
from lightning_wm.models import losses
from lightning_wm.models.config import ModelConfig
from lightning_wm.models.encoders import embedding
from lightning_wm.models.ensemble import Ensemble
from lightning_wm.models.fast import gru as fast
from lightning_wm.models.fast.scan import Inputs
from lightning_wm.models.heads import reward_head
from lightning_wm.models.latents import Gaussian, Latent, Statistics
from lightning_wm.models.networks import ACTIVATIONS, perceptron
from lightning_wm.models.seeing import Seeing
from lightning_wm.protocols import Spaces, State
from lightning_wm.registry import register


@settings("model")
class RSSMConfig(ModelConfig):
    """Sizes and loss weights of a Gaussian RSSM."""

    name: str = "rssm"
    stoch: Count = 30
    """S: width of the stochastic state."""
    min_std: Positive = 0.1
    """Floor of the latent's standard deviation."""

    @property
    def latent(self) -> Gaussian:
        """The distribution of the stochastic state that these settings describe."""
        return Gaussian(self.stoch, self.min_std)


Step = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]
"""A step over time: t, `[B, D]` and `[B, S]` before it to `[B, D]` and the latent's `raw` `[B, outputs]` after it."""


class Posterior(NamedTuple):
    """Posterior over time."""

    deter: Tensor  # [T, B, D]
    stoch: Tensor  # [T, B, S]
    statistics: Statistics  # of the stochastic state, each [T, B, ...]


def gru_layers(c: ModelConfig, latent: Latent, action: int, embed: int) -> dict[str, nn.Module]:
    """Recurrent model, prior and posterior by their names in `RSSM`; an encoded observation is `embed` wide."""
    return {
        "transition_in": nn.Linear(latent.width + action, c.hidden),
        "gru": nn.GRUCell(c.hidden, c.deter),
        "prior_hidden": nn.Linear(c.deter, c.hidden),
        "prior_out": nn.Linear(c.hidden, latent.outputs),
        "posterior_hidden": nn.Linear(c.deter + embed, c.hidden),
        "posterior_out": nn.Linear(c.hidden, latent.outputs),
        "activation": ACTIVATIONS[c.activation](),
    }


@register("model", "rssm")
class RSSM(Seeing):
    """World model with the state `{"deter": [M, D], "stoch": [M, S]}`.

    Another recurrent model, prior or posterior is a subclass with its own `imagine`, `prior` or `posterior` and, where
    its layers differ, its own function for `layers`. One that overrides `imagine` offers no `unroll` and `follow`.

    Args:
        config: sizes and loss weights.
        spaces: what it observes and the number of action dimensions.
        layers: makes what moves the state on, called as `gru_layers` is.
    """

    Config: ClassVar[type[ModelConfig]] = RSSMConfig
    transition_in: nn.Linear
    gru: nn.GRUCell
    prior_hidden: nn.Linear
    prior_out: nn.Linear
    posterior_hidden: nn.Linear
    posterior_out: nn.Linear
    activation: nn.Module

    def __init__(
        self,
        config: ModelConfig | None = None,
        spaces: Spaces | None = None,
        layers: Callable[..., dict[str, nn.Module]] = gru_layers,
    ) -> None:
        if spaces is None:
            name = type(self).__name__
            raise TypeError(f"{name}(config, spaces): spaces is missing; use lightning_wm.envs.spaces(env)")
        c = self.Config() if config is None else config
        # The order is that of the initial weights' draws and of the optimiser's state in checkpoints.
        super().__init__(c, spaces)
        self.latent = c.latent
        s, features = self.latent.width, c.deter + self.latent.width
        for name, layer in layers(c, self.latent, spaces.action, embedding(c, spaces)).items():
            self.add_module(name, layer)
        self.reward_head = reward_head(c, features)
        self.continue_head = perceptron(c, features, 1, c.head_layers) if c.continue_head else None
        self.ensemble = Ensemble(c.ensemble, c.deter, c.units, 2, s, c.activation) if c.ensemble else None
        self._measure: Callable[..., dict[str, Tensor]] | None = None
        # Abilities that depend on the settings; see the end of `protocols`.
        self._fast = c.fast and fast.knows(c.activation, self.latent)
        whole = self._fast and type(self).imagine is RSSM.imagine
        self.unroll = partial(fast.unroll, self) if whole else None
        self.follow = partial(fast.follow, self) if whole else None
        self.disagreement = self._disagreement if self.ensemble is not None else None
        self.predicts_termination = c.continue_head

    # ---- the three distributions

    def imagine(self, state: State, action: Tensor, noise: Tensor | None = None) -> State:
        """One step of the prior; without noise its mode."""
        inputs = self.activation(self.transition_in(torch.cat([state["stoch"], action], dim=-1)))  # M, hidden
        deter = self.gru(inputs, state["deter"])  # M, D
        hidden = self.activation(self.prior_hidden(deter))  # M, hidden
        rows = self.latent.of_mode if noise is None else slice(None)
        raw = F.linear(hidden, self.prior_out.weight[rows], self.prior_out.bias[rows])  # M, outputs
        return {"deter": deter, "stoch": self.latent.draw(raw, noise)}

    def prior(self, deter: Tensor) -> Statistics:
        """Of the stochastic state given `deter` `[..., D]`, each `[..., S]` or `[..., S, K]`."""
        return self.latent.statistics(self.prior_out(self.activation(self.prior_hidden(deter))))

    def posterior(
        self, embed: Tensor, action: Tensor, keep: Tensor, state: State, noise: Tensor | None = None
    ) -> Posterior:
        """Over time, from encoded observations `[T, B, E]`, actions that led to them and the state `[B, ...]` before.

        State and action are forgotten where `keep` `[T, B, 1]` is 0. Without noise `[T, B, S]` the mode is taken.
        """
        into, post, s, d = self.transition_in, self.posterior_hidden, self.latent.width, self.config.deter
        # W [s, a] + b = W_s s + (W_a a + b): what does not depend on the state is computed for all steps at once.
        from_action = F.linear(action.to(embed.dtype) * keep, into.weight[:, s:], into.bias)  # T, B, hidden
        from_embed = F.linear(embed, post.weight[:, d:], post.bias)  # T, B, hidden
        # What is written by hand knows neither autocast nor torch.export, whose program would be full of its buffers.
        by_hand = self._fast and not torch.compiler.is_exporting()
        if by_hand and not torch.is_autocast_enabled(embed.device.type):
            steps = fast.filtered(self, Inputs(from_action, from_embed, keep, noise, state["deter"], state["stoch"]))
            return Posterior(steps.deters, steps.stochs, self.latent.statistics(steps.raws))
        stoch_in, deter_in = into.weight[:, :s], post.weight[:, :d]  # hidden, S; hidden, D

        def step(t: int, deter: Tensor, stoch: Tensor) -> tuple[Tensor, Tensor]:
            inputs = self.activation(from_action[t] + F.linear(stoch, stoch_in))  # B, hidden
            deter = self.gru(inputs, deter)  # B, D
            hidden = self.activation(from_embed[t] + F.linear(deter, deter_in))  # B, hidden
            return deter, self.posterior_out(hidden)  # B, D; B, outputs

        return self.over_time(step, keep, state, noise)

    def over_time(self, step: Step, keep: Tensor, state: State, noise: Tensor | None) -> Posterior:
        """The plain loop: `step(t, deter, stoch)` gives the next `deter` and the posterior's `raw`."""
        deter, stoch = state["deter"], state["stoch"]  # B, D; B, S
        deters, stochs, raws = [], [], []
        for t in range(len(keep)):
            deter, raw = step(t, deter * keep[t], stoch * keep[t])  # B, D; B, outputs
            stoch = self.latent.draw(raw, None if noise is None else noise[t])  # B, S
            deters.append(deter)
            stochs.append(stoch)
            raws.append(raw)
        return Posterior(torch.stack(deters), torch.stack(stochs), self.latent.statistics(torch.stack(raws)))

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
        embed = self.encode(self.targets(observation))  # M, E
        posterior = self.posterior(embed[None], action[None], torch.ones_like(action[None, :, :1]), state)
        return {"deter": posterior.deter[0], "stoch": posterior.stoch[0]}

    def observe(
        self, batch: TensorDictBase, state: State | None = None, generator: torch.Generator | None = None
    ) -> tuple[State, dict[str, Tensor]]:
        """Posterior states `[B*T, ...]` and losses of a batch `[B, T]`; see `protocols.WorldModel`."""
        b, t = batch["action"].shape[:2]
        self.scaling.learn(batch)
        targets = self.targets(batch.reshape(b * t), generator)  # B*T, ...
        codes = self.encode(self.moved(batch, targets, generator))  # B*T, E
        embed = codes.unflatten(0, (b, t)).transpose(0, 1)  # T, B, E
        keep = 1.0 - batch["is_init"].transpose(0, 1).to(embed.dtype)  # T, B, 1
        noise = None if generator is None else self.noise((t, b), generator).to(embed)  # T, B, S
        state = self.initial(b) if state is None else state
        posterior = self.posterior(embed, batch["action"].transpose(0, 1), keep, state, noise)
        states = {"deter": _by_sequence(posterior.deter), "stoch": _by_sequence(posterior.stoch)}
        labels = {name: batch[name].flatten(0, 1) for name in ("reward", "terminated", "is_init")}  # B*T, 1
        measure = self._measure if self._measure is not None and torch.is_grad_enabled() else self.losses
        measured = measure(labels, targets, states, posterior, codes)
        if self.steered is not None and self.training and torch.is_grad_enabled():
            self.steered.follow(measured["kl"])
        return states, measured

    def losses(
        self, labels: dict[str, Tensor], targets: dict[str, Tensor], states: State, posterior: Posterior, codes: Tensor
    ) -> dict[str, Tensor]:
        """Named losses of `reward`, `terminated`, `is_init` `[B*T, 1]`, targets, states and codes `[B*T, ...]`."""
        c, features = self.config, self.features(states)
        measured = self.taught(features, targets, codes)
        nats = losses.reward(self.reward_head, features, labels["reward"], labels["is_init"])
        measured["loss/reward"] = c.reward_scale * nats
        if self.continue_head is not None:
            nats = losses.continuation(self.continue_head(features), labels["terminated"])
            measured["loss/continue"] = c.continue_scale * nats
        prior = self.prior(posterior.deter)
        kl, measured["loss/kl"] = losses.balanced_kl(self.latent, posterior.statistics, prior, c)
        measured["kl"] = kl.detach()
        if self.ensemble is not None:
            mean = _by_sequence(self.latent.mean(posterior.statistics))
            measured["loss/ensemble"] = self.ensemble.loss(states["deter"], mean)
        return measured

    def reward(self, state: State) -> Tensor:
        """Expected reward of one agent step, `[M]`."""
        value: Tensor = self.reward_head(self.features(state))
        return value

    def continues(self, state: State) -> Tensor:
        """Probability that the episode goes on, `[M]`; ones without a continue head."""
        if self.continue_head is None:
            return torch.ones_like(state["deter"][:, 0])
        value: Tensor = self.continue_head(self.features(state)).squeeze(-1).sigmoid()
        return value

    # ---- what it offers beyond; `unroll`, `follow` and `disagreement` are bound in the constructor

    def compile_update(self) -> None:
        """Compile decoders, heads and losses for training (25 s at the first update of each batch shape).

        The time loop stays as it is: unrolled over 50 steps it compiles for minutes and gains nothing. What
        runs without gradients stays eager, since its shapes vary.
        """
        self._measure = torch.compile(self.losses, dynamic=False)

    def _disagreement(self, state: State) -> Tensor:
        """Of the ensemble, `[M]` >= 0."""
        assert self.ensemble is not None
        return self.ensemble.disagreement(state["deter"])


def _by_sequence(values: Tensor) -> Tensor:
    """`[T, B, ...]` to `[B*T, ...]`, as replay's batches are flattened."""
    return values.transpose(0, 1).flatten(0, 1)
