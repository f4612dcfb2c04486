"""Gradient ascent on actions: candidates are rows and never influence each other."""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor

from lightning_wm.config.fields import Natural, Positive, Weight, settings
from lightning_wm.planning import starts
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
        """A fresh optimiser."""
        return Adam(like) if self.optimiser == "adam" else Momentum(like, self.momentum)


class _Best:
    """The best actions `[E, N, H, A]` and score `[E, N]` that each candidate has seen."""

    def __init__(self, actions: Tensor) -> None:
        self.actions = actions
        self.score = actions.new_full(actions.shape[:2], -torch.inf)

    def see(self, actions: Tensor, score: Tensor) -> Tensor:
        """Keep what is better; which environments `[E]` have a new best of all candidates."""
        before = self.score.amax(1)
        better = score > self.score
        self.actions = torch.where(better[:, :, None, None], actions, self.actions)
        self.score = torch.where(better, score, self.score)
        return self.score.amax(1) > before


def ascend(search: Search, candidates: Tensor, how: Ascent) -> tuple[Tensor, Tensor, Tensor]:
    """Improve candidates `[E, N, H, A]`; `iterations + 1` scorings, the last without a gradient.

    Every candidate keeps the best it has seen, its start included, so none ends worse than it began.

    Returns:
        The candidates, their scores `[E, N]`, and the scores of their starts `[E, N]`.
    """
    return _quasi_newton(search, candidates, how) if how.optimiser == "lbfgs" else _steps(search, candidates, how)


def _quasi_newton(search: Search, candidates: Tensor, how: Ascent) -> tuple[Tensor, Tensor, Tensor]:
    """`ascend` by L-BFGS."""
    free = how.project(how.free(candidates))
    climb = QuasiNewton(free, how.step_size, bounded=how.bound == "clip")
    first: Tensor | None = None
    stalled = torch.zeros(search.environments, dtype=torch.int64, device=free.device)
    for _ in range(how.iterations):
        _, score, gradient = search.gradient(free, how.actions)
        first = score if first is None else first
        stalled = torch.where(climb.see(free, score, gradient), 0, stalled + 1)
        free = climb.next()
        if how.patience:
            moving = stalled < how.patience
            if not moving.any():
                break
            free = torch.where(moving[:, None, None, None], free, climb.best)
    else:
        last = search.score(how.actions(free))
        first = last if first is None else first
        climb.see(free, last, torch.zeros_like(free))
    assert first is not None
    return how.actions(climb.best), climb.score[:, :, 0, 0], first


def _steps(search: Search, candidates: Tensor, how: Ascent) -> tuple[Tensor, Tensor, Tensor]:
    """`ascend` by a step rule."""
    free = how.free(candidates)
    optimiser, best = how.start(free), _Best(how.actions(free))
    first: Tensor | None = None
    stalled = torch.zeros(search.environments, dtype=torch.int64, device=free.device)
    for share in how.shares():
        actions, score, gradient = search.gradient(free, how.actions)
        first = score if first is None else first
        stalled = torch.where(best.see(actions, score), 0, stalled + 1)
        moved = free + how.step_size * share * optimiser.step(how.scaled(gradient))
        if how.noise:
            _, number, horizon, action = free.shape
            moved = moved + how.noise * share * starts.noise(number, horizon, action, search.generators, free)
        moved = how.project(moved)
        if how.patience:
            moving = stalled < how.patience
            if not moving.any():
                break
            moved = torch.where(moving[:, None, None, None], moved, free)
        free = moved
    else:
        last = how.actions(free)
        score = search.score(last)
        first = score if first is None else first
        best.see(last, score)
    assert first is not None
    return best.actions, best.score, first
