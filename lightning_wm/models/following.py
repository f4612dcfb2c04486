"""Imagination in which a policy chooses the actions on the way, and its gradient without a second pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_wm.models import fused_scan
from lightning_wm.protocols import State

Choose = Callable[[int, Tensor], Tensor]
Attach = Callable[[Tensor], State]


def follow(model: Any, state: State, choose: Choose, noise: Tensor) -> tuple[State, Attach]:
    """The states that a policy leads a model with a GRU to.

    Args:
        model: a `GRUModel`.
        state: `[M, ...]`.
        choose: `choose(step, features [M, F])` gives the actions `[M, A]`; called without gradients.
        noise: `[H, M, S]`.

    Returns:
        The states after each action, `[H, M, ...]`, without a graph; and a function from these actions
        `[H, M, A]` to the same states, differentiable in the actions but not in the model's weights.
    """
    s, into = model.latent.width, model.transition_in
    weight, bias = into.weight[:, s:].detach(), into.bias.detach()

    def fill(step: int, deter: Tensor, stoch: Tensor, out: Tensor) -> None:
        action = choose(step, model.features({"deter": deter, "stoch": stoch}))
        torch.addmm(bias, action, weight.t(), out=out)

    prior_half = model.prior_hidden.bias.detach().expand(*noise.shape[:2], -1)
    gru = (model.gru.weight_ih, model.gru.weight_hh, model.gru.bias_ih, model.gru.bias_hh)
    weights = (into.weight[:, :s], *gru, model.prior_hidden.weight, model.prior_out.weight, model.prior_out.bias)
    (deter, stoch), attach = fused_scan.recorded(
        model.config.activation, model.latent, fill, prior_half, noise,
        state["deter"], state["stoch"], into.out_features, *(one.detach() for one in weights),
    )  # fmt: skip

    def attached(actions: Tensor) -> State:
        deter, stoch = attach(F.linear(actions, weight, bias))
        return {"deter": deter, "stoch": stoch}

    return {"deter": deter, "stoch": stoch}, attached
