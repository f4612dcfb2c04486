"""What a world model sees: how observations are scaled, and the encoders of state vectors and pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from lightning_wm.errors import UserError
from lightning_wm.models.config import ModelConfig
from lightning_wm.models.distributions import symexp, symlog
from lightning_wm.models.normaliser import Normaliser
from lightning_wm.models.pixels import MovingPixels, PatchEncoder, averaged_shape
from lightning_wm.protocols import Spaces

PIXELS = 64
"""Side of the image that the convolutions are made for."""


@dataclass(frozen=True)
class Scaling:
    """Between observations in their own units and what the networks see and rebuild."""

    symlog: bool
    """Squash state vectors."""
    bits: int
    """Bits per colour that are seen."""
    normaliser: Normaliser | None
    """Measures state vectors in deviations, before they are squashed."""
    pixels: MovingPixels | None = None
    """Averages pictures and measures their pixels in deviations; None for pictures as they are, centred."""

    def learn(self, observation: TensorDictBase) -> None:
        """Take a batch `[B, T]` into the statistics, while training."""
        if not torch.is_grad_enabled():
            return
        if self.normaliser is not None and self.normaliser.training:
            self.normaliser.update(observation["observation"].flatten(0, -2))
        if self.pixels is not None and self.pixels.training:
            self.pixels.learn(observation["pixels"])

    def seen(
        self,
        observation: TensorDictBase | Mapping[str, Tensor],
        spaces: Spaces,
        dtype: torch.dtype,
        generator: torch.Generator | None,
    ) -> dict[str, Tensor]:
        """Observations `[M, ...]` scaled; the generator dequantises pixels of fewer than 8 bits."""
        scaled: dict[str, Tensor] = {}
        if spaces.observation is not None:
            vector = observation["observation"]
            vector = (vector if self.normaliser is None else self.normaliser(vector)).to(dtype)
            scaled["observation"] = symlog(vector) if self.symlog else vector
        if self.pixels is not None:
            scaled["pixels"] = self.pixels(observation["pixels"]).to(dtype)
        elif spaces.pixels is not None:
            image = centred(observation["pixels"], self.bits, generator).to(dtype)
            scaled["pixels"] = image.contiguous(memory_format=torch.channels_last)  # as the decoder's output lies
        return scaled

    def restored(self, scaled: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`observation` `[M, O]` in its own units, `pixels` `[M, 3, X, Y]` in [0, 1]."""
        restored: dict[str, Tensor] = {}
        if "observation" in scaled:
            vector = symexp(scaled["observation"]) if self.symlog else scaled["observation"]
            restored["observation"] = vector if self.normaliser is None else self.normaliser.invert(vector)
        if "pixels" in scaled:
            image = scaled["pixels"]
            restored["pixels"] = (image + 0.5).clamp(0.0, 1.0) if self.pixels is None else self.pixels.restored(image)
        return restored


def centred(pixels: Tensor, bits: int, generator: torch.Generator | None) -> Tensor:
    """uint8 to [-0.5, 0.5]; fewer than 8 bits are dequantised with uniform noise (its mean without a generator)."""
    if bits == 8:
        return pixels.to(torch.float32, copy=True).div_(255.0).sub_(0.5)
    level = torch.bitwise_right_shift(pixels, 8 - bits).float()
    jitter: Tensor | float = 0.5
    if generator is not None:
        jitter = torch.rand(pixels.shape, generator=generator).to(pixels.device)
    return level.add_(jitter).mul_(0.5**bits).sub_(0.5)


def pixel_encoder(config: ModelConfig, shape: tuple[int, int, int]) -> ConvEncoder | PatchEncoder:
    """What encodes pictures of a shape (C, X, Y).

    Raises:
        UserError: the encoder cannot take that shape.
    """
    if config.pixels.encoder == "patches":
        return PatchEncoder(config.pixels, averaged_shape(shape), config.depth)
    if shape != (3, PIXELS, PIXELS):
        raise UserError(
            f"pixels of shape {shape}: the convolutional model expects (3, {PIXELS}, {PIXELS}); "
            f"type observation.render.size={PIXELS}, or model.pixels.encoder=patches for other multiples of 16"
        )
    return ConvEncoder(config.depth)


def embedding(config: ModelConfig, spaces: Spaces) -> int:
    """E: width of an encoded observation."""
    vector = 0 if spaces.observation is None else config.units if config.layers else spaces.observation
    picture = config.pixels.embedding if config.pixels.encoder == "patches" else 32 * config.depth
    return vector + (0 if spaces.pixels is None else picture)


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
