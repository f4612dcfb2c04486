"""Encoders, decoders and the perceptron that all heads share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_wm.errors import UserError
from lightning_wm.models.distributions import widen

ACTIVATIONS: dict[str, type[nn.Module]] = {"elu": nn.ELU, "relu": nn.ReLU, "silu": nn.SiLU}
PIXELS = 64
"""Side of the image that the convolutions below are made for."""


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


def check_pixels(shape: tuple[int, int, int]) -> None:
    """Refuse images that the convolutions do not fit.

    Raises:
        UserError: the image is not 3x64x64.
    """
    if shape != (3, PIXELS, PIXELS):
        raise UserError(
            f"pixels of shape {shape}: the convolutional model expects (3, {PIXELS}, {PIXELS}); "
            f"type observation.render.size={PIXELS}"
        )


class ConvEncoder(nn.Module):
    """Images `[M, 3, 64, 64]` in [-0.5, 0.5] to vectors `[M, 32*depth]` (arXiv:1811.04551, App. A)."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        widths = [3, depth, 2 * depth, 4 * depth, 8 * depth]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, kernel_size=4, stride=2), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.outputs = 32 * depth

    def forward(self, image: Tensor) -> Tensor:
        output: Tensor = self.layers(image.contiguous(memory_format=torch.channels_last))
        return output.flatten(1)


class ConvDecoder(nn.Module):
    """Features `[M, F]` to the mean image `[M, 3, 64, 64]` (arXiv:1811.04551, App. A)."""

    def __init__(self, features: int, depth: int) -> None:
        super().__init__()
        self.project = nn.Linear(features, 32 * depth)
        widths = [32 * depth, 4 * depth, 2 * depth, depth, 3]
        layers: list[nn.Module] = []
        for before, after, kernel in zip(widths, widths[1:], (5, 5, 6, 6), strict=False):
            layers += [nn.ConvTranspose2d(before, after, kernel, stride=2), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers[:-1]).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, features: Tensor) -> Tensor:
        image: Tensor = self.layers[1:](self._unfold(self.project(features)))
        return image

    def _unfold(self, seed: Tensor) -> Tensor:
        """The first transposed convolution of one pixel `[M, 32*depth]`, `[M, 4*depth, 5, 5]` in channels_last.

        It is a matrix product, and as such takes a tenth of the convolution's time on a CPU.
        """
        first = self.layers[0]
        weight = first.weight.permute(0, 2, 3, 1)  # a view, as the memory lies
        values = (seed @ weight.flatten(1)).unflatten(1, weight.shape[1:]) + first.bias
        image: Tensor = values.permute(0, 3, 1, 2)
        return image
