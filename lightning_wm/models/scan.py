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
from lightning_wm.models.networks import ACTIVATIONS


class ScanWeights(NamedTuple):
    """What one posterior step multiplies with."""

    state_in: Tensor
    """`[hidden, S]`: previous stochastic state into the recurrent input."""
    gru: nn.GRUCell
    deter_in: Tensor
    """`[hidden, D]`: deterministic state into the posterior's hidden layer."""
    out: nn.Linear
    """Posterior's statistics, `hidden -> 2S`."""


class Posterior(NamedTuple):
    """Posterior over time, each `[T, B, ...]`."""

    deter: Tensor
    stoch: Tensor
    mean: Tensor
    std: Tensor


def statistics(raw: Tensor, min_std: float) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `softplus(x) + min_std` from a layer's `[..., 2S]`."""
    mean, scale = raw.chunk(2, dim=-1)
    return mean, F.softplus(scale) + min_std


def scan(
    weights: ScanWeights,
    action_half: Tensor,
    observation_half: Tensor,
    keep: Tensor,
    noise: Tensor | None,
    deter: Tensor,
    stoch: Tensor,
    activation: str,
    min_std: float,
    by_autograd: bool = False,
) -> Posterior:
    """Posterior states of T steps.

    Args:
        weights: of the recurrent step.
        action_half: `[T, B, hidden]`, the action's share of the recurrent input, bias included.
        observation_half: `[T, B, hidden]`, the observation's share of the posterior's hidden layer.
        keep: `[T, B, 1]`, 0 where an episode begins and the state is forgotten, else 1.
        noise: `[T, B, S]` standard normal; None takes the mean.
        deter: `[B, D]` before the first step.
        stoch: `[B, S]` before the first step.
        activation: of the hidden layers, a name of `networks.ACTIVATIONS`.
        min_std: floor of the standard deviation.
        by_autograd: leave the backward pass to autograd (for torch.compile, autocast, second derivatives).
    """
    inputs = (action_half, observation_half, keep, noise, deter, stoch)
    if by_autograd or activation not in fused_scan.ACTIVATIONS or torch.is_autocast_enabled(action_half.device.type):
        deters, stochs, raws = stepwise(weights, *inputs, activation, min_std)
    else:
        gru, out = weights.gru, weights.out
        flat = (weights.state_in, gru.weight_ih, gru.weight_hh, gru.bias_ih, gru.bias_hh, weights.deter_in)
        deters, stochs, raws = fused_scan.fused_scan(activation, min_std, *inputs, *flat, out.weight, out.bias)
    return Posterior(deters, stochs, *statistics(raws, min_std))


def stepwise(
    weights: ScanWeights,
    action_half: Tensor,
    observation_half: Tensor,
    keep: Tensor,
    noise: Tensor | None,
    deter: Tensor,
    stoch: Tensor,
    activation: str,
    min_std: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same, step after step: deterministic states, stochastic states, raw statistics, each `[T, B, ...]`."""
    act = ACTIVATIONS[activation]()
    deters, stochs, raws = [], [], []
    for step in range(action_half.shape[0]):
        deter, stoch = deter * keep[step], stoch * keep[step]
        hidden = act(action_half[step] + F.linear(stoch, weights.state_in))
        deter = weights.gru(hidden, deter)
        hidden = act(observation_half[step] + F.linear(deter, weights.deter_in))
        raw = weights.out(hidden)
        mean, std = statistics(raw, min_std)
        stoch = mean if noise is None else mean + std * noise[step]
        deters.append(deter)
        stochs.append(stoch)
        raws.append(raw)
    return torch.stack(deters), torch.stack(stochs), torch.stack(raws)
