"""Candidates while they climb: where each is best, and where it looks next."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Climb(ABC):
    """A way to climb, candidate by candidate; it keeps the best that each has seen, its start included.

    Args:
        start: `[E, N, H, A]`, what is optimised.
    """

    def __init__(self, start: Tensor) -> None:
        self.best = start
        self.score = start.new_full(start.shape[:2], -torch.inf)

    def see(self, free: Tensor, score: Tensor, gradient: Tensor | None) -> Tensor:
        """Take in candidates `[E, N, H, A]`, their scores `[E, N]` and gradients, None where no step follows.

        Returns:
            Which environments `[E]` have a new best of all candidates.
        """
        before = self.score.amax(1)
        better = score > self.score
        if gradient is not None:
            self.learn(free, gradient, better[:, :, None, None])
        self.best = torch.where(better[:, :, None, None], free, self.best)
        self.score = torch.where(better, score, self.score)
        return self.score.amax(1) > before

    @abstractmethod
    def learn(self, free: Tensor, gradient: Tensor, better: Tensor) -> None:
        """Note the gradient at `free`; `better` `[E, N, 1, 1]` says where that beats `best`, which is still the old."""

    @abstractmethod
    def next(self) -> Tensor:
        """Where to look next, `[E, N, H, A]`."""
