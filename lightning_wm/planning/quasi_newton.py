"""L-BFGS on actions, every candidate by itself: steps that find their own length from how the gradient changes.

    d = H g        H from the last pairs of step and change of gradient (two-loop recursion, Nocedal 1980)
    a <- project(a + d), |d| at most a radius; a worse score takes the step back and shrinks the radius

An action at its bound whose gradient points outwards stands still (Bertsekas 1982, projected Newton).
"""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

from lightning_wm.planning.climb import Climb

_SHRINK, _GROW = 0.25, 1.5
_PAIRS = 5  # more found nothing better on the problems of tests/problems.py


def _dot(left: Tensor, right: Tensor) -> Tensor:
    """Per candidate: `[E, N, H, A]` to `[E, N, 1, 1]`."""
    return (left * right).sum((2, 3), keepdim=True)


def _size(plan: Tensor) -> Tensor:
    """Root mean square of each candidate, `[E, N, 1, 1]`."""
    return plan.square().mean((2, 3), keepdim=True).sqrt().clamp(min=torch.finfo(plan.dtype).tiny)


class QuasiNewton(Climb):
    """Candidates where they are best, what is known of their curvature, and where to look next.

    Args:
        start: `[E, N, H, A]`, what is optimised.
        radius: largest root mean square of a step.
        bounded: whether what is optimised has to stay in [-1, 1].
    """

    def __init__(self, start: Tensor, radius: float, bounded: bool) -> None:
        super().__init__(start)
        self.bounded, self._most = bounded, radius
        self._gradient = torch.zeros_like(start)
        self._radius = start.new_full((*start.shape[:2], 1, 1), radius)
        self._length: Tensor | None = None  # of a step without pairs, as a multiple of the gradient
        self._pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=_PAIRS)

    def learn(self, free: Tensor, gradient: Tensor, better: Tensor) -> None:
        """See `Climb`."""
        if self._length is None:
            self._length = self._most / _size(gradient)
        else:
            self._learn(better, free - self.best, self._gradient - gradient)
        self._gradient = torch.where(better, gradient, self._gradient)

    def _learn(self, better: Tensor, step: Tensor, change: Tensor) -> None:
        """A pair for the curvature where the step was good and the score bends down along it."""
        bend, square = _dot(step, change), _dot(step, step)
        usable = better & (bend > 1e-10 * square)
        inverse = torch.where(usable, 1 / torch.where(usable, bend, 1.0), 0.0)
        self._pairs.append((torch.where(usable, step, 0.0), torch.where(usable, change, 0.0), inverse))
        assert self._length is not None
        longer = torch.where(usable, square * inverse, self._length / _SHRINK)  # Barzilai & Borwein 1988
        self._length = torch.where(better, longer, self._length * _SHRINK)
        self._radius = torch.where(better, (self._radius * _GROW).clamp(max=self._most), self._radius * _SHRINK)

    def next(self) -> Tensor:
        """See `Climb`."""
        gradient, held = self._gradient, None
        if self.bounded:
            held = ((self.best >= 1) & (gradient > 0)) | ((self.best <= -1) & (gradient < 0))
            gradient = gradient.masked_fill(held, 0.0)
        step = self._direction(gradient)
        if held is not None:
            step = step.masked_fill(held, 0.0)
        step = step * (self._radius / _size(step)).clamp(max=1)
        moved = self.best + step
        return moved.clamp(-1, 1) if self.bounded else moved

    def _direction(self, gradient: Tensor) -> Tensor:
        """Two-loop recursion (Nocedal & Wright 2006, Alg. 7.4), uphill."""
        assert self._length is not None
        step, shares = gradient, []
        for moved, change, inverse in reversed(self._pairs):
            share = inverse * _dot(moved, step)
            step = step - share * change
            shares.append(share)
        step = step * self._length
        for (moved, change, inverse), share in zip(self._pairs, reversed(shares), strict=True):
            step = step + moved * (share - inverse * _dot(change, step))
        return torch.where(_dot(step, gradient) > 0, step, self._length * gradient)
