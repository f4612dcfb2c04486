"""The cheap way to see: pictures averaged, measured in deviations, seen in patches with large strides.

At depth 16 an image of 64 x 64 takes 0.95 million multiply-adds to encode and 0.83 million to rebuild.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_wm.config.fields import Count, Natural, Weight, settings
from lightning_wm.errors import UserError
from lightning_wm.models.augmentation import random_shift
from lightning_wm.models.normaliser import Normaliser

SQUARE = 2
"""Side of the squares of a picture that are averaged."""
PATCH = 4
"""Stride of the patches of the averaged picture, 8 pixels of the picture itself."""
SIDES = 2 * SQUARE * PATCH
"""What a picture's side is a multiple of."""
CHUNK = 50
"""Images that are averaged at once, so that what lies between stays in the cache."""


@settings("model.pixels")
class PixelConfig:
    """How pictures are encoded, and what they teach."""

    encoder: Literal["convolutions", "patches"] = "convolutions"
    """`convolutions` (arXiv:1811.04551, 64 x 64 only) or `patches` every 8 x 8 pixels, a fifth of the
    work at the same `model.depth`."""
    loss: Literal["reconstruction", "contrast", "barlow"] = "reconstruction"
    """What the latent is held to know of a picture: rebuild it with a decoder to match the encoder; or, without a
    decoder, tell its code from the others' of the batch before it is seen (`contrast`, arXiv:1807.03748), or be as its
    code without redundancy (`barlow`, arXiv:2103.03230)."""
    scale: Weight = 1.0
    """Weight of that loss. Rebuilt from `patches` it is the share of the pixels' variance that stays unexplained, else
    nats; PlaNet's convolutions are weighed by `reconstruction_scale` alone."""
    embedding: Count = 256
    """E: width of a picture's code from `patches`."""
    units: Count = 256
    """Width of the hidden layer that `patches` are rebuilt from, and of what is held against a code."""
    every: Count = 1
    """One picture in so many of a batch is rebuilt from `patches`: neighbours in time teach much the same."""
    shift: Natural = 0
    """Pixels that pictures are moved by at most before they are encoded, the same for a whole window, of `patches` in
    whole squares of two; what is rebuilt is where it was."""


def averaged_shape(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """(x, y, C) of pictures of a shape (C, X, Y), averaged over squares.

    Raises:
        UserError: a side is no multiple of `SIDES`.
    """
    channels, *sides = shape
    if any(side % SIDES for side in sides):
        fitting = max(SIDES, round(sides[0] / SIDES) * SIDES)
        raise UserError(
            f"pixels of shape {shape}: model.pixels.encoder=patches expects sides that are multiples of {SIDES}; "
            f"type observation.render.size={fitting}"
        )
    return sides[0] // SQUARE, sides[1] // SQUARE, channels


class MovingPixels(Normaliser):
    """Pictures averaged over squares, each pixel in deviations from its mean over the pictures seen.

    What never changes is 0, and what changes seldom counts as much as what changes all the time: the error of a
    reconstruction in these units is weighted where pixels move.

    Args:
        shape: (C, X, Y) of the pictures.

    Raises:
        UserError: a side is no multiple of `SIDES`.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = averaged_shape(shape)
        super().__init__(math.prod(self.shape), floor=0.05)

    def averaged(self, pixels: Tensor) -> Tensor:
        """Bytes `[M, C, X, Y]` to `[M, x, y, C]` in [0, 1]."""
        small = self.mean.new_empty(len(pixels), self.shape[2], *self.shape[:2])
        for begin in range(0, len(pixels), CHUNK):
            sums = _sums_of_squares(pixels[begin : begin + CHUNK])
            torch.mul(sums, 1.0 / (SQUARE * SQUARE * 255.0), out=small[begin : begin + CHUNK])
        return small.permute(0, 2, 3, 1).contiguous()

    def learn(self, pixels: Tensor) -> None:
        """Take pictures `[B, T, C, X, Y]` into the statistics: every eighth of a window, neighbours hardly differ."""
        self.update(self.averaged(pixels[:, ::8].flatten(0, 1)).flatten(1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Bytes `[M, C, X, Y]` to deviations `[M, x, y, C]`."""
        deviations: Tensor = self.averaged(pixels).flatten(1).sub_(self.mean).div_(self.std).unflatten(1, self.shape)
        return deviations

    @staticmethod
    def shifted(deviations: Tensor, windows: int, most: int, generator: torch.Generator | None = None) -> Tensor:
        """Deviations `[B*T, x, y, C]` of B windows, each moved as one in whole squares, as many as cover `most` pixels.

        What never moves is 0 and stays it: pictures that were moved before they are measured would be held against
        the mean of other places, and every edge of the scenery would count as the largest of deviations.
        """
        frames = deviations.unflatten(0, (windows, -1))  # B, T, x, y, C
        return random_shift(frames, -(-most // SQUARE), generator).flatten(0, 1)

    def restored(self, deviations: Tensor) -> Tensor:
        """Deviations `[M, x, y, C]` to pictures `[M, C, X, Y]` in [0, 1]."""
        image: Tensor = self.invert(deviations.flatten(1)).unflatten(1, self.shape).clamp(0.0, 1.0).permute(0, 3, 1, 2)
        return image.repeat_interleave(SQUARE, 2).repeat_interleave(SQUARE, 3)

    def variance(self) -> Tensor:
        """Of all pixels in their deviations, summed: how many of them move. At least 1."""
        return (self.var / self.std.square()).sum().clamp_min(1.0)


class PatchEncoder(nn.Module):
    """Pictures `[M, x, y, C]` in deviations to codes `[M, E]`.

    Patches that overlap by half, as those side by side see the same thing anew in every place; then three by three of
    them, every second time; then all.

    Args:
        config: sizes.
        shape: (x, y, C).
        depth: half the width of a patch, a quarter of the width of nine.
    """

    def __init__(self, config: PixelConfig, shape: tuple[int, int, int], depth: int) -> None:
        super().__init__()
        one, nine = 2 * depth, 4 * depth
        windows = (shape[0] // (2 * PATCH)) * (shape[1] // (2 * PATCH))
        self.patch = nn.Conv2d(shape[2], one, 2 * PATCH, stride=PATCH, padding=PATCH // 2)
        self.nine = nn.Conv2d(one, nine, 3, stride=2, padding=1)
        self.whole = nn.Linear(windows * nine, config.embedding)
        self.norm = nn.LayerNorm(config.embedding)
        self.outputs = config.embedding
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, image: Tensor) -> Tensor:
        patches = F.relu(self.patch(image.permute(0, 3, 1, 2)), inplace=True)  # M, 2*depth, x/4, y/4
        nine = F.relu(self.nine(patches), inplace=True)  # M, 4*depth, x/8, y/8
        code: Tensor = F.relu(self.norm(self.whole(nine.flatten(1))))
        return code


class PatchDecoder(nn.Module):
    """Features `[M, F]` to the mean picture `[M, x, y, C]` in deviations."""

    def __init__(self, features: int, config: PixelConfig, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape
        self.hidden = nn.Linear(features, config.units)
        self.norm = nn.LayerNorm(config.units)
        self.out = nn.Linear(config.units, shape[0] * shape[1] * shape[2])
        nn.init.zeros_(self.out.weight)  # begin with the mean picture
        nn.init.zeros_(self.out.bias)

    def forward(self, features: Tensor) -> Tensor:
        image: Tensor = self.out(F.relu(self.norm(self.hidden(features)))).unflatten(1, self.shape)
        return image


_EVEN_BYTES = 0x00FF00FF00FF00FF


def _sums_of_squares(pixels: Tensor) -> Tensor:
    """Bytes `[M, C, X, Y]` to the sums over squares of 2 x 2, `[M, C, X/2, Y/2]` in 16 bits.

    Eight columns are added at once, as the four 16-bit parts of an integer: four bytes need ten bits.
    """
    eight = pixels.contiguous().view(torch.int64)  # M, C, X, Y/8
    pairs = (eight & _EVEN_BYTES).add_((eight >> 8).bitwise_and_(_EVEN_BYTES))
    return (pairs[:, :, 0::2] + pairs[:, :, 1::2]).view(torch.int16)
