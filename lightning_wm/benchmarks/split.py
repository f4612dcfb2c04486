"""Where a planner's milliseconds go: imagining and scoring, the gradient, and the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import torch

from lightning_wm.planning.base import BasePlanner
from lightning_wm.planning.search import Search

P = ParamSpec("P")
R = TypeVar("R")


@dataclass
class Split:
    """Seconds since the measuring began."""

    inference: float = 0.0
    """Imagining and scoring, forwards."""
    optimisation: float = 0.0
    """The gradient with respect to the actions, backwards."""
    total: float = 0.0
    """Whole plans."""


@contextmanager
def measured() -> Iterator[Split]:
    """Measure every planner inside the block, compiled scoring included.

    All planners reach the model through `Search` and the gradient through `torch.autograd.grad`, so these are
    wrapped; planners themselves know nothing of it.
    """
    split = Split()
    wrapped: list[tuple[object, str, str]] = [
        (Search, "_evaluate", "inference"),
        (Search, "_under", "inference"),
        (Search, "unroll", "inference"),
        (Search, "imagine", "inference"),
        (torch.autograd, "grad", "optimisation"),
        (BasePlanner, "plan", "total"),
    ]
    before = [(owner, name, vars(owner)[name]) for owner, name, _ in wrapped]
    try:
        for owner, name, share in wrapped:
            setattr(owner, name, _timed(vars(owner)[name], split, share))
        yield split
    finally:
        for owner, name, original in before:
            setattr(owner, name, original)


def _timed(call: Callable[P, R], split: Split, share: str) -> Callable[P, R]:
    def timed(*args: P.args, **kwargs: P.kwargs) -> R:
        begin = time.perf_counter()
        try:
            return call(*args, **kwargs)
        finally:
            vars(split)[share] += time.perf_counter() - begin

    return timed
