"""State vectors in units of their own spread, with the statistics of what was seen lately."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_wm.models.distributions import widen
from lightning_wm.models.over_ranks import total

MEMORY = 50_000
"""Vectors that the statistics are of: batches are drawn uniformly from replay, so the newest of them stand for it."""

STD_FLOOR = 0.05
"""Smallest deviation that is divided by: what hardly varies is magnified 20 times at most."""


class Normaliser(nn.Module):
    """Mean 0 and deviation 1 per dimension, over the vectors that `update` was shown.

    All count alike up to `MEMORY` of them; from then on the old ones fade exponentially, so that the statistics follow
    replay, of which every batch is a uniform draw. Before the first it changes nothing. The statistics are buffers, so
    a resumed run goes on with them.

    Args:
        dimensions: O, length of the vectors.
        floor: smallest deviation that is divided by.
    """

    count: Tensor
    mean: Tensor
    var: Tensor

    def __init__(self, dimensions: int, floor: float = STD_FLOOR) -> None:
        super().__init__()
        self.floor = floor
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(dimensions))
        self.register_buffer("var", torch.ones(dimensions))

    @torch.no_grad()
    def update(self, vectors: Tensor) -> None:
        """Take in `[M, O]`; rows that are not finite do not count. Ranks take in each other's.

        Merged by counts as in Chan, Golub and LeVeque (1983), Eq. 2.1: the result is that of all rows at once.
        """
        vectors = vectors.to(self.mean.dtype)
        counted = vectors.isfinite().all(1)
        rows = torch.where(counted[:, None], vectors, 0.0)
        count = total(counted.sum())
        mean = total(rows.sum(0)) / count.clamp_min(1)
        squares = total(torch.where(counted[:, None], rows - mean, 0.0).square().sum(0))
        kept = self.count.clamp(max=MEMORY)
        both = (kept + count).clamp_min(1).to(mean.dtype)
        old, new = kept / both, count / both
        shift = mean - self.mean
        self.var.copy_(torch.where(count > 0, old * self.var + squares / both + old * new * shift.square(), self.var))
        self.mean.add_(new * shift)
        self.count.copy_(kept + count)

    def forward(self, vectors: Tensor) -> Tensor:
        """`[M, O]` in its own units to deviations from the mean."""
        return (widen(vectors) - self.mean) / self.std

    def invert(self, vectors: Tensor) -> Tensor:
        """Deviations from the mean `[M, O]` to their own units."""
        return vectors * self.std + self.mean

    @property
    def std(self) -> Tensor:
        """`[O]`, at least the floor."""
        return self.var.sqrt().clamp_min(self.floor)
