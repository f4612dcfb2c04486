"""The objective under torch.compile: compiled once per problem and shape, and kept on disk for the next run."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_wm.planning.objective import score
from lightning_wm.protocols import Problem, State


class Both(Protocol):
    """Scores `[M]` of plans `[M, H, A]`, and their gradient with respect to these."""

    def __call__(self, state: State, actions: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """As `objective.score` takes them."""


class CompiledScore:
    """`objective.score` of one problem on one kind of device, and its gradient with it: one program, and no graph."""

    def __init__(self, problem: Problem, device: str) -> None:
        self.problem, self.device = problem, device
        self._ready: set[torch.Size] = set()
        # Kernels are small: called from Python, as is the default, they wait for it longer than they run.
        options: dict[str, str | int | bool | Callable[..., Any]] = {"cpp_wrapper": True} if device == "cpu" else {}
        self._program: Both = torch.compile(_both(problem), dynamic=False, options=options)

    def __call__(self, state: State, actions: Tensor, noise: Tensor | None) -> Tensor:
        """Scores `[M]` with a gradient with respect to the actions, and to nothing else."""
        if actions.shape not in self._ready:
            values = score(self.problem, state, actions, noise)
            if not _follow(values, actions):
                return values  # who asks for the gradient says which part has none
            self._prepare(state, actions.detach(), noise)
        both = partial(self._program, state, noise=noise)
        scored: Tensor = _Scored.apply(actions, both)  # type: ignore[no-untyped-call]
        return scored

    def _prepare(self, state: State, actions: Tensor, noise: Tensor | None) -> None:
        """Compile now, and print how long it took."""
        plans, horizon, _ = actions.shape
        folder = use_cache()
        print(f"compiling the score of {plans} plans of {horizon} steps (kept in {folder}) …", file=sys.stderr)
        begin = time.perf_counter()
        with torch.no_grad():
            self._program(state, actions, noise)
        print(f"compiled in {time.perf_counter() - begin:.0f} s", file=sys.stderr)
        self._ready.add(actions.shape)


def _both(problem: Problem) -> Both:
    """The score and its gradient, for compiling."""
    stepwise = replace(problem, unroll=None)  # what is compiled needs no backward pass by hand

    def both(state: State, actions: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        def total(actions: Tensor) -> tuple[Tensor, Tensor]:
            values = score(stepwise, state, actions, noise)
            return values.sum(), values  # rows do not influence each other: the sum's gradient is each one's own

        gradient, (_, values) = torch.func.grad_and_value(total, has_aux=True)(actions)
        return values, gradient

    return both


def _follow(values: Tensor, actions: Tensor) -> bool:
    """Whether the values have a gradient with respect to the actions."""
    if not values.requires_grad:
        return False
    return torch.autograd.grad(values.sum(), actions, allow_unused=True)[0] is not None


class _Context(Protocol):
    """What a forward pass leaves for its backward pass."""

    saved_tensors: tuple[Tensor, ...]

    def save_for_backward(self, *tensors: Tensor) -> None:
        """For `saved_tensors`."""


class _Scored(torch.autograd.Function):
    """Scores whose gradient is known already."""

    @staticmethod
    def forward(ctx: _Context, actions: Tensor, both: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        values, gradient = both(actions.detach())
        ctx.save_for_backward(gradient)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return grad[:, None, None] * gradient, None


_newest: deque[CompiledScore] = deque(maxlen=4)
"""Problems are made anew for every actor; one that equals an older one, of the same model, is not compiled again."""


def compiled_score(problem: Problem, state: State, actions: Tensor, noise: Tensor | None = None) -> Tensor:
    """Scores `[M]`, as `objective.score`.

    Scores that nobody differentiates stay eager: they are few, and every shape would compile anew.
    """
    if not actions.requires_grad:
        return score(problem, state, actions, noise)
    device = actions.device.type
    kept = next((each for each in _newest if each.problem == problem and each.device == device), None)
    if kept is None:
        kept = CompiledScore(problem, device)
        _newest.append(kept)
    return kept(state, actions, noise)


def use_cache() -> str:
    """The folder that compiled code is kept in: TORCHINDUCTOR_CACHE_DIR, or one of ours in the user's cache."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(home / "lightning_wm" / "inductor"))
