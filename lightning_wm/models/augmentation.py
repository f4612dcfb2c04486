"""Pictures seen from elsewhere: crops and shifts, the same for all frames of a sample, on the pictures' device."""

from __future__ import annotations

import torch
from torch import Tensor


def windows(images: Tensor, top: Tensor, left: Tensor, size: tuple[int, int]) -> Tensor:
    """A window of each image `[M, C, X, Y, ...]`: `[M, C, *size, ...]`.

    Args:
        images: of any type.
        top: first row of each window, `[M]`, on the CPU.
        left: first column.
        size: rows and columns of a window.
    """
    # Slices are copied six times as fast as indices gather.
    corners = zip(images.unbind(), top.tolist(), left.tolist(), strict=True)
    return torch.stack([image[:, y : y + size[0], x : x + size[1]] for image, y, x in corners])


def random_crop(images: Tensor, size: int) -> Tensor:
    """A square of `size` of each image `[M, C, X, Y]`, uniform over all that lie inside (arXiv:2004.04136, 4.2).

    Drawn from torch's global state.
    """
    top, left = (torch.randint(side - size + 1, (len(images),), device="cpu") for side in images.shape[2:])
    return windows(images, top, left, (size, size))


def centre_crop(images: Tensor, size: int) -> Tensor:
    """The middle square of `size` of images `[M, C, X, Y]`."""
    top, left = ((side - size) // 2 for side in images.shape[2:])
    return images[:, :, top : top + size, left : left + size]


def random_shift(images: Tensor, most: int, generator: torch.Generator | None = None) -> Tensor:
    """Images `[M, C, X, Y, ...]` moved by up to `most` pixels each way, their edges repeated (arXiv:2004.13649, 3.1).

    Drawn from the generator, or from torch's global state.
    """
    top, left = (torch.randint(2 * most + 1, (len(images),), generator=generator, device="cpu") for _ in range(2))
    padded = _with_edges(_with_edges(images, most, 2), most, 3)
    return windows(padded, top, left, (images.shape[2], images.shape[3]))


def _with_edges(images: Tensor, most: int, dim: int) -> Tensor:
    """The first and last row or column `most` times more; torch pads no bytes so on a GPU."""
    first, last = (images.narrow(dim, at, 1) for at in (0, images.shape[dim] - 1))
    return torch.cat([*[first] * most, images, *[last] * most], dim)
