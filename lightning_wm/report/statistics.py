"""What several runs on several tasks say together (arXiv:2108.13264): scores are one array of runs for each task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_wm.playing.results import paired

Scores = Sequence[NDArray[np.float64]]
"""A score of every training seed, `[seeds]`, for each task; tasks may have different numbers of seeds."""
RESAMPLES = 2000
DRAWS = 20_260_101
"""Seed of the resampling, so that the same runs have the same interval every time."""


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval; without one where some task has a single training seed."""

    value: float
    low: float | None = None
    high: float | None = None


def iqm(scores: Scores) -> float:
    """Interquartile mean over the runs of all tasks."""
    runs = np.sort(np.concatenate(list(scores)))  # scipy's trim_mean; here thousands of times for a bootstrap
    cut = len(runs) // 4
    return float(runs[cut : len(runs) - cut].mean())


def improvement(first: Scores, other: Scores) -> float:
    """Probability that a run of the first beats one of the other on the same task, ties half; mean over tasks."""
    chances = [
        float(np.mean((x[:, None] > y[None]) + 0.5 * (x[:, None] == y[None])))
        for x, y in zip(first, other, strict=True)
    ]
    return float(np.mean(chances))


def profile(scores: Scores, thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of runs whose score is above each threshold."""
    runs = np.concatenate(list(scores))
    return np.asarray((runs[None] > thresholds[:, None]).mean(1))


def stratified(of: Callable[..., float], *methods: Scores, resamples: int = RESAMPLES) -> Estimate:
    """A statistic with the percentile interval of a bootstrap over training seeds, within each task.

    Args:
        of: takes as many `Scores` as there are methods.
        methods: their scores.
        resamples: of the bootstrap.
    """
    value = of(*methods)
    if any(len(runs) < 2 for scores in methods for runs in scores):
        return Estimate(value)
    draw = np.random.default_rng(DRAWS)
    again = [
        of(*([runs[draw.integers(len(runs), size=len(runs))] for runs in scores] for scores in methods))
        for _ in range(resamples)
    ]
    low, high = np.percentile(again, (2.5, 97.5))
    return Estimate(value, float(low), float(high))


@dataclass(frozen=True)
class Difference:
    """Two planners on the same checkpoints and episode seeds."""

    mean: float
    low: float | None
    high: float | None
    verdict: str
    """`better`, `worse`, or `cannot tell` with the number of episodes that it would take."""


def difference(first: Sequence[float], other: Sequence[float]) -> Difference:
    """Student's paired difference of `other` to `first`, by episode."""
    (mean, low, high), count = paired(first, other), len(first)
    if low != low:
        return Difference(mean, None, None, "cannot tell from one episode")
    if low > 0 or high < 0:
        return Difference(mean, low, high, "better" if low > 0 else "worse")
    if mean == 0.0:
        return Difference(mean, low, high, "cannot tell" if low < high else "equal")
    needed = int(np.ceil(count * ((high - low) / 2 / abs(mean)) ** 2))
    return Difference(mean, low, high, f"cannot tell; about {max(needed - count, 1):,} more episodes would")
