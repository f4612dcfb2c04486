"""Cross-entropy search: draw around a mean, fit mean and standard deviation to the elites, again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_wm.planning import starts
from lightning_wm.planning.search import Search
from lightning_wm.planning.selection import average, pick


@dataclass
class Fitted:
    """A Gaussian over plans, and what was seen while it was fitted."""

    mean: Tensor
    """`[E, H, A]`."""
    std: Tensor
    """`[E, H, A]`."""
    candidates: Tensor
    """Of the last iteration, `[E, N, H, A]`."""
    score: Tensor
    """Of the last iteration, `[E, N]`."""
    best: Tensor
    """The best plan of all iterations, `[E, H, A]`."""
    best_score: Tensor
    """`[E]`."""
    first: Tensor
    """The best score of the first iteration, `[E]`."""


def cross_entropy(
    search: Search,
    mean: Tensor,
    std: Tensor,
    iterations: int,
    candidates: int,
    elites: int,
    min_std: float,
    warm: Tensor | None = None,
) -> Fitted:
    """Alg. 2 of arXiv:1811.04551, batched over environments.

    Args:
        mean, std: of the first iteration, `[E, H, A]`.
        warm: `[E]`; rows whose mean is the previous plan, which is then one of the first candidates.
    """
    shape = search.horizon, search.problem.action
    best, best_score = mean, mean.new_full(mean.shape[:1], -torch.inf)
    first = best_score
    for iteration in range(iterations):
        drawn = starts.noise(candidates, *shape, search.generators, search.like)
        drawn = drawn.mul_(std[:, None]).add_(mean[:, None]).clamp_(-1, 1)  # E, N, H, A
        if warm is not None and iteration == 0:
            drawn[:, 0] = torch.where(warm[:, None, None], mean, drawn[:, 0])
        score = search.score(drawn)
        top, index = score.topk(elites, dim=1)  # E, K
        chosen = pick(drawn, index)  # E, K, H, A
        mean, std = fit(chosen, top.isfinite(), mean, std)
        std = std.clamp(min=min_std)
        best, best_score = keep(best, best_score, chosen[:, 0], top[:, 0])
        first = top[:, 0] if iteration == 0 else first
    return Fitted(mean, std, drawn, score, best, best_score, first)


def fit(elites: Tensor, weights: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean and standard deviation `[E, H, A]` of elites `[E, K, H, A]`.

    The standard deviation is the population's: one elite gives 0, not NaN.

    Args:
        weights: `[E, K]`; where all are 0 (no elite is finite) mean and std stay.
        mean, std: of the distribution that was drawn from, `[E, H, A]`.
    """
    centre = average(elites, weights)
    spread = average((elites - centre[:, None]).square_(), weights).sqrt_()
    usable = (weights > 0).any(1)[:, None, None]
    return torch.where(usable, centre, mean), torch.where(usable, spread, std)


def keep(best: Tensor, best_score: Tensor, plan: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
    """The better of two plans `[E, H, A]` with scores `[E]`, row by row."""
    better = score > best_score
    return torch.where(better[:, None, None], plan, best), torch.where(better, score, best_score)
