"""A model's layers in the scan: filtering with the posterior's weights, imagining with the prior's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_wm.models.config import ModelConfig
from lightning_wm.models.fast.backward import Cell
from lightning_wm.models.fast.draws import DRAWS
from lightning_wm.models.fast.scan import ACTIVATIONS, Inputs, Steps, Weights, record, scan
from lightning_wm.models.latents import Latent
from lightning_wm.protocols import State


class GRUModel(Protocol):
    """What the scan needs of a model; see `models.rssm.RSSM`."""

    config: ModelConfig
    latent: Latent
    transition_in: nn.Linear
    gru: nn.GRUCell
    prior_hidden: nn.Linear
    prior_out: nn.Linear
    posterior_hidden: nn.Linear
    posterior_out: nn.Linear

    def features(self, state: State) -> Tensor:
        """`[M, F]`."""


def knows(activation: str, latent: Latent) -> bool:
    """Whether the scan has the activation and the latent."""
    return activation in ACTIVATIONS and type(latent) in DRAWS


def filtered(model: GRUModel, inputs: Inputs) -> Steps:
    """The posterior over time, differentiable in inputs and weights."""
    deter_in, out = model.posterior_hidden.weight[:, : model.config.deter], model.posterior_out
    return scan(_cell(model), inputs, _weights(model, deter_in, out.weight, out.bias))


def unroll(model: GRUModel, state: State, actions: Tensor, noise: Tensor | None = None) -> State:
    """`protocols.Unrolls.unroll`, which has no gradient in the model's weights."""
    s, into = model.latent.width, model.transition_in
    share = F.linear(actions, into.weight[:, s:].detach(), into.bias.detach()).transpose(0, 1)  # H, M, hidden
    rows = model.latent.of_mode if noise is None else slice(None)
    steps = scan(_cell(model), _prior_inputs(model, share, noise, state), _prior_weights(model, rows))
    return {"deter": steps.deters, "stoch": steps.stochs}


def follow(
    model: GRUModel, state: State, choose: Callable[[int, Tensor], Tensor], noise: Tensor
) -> tuple[State, Callable[[Tensor], State]]:
    """`protocols.Follows.follow`."""
    s, into = model.latent.width, model.transition_in
    weight, bias = into.weight[:, s:].detach(), into.bias.detach()

    def fill(step: int, deter: Tensor, stoch: Tensor, out: Tensor) -> None:
        action = choose(step, model.features({"deter": deter, "stoch": stoch}))
        torch.addmm(bias, action, weight.t(), out=out)

    share = bias.new_empty(*noise.shape[:2], into.out_features)  # H, M, hidden
    inputs = _prior_inputs(model, share, noise, state)
    steps, attach = record(_cell(model), inputs, _prior_weights(model, slice(None)), fill)

    def attached(actions: Tensor) -> State:
        again = attach(F.linear(actions, weight, bias))
        return {"deter": again.deters, "stoch": again.stochs}

    return {"deter": steps.deters, "stoch": steps.stochs}, attached


def _cell(model: GRUModel) -> Cell:
    return Cell(model.config.activation, DRAWS[type(model.latent)](model.latent))


def _weights(model: GRUModel, deter_in: Tensor, out_weight: Tensor, out_bias: Tensor) -> Weights:
    gru, state_in = model.gru, model.transition_in.weight[:, : model.latent.width]
    return Weights(state_in, gru.weight_ih, gru.weight_hh, gru.bias_ih, gru.bias_hh, deter_in, out_weight, out_bias)


def _prior_weights(model: GRUModel, rows: slice) -> Weights:
    """Detached; of the last layer only the rows that are needed."""
    out = model.prior_out
    weights = _weights(model, model.prior_hidden.weight, out.weight[rows], out.bias[rows])
    return Weights(*(weight.detach() for weight in weights))


def _prior_inputs(model: GRUModel, share: Tensor, noise: Tensor | None, state: State) -> Inputs:
    """Nothing is observed: all that the prior's hidden layer gets beside the state is its bias."""
    head = model.prior_hidden.bias.detach().expand(*share.shape[:2], -1)  # H, M, hidden
    return Inputs(share, head, None, noise, state["deter"], state["stoch"])
