"""The perceptron that encoders, decoders and heads share, its activations and norms."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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


@torch.no_grad()
def follow(slow: nn.Module, online: nn.Module, share: float) -> None:
    """Move a slow copy's weights towards another's: w <- (1 - share) w + share w_online."""
    torch._foreach_lerp_(list(slow.parameters()), list(online.parameters()), share)
