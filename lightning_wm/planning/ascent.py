"""Gradient ascent on actions: candidates are rows and never influence each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from lightning_wm.config.fields import Natural, Positive, Weight, settings
from lightning_wm.planning import starts
from lightning_wm.planning.climb import Climb
from lightning_wm.planning.quasi_newton import QuasiNewton
from lightning_wm.planning.search import Search

_EDGE = 0.999  # tanh's slope there is 0.002: an action at the bound can still come back


class Optimiser(Protocol):
    """A step rule that keeps its own moments."""

    def step(self, gradient: Tensor) -> Tensor:
        """The direction to go, of the gradient's shape, before the step size."""


class Adam:
    """Adam (arXiv:1412.6980, Alg. 1), bias-corrected, with its default decay rates, per element."""

    def __init__(self, like: Tensor) -> None:
        self.first, self.second, self.count = torch.zeros_like(like), torch.zeros_like(like), 0

    def step(self, gradient: Tensor) -> Tensor:
        """The direction to go, about one in size."""
        self.count += 1
        self.first.lerp_(gradient, 0.1)
        self.second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        scale = (self.second / (1 - 0.999**self.count)).sqrt_().add_(1e-8)
        return self.first / (1 - 0.9**self.count) / scale


class Momentum:
    """Plain gradient steps with heavy-ball momentum."""

    def __init__(self, like: Tensor, momentum: float) -> None:
        self.velocity, self.momentum = torch.zeros_like(like), momentum

    def step(self, gradient: Tensor) -> Tensor:
        """The direction to go."""
        return self.velocity.mul_(self.momentum).add_(gradient)


@settings("planner")
class Ascent:
    """How actions are improved by gradient steps; planners whose search this is have it among their settings."""

    iterations: Natural
    """Gradient steps."""
    step_size: Positive
    """Of the first gradient step, before the bound."""
    decay: Positive = 1.0
    """The last step's size as a share of the first's; in between it shrinks by equal factors. Not of `lbfgs`."""
    optimiser: Literal["adam", "sgd", "lbfgs"] = "adam"
    """`adam`, `sgd`, or `lbfgs`, which finds the steps' lengths itself: none is longer than `step_size` (root mean
    square), and steps that make the score worse are taken back."""
    momentum: Weight = 0.0
    """Of `sgd`."""
    bound: Literal["tanh", "clip"] = "tanh"
    """How actions stay in [-1, 1]: `tanh` of what is optimised, or `clip` (projection after each step)."""
    normalise: bool = False
    """Divide each candidate's gradient by its root mean square. Not of `lbfgs`."""
    clip_norm: Weight = 0.0
    """Largest norm of a candidate's gradient; 0 leaves it. Not of `lbfgs`."""
    noise: Weight = 0.0
    """Standard deviation of noise added to what is optimised after each step; it shrinks with the step size. Not of
    `lbfgs`."""
    patience: Natural = 0
    """Steps without a new best after which an environment's plan is final; 0 takes all iterations."""

    def shares(self) -> list[float]:
        """Every iteration's step size as a share of the first's."""
        last = max(self.iterations - 1, 1)
        return [self.decay ** (i / last) for i in range(self.iterations)]

    def free(self, actions: Tensor) -> Tensor:
        """What is optimised, from actions in [-1, 1]."""
        return actions.clamp(-_EDGE, _EDGE).atanh() if self.bound == "tanh" else actions

    def actions(self, free: Tensor) -> Tensor:
        """Actions in [-1, 1] from what is optimised."""
        return free.tanh() if self.bound == "tanh" else free.clamp(-1, 1)

    def project(self, free: Tensor) -> Tensor:
        """What is optimised, back where the score has a gradient."""
        return free if self.bound == "tanh" else free.clamp(-1, 1)

    def scaled(self, gradient: Tensor) -> Tensor:
        """The gradient `[E, N, H, A]`, normalised and clipped per candidate."""
        if self.normalise:
            size = gradient.square().mean((2, 3), keepdim=True).sqrt()
            gradient = gradient / size.clamp(min=torch.finfo(gradient.dtype).tiny)
        if self.clip_norm:
            norm = gradient.square().sum((2, 3), keepdim=True).sqrt()
            gradient = gradient * (self.clip_norm / norm.clamp(min=self.clip_norm))
        return gradient

    def start(self, like: Tensor) -> Optimiser:
        """A fresh step rule."""
        return Adam(like) if self.optimiser == "adam" else Momentum(like, self.momentum)

    def climb(self, free: Tensor, generators: Sequence[torch.Generator]) -> Climb:
        """A fresh way up from `[E, N, H, A]`, with one generator per environment for its noise."""
        if self.optimiser == "lbfgs":
            return QuasiNewton(free, self.step_size, bounded=self.bound == "clip")
        return _Steps(free, self, generators)


class _Steps(Climb):
    """Steps of scheduled size in the direction of an optimiser, from wherever the last one led."""

    def __init__(self, start: Tensor, how: Ascent, generators: Sequence[torch.Generator]) -> None:
        super().__init__(start)
        self._how, self._generators = how, generators
        self._optimiser, self._shares = how.start(start), iter(how.shares())

    def learn(self, free: Tensor, gradient: Tensor, better: Tensor) -> None:
        """See `Climb`."""
        self._free, self._gradient = free, gradient

    def next(self) -> Tensor:
        """See `Climb`."""
        how, share = self._how, next(self._shares)
        moved = self._free + how.step_size * share * self._optimiser.step(how.scaled(self._gradient))
        if how.noise:
            _, number, horizon, action = moved.shape
            moved = moved + how.noise * share * starts.noise(number, horizon, action, self._generators, moved)
        return how.project(moved)


def ascend(search: Search, candidates: Tensor, how: Ascent) -> tuple[Tensor, Tensor, Tensor]:
    """Improve candidates `[E, N, H, A]`; `iterations + 1` scorings, the last without a gradient.

    Every candidate keeps the best it has seen, its start included, so none ends worse than it began.

    Returns:
        The candidates, their scores `[E, N]`, and the scores of their starts `[E, N]`.
    """
    free = how.free(candidates)
    climb = how.climb(free, search.generators)
    first: Tensor | None = None
    stalled = torch.zeros(search.environments, dtype=torch.int64, device=free.device)
    for _ in range(how.iterations):
        _, score, gradient = search.gradient(free, how.actions)
        first = score if first is None else first
        stalled = torch.where(climb.see(free, score, gradient), 0, stalled + 1)
        moved = climb.next()
        if how.patience:
            moving = stalled < how.patience
            if not moving.any():
                break
            moved = torch.where(moving[:, None, None, None], moved, free)
        free = moved
    else:
        score = search.score(how.actions(free))
        first = score if first is None else first
        climb.see(free, score, None)
    assert first is not None
    return how.actions(climb.best), climb.score, first
