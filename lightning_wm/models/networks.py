"""The perceptron that encoders, decoders and heads share, its activations and norms."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_wm.models.distributions import widen

if TYPE_CHECKING:
    from lightning_wm.models.config import ModelConfig

ACTIVATIONS: dict[str, type[nn.Module]] = {"elu": nn.ELU, "relu": nn.ReLU, "silu": nn.SiLU}


class RMSNorm(nn.RMSNorm):
    """RMSNorm in at least float32, whatever the precision."""

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = F.rms_norm(widen(x), self.normalized_shape, widen(self.weight), self.eps)
        return normed.to(x.dtype)


NORMS: dict[str, Callable[[int], nn.Module]] = {"layer": nn.LayerNorm, "rms": partial(RMSNorm, eps=1e-4)}


def mlp(
    inputs: int, units: int, layers: int, outputs: int | None, activation: str, norm: bool, norm_kind: str = "layer"
) -> nn.Sequential:
    """`layers` hidden layers of `units`, then a linear layer to `outputs` (none if None).

    Args:
        activation: a name of `ACTIVATIONS`.
        norm: normalise each hidden layer before its activation.
        norm_kind: a name of `NORMS`.
    """
    modules: list[nn.Module] = []
    width = inputs
    for _ in range(layers):
        modules.append(nn.Linear(width, units))
        if norm:
            modules.append(NORMS[norm_kind](units))
        modules.append(ACTIVATIONS[activation]())
        width = units
    if outputs is not None:
        modules.append(nn.Linear(width, outputs))
    return nn.Sequential(*modules)


def perceptron(c: ModelConfig, inputs: int, outputs: int | None, layers: int | None = None) -> nn.Sequential:
    """`mlp` as a model's settings have it, of `layers` hidden layers where it says how many."""
    return mlp(inputs, c.units, c.layers if layers is None else layers, outputs, c.activation, c.norm, c.norm_kind)


class Stacked(nn.Module):
    """K perceptrons of equal shape, computed as one; each has initial weights of its own, as nn.Linear draws them.

    Args:
        members: K.
        inputs: width of what they see.
        units: width of the hidden layers.
        layers: number of hidden layers.
        outputs: width of what each says.
        activation: a name of `ACTIVATIONS`.
        norm: LayerNorm after each hidden layer.
        dropout: share of the first hidden layer that is dropped while training, before its norm.
    """

    def __init__(
        self,
        members: int,
        inputs: int,
        units: int,
        layers: int,
        outputs: int,
        activation: str,
        norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        widths = [inputs, *[units] * layers, outputs]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for before, after in pairwise(widths):
            bound = 1.0 / math.sqrt(before)
            self.weights.append(nn.Parameter(torch.empty(members, before, after).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(members, 1, after).uniform_(-bound, bound)))
        shapes = [(members, 1, units)] * (layers if norm else 0)
        self.gains = nn.ParameterList(nn.Parameter(torch.ones(shape)) for shape in shapes)
        self.shifts = nn.ParameterList(nn.Parameter(torch.zeros(shape)) for shape in shapes)
        self.members, self.dropout = members, dropout
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor, chosen: Tensor | None = None) -> Tensor:
        """What each says of `[M, inputs]`, `[K, M, outputs]`; only those `chosen` `[C]`: `[C, M, outputs]`."""

        def of(parameter: Tensor) -> Tensor:
            return parameter if chosen is None else parameter[chosen]

        values = x.expand(self.members if chosen is None else len(chosen), *x.shape)
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            values = torch.baddbmm(of(bias), values, of(weight))
            if index == len(self.weights) - 1:
                break
            if index == 0 and self.dropout:
                values = F.dropout(values, self.dropout, self.training)
            if self.gains:
                values = F.layer_norm(values, values.shape[-1:]) * of(self.gains[index]) + of(self.shifts[index])
            values = self.activation(values)
        return values


@torch.no_grad()
def follow(slow: nn.Module, online: nn.Module, share: float) -> None:
    """Move a slow copy's weights towards another's: w <- (1 - share) w + share w_online."""
    torch._foreach_lerp_(list(slow.parameters()), list(online.parameters()), share)
