"""Pictures of any usual form become uint8 `[X, Y, 3]`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

CHANNELS = (1, 3, 4)
LEAST = 16
"""Pixels of a side: smaller arrays are grids that mean something else."""


def rgb(image: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Grey `[X, Y]` and `[X, Y, 1]` repeated, RGBA `[X, Y, 4]` without its transparency, RGB as it is.

    Raises:
        ValueError: another shape or dtype.
    """
    form = image.ndim == 2 or (image.ndim == 3 and image.shape[2] in CHANNELS)
    if image.dtype != np.uint8 or not form or image.size == 0:
        raise ValueError(f"it is {image.dtype} {list(image.shape)}, expected uint8 [height, width, 3]")
    planes = image.astype(np.uint8, copy=False).reshape(*image.shape[:2], -1)
    return planes.repeat(3, axis=2) if planes.shape[2] == 1 else planes[:, :, :3]


def square(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """A picture `[X, Y, 3]` as `[size, size, 3]`, by antialiased bilinear interpolation."""
    if image.shape[:2] == (size, size):
        return np.array(image)
    planes = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    resized = interpolate(planes, (size, size), mode="bilinear", antialias=True)
    small: NDArray[np.uint8] = resized[0].permute(1, 2, 0).numpy()
    return small


@dataclass(frozen=True)
class PictureForm:
    """How an array of an observation is a picture."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    largest: float
    """The value of full brightness: 255 or, for fractions, 1."""
    first: bool
    """Whether the channels are the first axis."""

    def rgb(self, value: NDArray[np.generic]) -> NDArray[np.uint8]:
        """uint8 `[X, Y, 3]`; fractions are rounded to the nearest of 255 levels.

        Raises:
            ValueError: another shape or dtype, or values outside 0 to `largest`.
        """
        numbers = "f" if self.dtype.kind == "f" else "iu"
        if value.shape != self.shape or value.dtype.kind not in numbers:
            raise ValueError(
                f"it is {value.dtype} {list(value.shape)}, expected {self.dtype} {list(self.shape)} as in its space"
            )
        if value.dtype != np.uint8:
            levels = value.astype(np.float64) * (255 / self.largest)
            if not ((levels >= 0) & (levels <= 255)).all():
                raise ValueError(f"it has values from {value.min()} to {value.max()}, expected 0 to {self.largest:g}")
            value = np.rint(levels).astype(np.uint8)
        return rgb(value.transpose(1, 2, 0) if self.first else value)


def picture_form(shape: tuple[int, ...], dtype: np.dtype[np.generic], low: float, high: float) -> PictureForm | None:
    """The form of an array that is a picture: RGB, grey or RGBA with the channels last, RGB or grey with them first.

    Four channels that come first are rather four pictures. Values go from 0 to 255, those of floats to 1 or 255.

    Args:
        shape: of the array.
        dtype: of the array.
        low: the least value it may have.
        high: the largest.
    """
    if dtype.kind not in "fiu" or low != 0 or (high != 255 and not (dtype.kind == "f" and high == 1)):
        return None
    last = (len(shape) == 2 and dtype == np.uint8) or (len(shape) == 3 and shape[2] in CHANNELS)
    first = len(shape) == 3 and not last and shape[0] in CHANNELS[:2]
    sides = shape[1:] if first else shape[:2]
    if not (last or first) or min(sides) < LEAST:
        return None
    return PictureForm(shape, dtype, high, first)


def is_image(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> bool:
    """Whether an array is bytes of an image, of whatever form, and not numbers of a state."""
    return dtype == np.uint8 and sum(side >= LEAST for side in shape) >= 2
