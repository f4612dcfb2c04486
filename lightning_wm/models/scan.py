"""The part of an RSSM that must be sequential: one posterior step after the other.

Everything that does not depend on the previous state (encoder, the action's
and the observation's halves of the first layers, prior head, decoders) is
computed for all steps at once, outside.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_wm.models import fused_scan
from lightning_wm.models.latents import Latent
from lightning_wm.models.networks import ACTIVATIONS


class ScanWeights(NamedTuple):
    """What one posterior step multiplies with."""

    state_in: Tensor
    """`[hidden, S]`: previous stochastic state into the recurrent input."""
    gru: nn.GRUCell
    deter_in: Tensor
    """`[hidden, D]`: deterministic state into the posterior's hidden layer."""
    out: nn.Linear
    """What is said about the latent, `hidden -> latent.outputs`."""


def scan(
    weights: ScanWeights,
    latent: Latent,
    action_half: Tensor,
    observation_half: Tensor,
    keep: Tensor,
    noise: Tensor | None,
    deter: Tensor,
    stoch: Tensor,
    activation: str,
    by_autograd: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Deterministic states `[T, B, D]`, stochastic states `[T, B, S]` and what was said of them `[T, B, outputs]`.

    Args:
        weights: of the recurrent step.
        latent: the distribution of the stochastic state.
        action_half: `[T, B, hidden]`, the action's share of the recurrent input, bias included.
        observation_half: `[T, B, hidden]`, the observation's share of the posterior's hidden layer.
        keep: `[T, B, 1]`, 0 where an episode begins and the state is forgotten, else 1.
        noise: `[T, B, S]`, as the latent draws it; None takes the mode.
        deter: `[B, D]` before the first step.
        stoch: `[B, S]` before the first step.
        activation: of the hidden layers, a name of `networks.ACTIVATIONS`.
        by_autograd: leave the backward pass to autograd (for torch.compile, autocast, second derivatives).
    """
    inputs = (action_half, observation_half, keep, noise, deter, stoch)
    if by_autograd or activation not in fused_scan.ACTIVATIONS or torch.is_autocast_enabled(action_half.device.type):
        return stepwise(weights, latent, *inputs, activation)
    gru, out = weights.gru, weights.out
    flat = (weights.state_in, gru.weight_ih, gru.weight_hh, gru.bias_ih, gru.bias_hh, weights.deter_in)
    return fused_scan.fused_scan(activation, latent, *inputs, *flat, out.weight, out.bias)


def stepwise(
    weights: ScanWeights,
    latent: Latent,
    action_half: Tensor,
    observation_half: Tensor,
    keep: Tensor,
    noise: Tensor | None,
    deter: Tensor,
    stoch: Tensor,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same, step after step, with autograd's backward pass."""
    act = ACTIVATIONS[activation]()
    deters, stochs, raws = [], [], []
    for step in range(action_half.shape[0]):
        deter, stoch = deter * keep[step], stoch * keep[step]
        hidden = act(action_half[step] + F.linear(stoch, weights.state_in))
        deter = weights.gru(hidden, deter)
        hidden = act(observation_half[step] + F.linear(deter, weights.deter_in))
        raw = weights.out(hidden)
        stoch = latent.draw(raw, None if noise is None else noise[step])
        deters.append(deter)
        stochs.append(stoch)
        raws.append(raw)
    return torch.stack(deters), torch.stack(stochs), torch.stack(raws)
