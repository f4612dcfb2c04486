"""The objective under torch.compile: compiled once per problem and shape, and kept on disk for the next run."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections import deque
from dataclasses import replace
from pathlib import Path
from types import MethodType

import torch
from torch import Tensor, nn

from lightning_wm.models.freezing import frozen
from lightning_wm.planning.objective import score
from lightning_wm.protocols import Problem, State


class CompiledScore:
    """`objective.score` of one problem with fixed shapes."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._ready: set[torch.Size] = set()
        stepwise = replace(problem, unroll=None)  # what is compiled needs no backward pass by hand

        def of_problem(state: State, actions: Tensor, noise: Tensor | None) -> Tensor:
            return score(stepwise, state, actions, noise)

        self._compiled = torch.compile(of_problem, dynamic=False)

    def __call__(self, state: State, actions: Tensor, noise: Tensor | None) -> Tensor:
        """Scores `[M]` with a gradient with respect to the actions, and to nothing else."""
        with frozen(*_modules(self.problem)), warnings.catch_warnings():
            # Tracing looks at `.grad` of the actions, which are no leaf.
            warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
            if actions.shape not in self._ready:
                self._prepare(state, actions, noise)
            values: Tensor = self._compiled(state, actions, noise)
        return values

    def _prepare(self, state: State, actions: Tensor, noise: Tensor | None) -> None:
        """Compile forwards and backwards now, and print how long it took."""
        plans, horizon, _ = actions.shape
        folder = use_cache()
        print(f"compiling the score of {plans} plans of {horizon} steps (kept in {folder}) …", file=sys.stderr)
        begin = time.perf_counter()
        values = self._compiled(state, actions, noise)
        if values.requires_grad:
            torch.autograd.grad(values.sum(), actions)
        print(f"compiled in {time.perf_counter() - begin:.0f} s", file=sys.stderr)
        self._ready.add(actions.shape)


_newest: deque[CompiledScore] = deque(maxlen=4)
"""Problems are made anew for every actor; one that equals an older one, of the same model, is not compiled again."""


def compiled_score(problem: Problem, state: State, actions: Tensor, noise: Tensor | None = None) -> Tensor:
    """Scores `[M]`, as `objective.score`.

    Scores that nobody differentiates stay eager: they are few, and every shape would compile anew.
    """
    if not actions.requires_grad:
        return score(problem, state, actions, noise)
    kept = next((compiled for compiled in _newest if compiled.problem == problem), None)
    if kept is None:
        kept = CompiledScore(problem)
        _newest.append(kept)
    return kept(state, actions, noise)


def use_cache() -> str:
    """The folder that compiled code is kept in: TORCHINDUCTOR_CACHE_DIR, or one of ours in the user's cache."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(home / "lightning_wm" / "inductor"))


def _modules(problem: Problem) -> list[nn.Module]:
    """The modules whose methods the problem is made of.

    A compiled backward pass computes the gradient of everything that could take one, wanted or not.
    """
    parts = (value for value in vars(problem).values() if isinstance(value, MethodType))
    return [part.__self__ for part in parts if isinstance(part.__self__, nn.Module)]
