"""The objective under torch.compile: one compiled function per problem and shape, kept on disk for the next run."""

from __future__ import annotations

import os
import sys
import time
import warnings
from dataclasses import fields, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_wm.models.freezing import frozen
from lightning_wm.planning.objective import score
from lightning_wm.protocols import Problem, State


class CompiledScore:
    """`objective.score` whose gradient is compiled, with fixed shapes; compiles again when the problem changes.

    Scores that nobody differentiates stay eager: they are few, and every shape would compile anew.
    """

    def __init__(self) -> None:
        self._problem: Problem | None = None
        self._ready: set[torch.Size] = set()

    def __call__(self, problem: Problem, state: State, actions: Tensor, noise: Tensor | None = None) -> Tensor:
        """Scores `[M]`, as `objective.score`."""
        if not actions.requires_grad:
            return score(problem, state, actions, noise)
        if problem != self._problem:
            self._begin(problem)
        with frozen(*_modules(problem)), warnings.catch_warnings():
            # Tracing looks at `.grad` of the actions, which are no leaf.
            warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
            if actions.shape not in self._ready:
                self._prepare(state, actions, noise)
            values: Tensor = self._compiled(state, actions, noise)
        return values

    def _begin(self, problem: Problem) -> None:
        self._problem, self._ready = problem, set()
        stepwise = replace(problem, unroll=None)  # what is compiled needs no backward pass by hand

        def of_problem(state: State, actions: Tensor, noise: Tensor | None) -> Tensor:
            return score(stepwise, state, actions, noise)

        self._compiled = torch.compile(of_problem, dynamic=False)

    def _prepare(self, state: State, actions: Tensor, noise: Tensor | None) -> None:
        """Compile forwards and backwards now, and say how long it took."""
        plans, horizon, _ = actions.shape
        folder = use_cache()
        print(f"compiling the score of {plans} plans of {horizon} steps (kept in {folder}) …", file=sys.stderr)
        begin = time.perf_counter()
        values = self._compiled(state, actions, noise)
        if values.requires_grad:
            torch.autograd.grad(values.sum(), actions)
        print(f"compiled in {time.perf_counter() - begin:.0f} s", file=sys.stderr)
        self._ready.add(actions.shape)


def use_cache() -> str:
    """The folder that compiled code is kept in: TORCHINDUCTOR_CACHE_DIR, or one of ours in the user's cache."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(home / "lightning_wm" / "inductor"))


def _modules(problem: Problem) -> list[nn.Module]:
    """The modules whose methods the problem is made of.

    A compiled backward pass computes the gradient of everything that could take one, asked for or not.
    """
    owners = [getattr(getattr(problem, field.name), "__self__", None) for field in fields(problem)]
    return [owner for owner in owners if isinstance(owner, nn.Module)]
