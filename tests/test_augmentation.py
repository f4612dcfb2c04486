"""Crops and shifts: inside the picture, the same for all frames of a sample, every place as likely."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from lightning_wm import rng
from lightning_wm.models.augmentation import centre_crop, random_crop, random_shift


def places(samples: int, channels: int, height: int, width: int) -> Tensor:
    """Images `[M, C, X, Y]` whose every pixel says in its last two digits where it is, and in the first its channel."""
    where = 10 * torch.arange(height)[:, None] + torch.arange(width)
    return (100 * torch.arange(channels)[:, None, None] + where).expand(samples, -1, -1, -1).to(torch.int16)


def test_crops_lie_inside_and_are_the_same_for_all_frames() -> None:
    images = places(4000, 9, 8, 7)
    with rng.scope(0, "model"):
        crops = random_crop(images, 5)
    corner = crops[:, 0, 0, 0]  # M: in the first channel the place itself
    top, left = corner // 10, corner % 10
    expected = corner[:, None, None, None] + places(1, 9, 5, 5)
    assert torch.equal(crops, expected)
    counts = torch.zeros(4, 3)
    counts.index_put_((top.long(), left.long()), torch.ones(4000), accumulate=True)
    assert chisquare(counts.flatten().numpy()).pvalue > 1e-3  # 8 - 5 + 1 rows by 7 - 5 + 1 columns


def test_a_crop_as_large_as_the_picture_is_the_picture() -> None:
    images = places(3, 2, 6, 6)
    assert torch.equal(random_crop(images, 6), images)


def test_the_crop_in_the_middle() -> None:
    assert centre_crop(places(1, 1, 4, 7), 2)[0, 0].tolist() == [[12, 13], [22, 23]]


SHIFTED = {
    ((1, 1), (1, 1)), ((1, 2), (1, 2)), ((2, 2), (2, 2)),
    ((1, 1), (3, 3)), ((1, 2), (3, 4)), ((2, 2), (4, 4)),
    ((3, 3), (3, 3)), ((3, 4), (3, 4)), ((4, 4), (4, 4)),
}  # fmt: skip
"""What a picture ((1, 2), (3, 4)) becomes by a shift of at most one pixel each way."""


def test_shifts_repeat_the_edges_and_are_the_same_for_all_frames() -> None:
    frame = torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8)
    images = torch.stack([frame, frame + 10]).expand(900, -1, -1, -1)
    with rng.scope(0, "model"):
        shifted = random_shift(images, 1)
    assert shifted.dtype == torch.uint8
    assert torch.equal(shifted[:, 1], shifted[:, 0] + 10)
    drawn = [tuple(map(tuple, image.tolist())) for image in shifted[:, 0]]
    assert set(drawn) == SHIFTED
    assert chisquare([drawn.count(one) for one in SHIFTED]).pvalue > 1e-3


@pytest.mark.parametrize("augment", [lambda images: random_crop(images, 3), lambda images: random_shift(images, 2)])
def test_draws_are_keyed(augment) -> None:
    images = places(50, 3, 8, 8)
    drawn = []
    for number in (0, 0, 1):
        with rng.scope(0, "model", 0, number):
            drawn.append(augment(images))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
