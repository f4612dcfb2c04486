"""A recurrent state-space model whose deterministic state is a GRU's (arXiv:1811.04551, Sec. 3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_wm.models import fused_scan
from lightning_wm.models.following import Attach, Choose, follow
from lightning_wm.models.latent_model import LatentModel, Posterior
from lightning_wm.models.latents import Statistics
from lightning_wm.models.networks import ACTIVATIONS
from lightning_wm.models.scan import ScanWeights, scan
from lightning_wm.protocols import State


class GRUModel(LatentModel):
    """Transition, prior and posterior around a GRU cell, whatever the latent; see `LatentModel`."""

    def build(self, embedding: int) -> None:
        """Transition, GRU, prior and posterior."""
        c, latent = self.config, self.latent
        self.transition_in = nn.Linear(latent.width + self.spaces.action, c.hidden)
        self.gru = nn.GRUCell(c.hidden, c.deter)
        self.prior_hidden = nn.Linear(c.deter, c.hidden)
        self.prior_out = nn.Linear(c.hidden, latent.outputs)
        self.posterior_hidden = nn.Linear(c.deter + embedding, c.hidden)
        self.posterior_out = nn.Linear(c.hidden, latent.outputs)
        self.activation = ACTIVATIONS[c.activation]()
        self.by_autograd = False
        """Leave the time loop's backward pass to autograd, as second derivatives need it."""

    def imagine(self, state: State, action: Tensor, noise: Tensor | None = None) -> State:
        """One step of the prior; without noise its mode."""
        hidden = self.activation(self.transition_in(torch.cat([state["stoch"], action], dim=-1)))
        deter = self.gru(hidden, state["deter"])
        hidden = self.activation(self.prior_hidden(deter))
        said = self._said(noise)
        raw = F.linear(hidden, self.prior_out.weight[said], self.prior_out.bias[said])
        return {"deter": deter, "stoch": self.latent.draw(raw, noise)}

    def prior(self, deter: Tensor) -> Statistics:
        """Of the stochastic state given `deter` `[..., D]`."""
        return self.latent.statistics(self.prior_out(self.activation(self.prior_hidden(deter))))

    @property
    def can_unroll(self) -> bool:
        """Whether `unroll` knows the activation."""
        return self.config.activation in fused_scan.ACTIVATIONS

    def unroll(self, state: State, actions: Tensor, noise: Tensor | None = None) -> State:
        """`imagine` for a whole plan, differentiable in actions and state but not in the weights.

        Args:
            state: `[M, ...]`.
            actions: `[M, H, A]`.
            noise: `[H, M, S]`; None follows the prior's mode.

        Returns:
            The states after each action, `[H, M, ...]`.
        """
        s, said, into = self.latent.width, self._said(noise), self.transition_in
        action_half = F.linear(actions, into.weight[:, s:].detach(), into.bias.detach()).transpose(0, 1)
        prior_half = self.prior_hidden.bias.detach().expand(*action_half.shape[:2], -1)
        gru = (self.gru.weight_ih, self.gru.weight_hh, self.gru.bias_ih, self.gru.bias_hh)
        weights = (
            into.weight[:, :s], *gru, self.prior_hidden.weight, self.prior_out.weight[said], self.prior_out.bias[said],
        )  # fmt: skip
        deter, stoch, _ = fused_scan.fused_scan(
            self.config.activation, self.latent, action_half, prior_half, None, noise,
            state["deter"], state["stoch"], *(weight.detach() for weight in weights),
        )  # fmt: skip
        return {"deter": deter, "stoch": stoch}

    def follow(self, state: State, choose: Choose, noise: Tensor) -> tuple[State, Attach]:
        """Imagination in which `choose` finds the actions on the way; see `following.follow`."""
        return follow(self, state, choose, noise)

    def _said(self, noise: Tensor | None) -> slice:
        """The rows of the prior's last layer that are needed."""
        return self.latent.of_mode if noise is None else slice(None)

    def _posterior(
        self, embed: Tensor, action: Tensor, keep: Tensor, state: State, noise: Tensor | None = None
    ) -> Posterior:
        s, d = self.latent.width, self.config.deter
        into, post = self.transition_in, self.posterior_hidden
        action_half = F.linear(action.to(embed.dtype) * keep, into.weight[:, s:], into.bias)
        observation_half = F.linear(embed, post.weight[:, d:], post.bias)
        weights = ScanWeights(into.weight[:, :s], self.gru, post.weight[:, :d], self.posterior_out)
        deter, stoch, raw = scan(
            weights, self.latent, action_half, observation_half, keep, noise,
            state["deter"], state["stoch"], self.config.activation, self.by_autograd,
        )  # fmt: skip
        return Posterior(deter, stoch, self.latent.statistics(raw))
