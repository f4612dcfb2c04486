"""Search with a Gaussian over plans: draw around its mean, fit mean and standard deviation to the elites, again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from tensordict import TensorDictBase
from torch import Tensor

from lightning_wm.config.fields import Count, Positive, Weight, settings
from lightning_wm.planning import starts
from lightning_wm.planning.base import PREVIOUS, RANDOM, ZERO, SearchResult
from lightning_wm.planning.search import Search
from lightning_wm.planning.selection import average, choose, pick, safe
from lightning_wm.planning.settings import PlannerConfig

Draw = Callable[[Tensor, Tensor, int, Tensor | None], tuple[Tensor, Tensor]]
"""From mean, std `[E, H, A]`, the iteration and the last one's elites `[E, K, H, A]` (None in the first): candidates
`[E, N, H, A]` and their origins `[E, N]`."""
Settle = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""From the fitted mean and std and those that were drawn from: mean and std of the next iteration, all `[E, H, A]`."""


@settings("planner")
class SamplerConfig(PlannerConfig):
    """A planner that draws plans from a Gaussian and fits it to the best of them; the defaults are PlaNet's."""

    iterations: Count = 10
    """Times that the distribution is fitted to the elites."""
    candidates: Count = 1000
    """N: action sequences drawn in each iteration."""
    elites: Count = 100
    """K: best candidates that the distribution is fitted to."""
    execute: Literal["best", "mean", "sample"] = "best"
    """`best` candidate seen, `mean` of the fitted distribution, or `sample`, one of the last elites."""
    warm_start: bool = True
    """Start the mean from the previous plan, moved on in time."""
    zero: bool = True
    """One candidate of zero actions: where every sample is worse than doing nothing (many action dimensions), the
    search still knows what nothing is worth."""
    init_std: Positive = 0.5
    """Standard deviation of the first iteration."""
    min_std: Weight = 1e-6
    """The standard deviation's floor."""


@dataclass(frozen=True)
class Fitted:
    """A Gaussian over plans, and what was seen while it was fitted."""

    mean: Tensor
    """`[E, H, A]`."""
    candidates: Tensor
    """Of the last iteration, `[E, N, H, A]`."""
    score: Tensor
    """Of the last iteration, `[E, N]`."""
    origin: Tensor
    """Of the last iteration, `[E, N]`."""
    elites: Tensor
    """Of the last iteration, the best first, `[E, K, H, A]`."""
    elite_score: Tensor
    """`[E, K]`."""
    best: Tensor
    """The best plan of all iterations, `[E, H, A]`."""
    best_score: Tensor
    """`[E]`."""
    first: Tensor
    """The best score of the first iteration, `[E]`."""

    def result(self, search: Search, execute: str, **memory: Tensor) -> SearchResult:
        """What a search ends with that executes `mean`, `best` of all, or `sample`, one of the last elites.

        Args:
            memory: what is remembered beside the mean.
        """
        plan = self.best, self.best_score
        if execute == "mean":
            plan = safe(search, self.mean[:, None], *plan)
        elif execute == "sample":
            plan = choose(search, self.candidates, self.score, "sample", self.elites.shape[1])
        return SearchResult(
            self.candidates, self.score, self.origin, *plan, self.first, {"actions": self.mean, **memory}
        )


def refine(
    search: Search,
    mean: Tensor,
    std: Tensor,
    iterations: int,
    elites: int,
    draw: Draw,
    settle: Settle,
    weigh: Callable[[Tensor], Tensor] = torch.isfinite,
) -> Fitted:
    """Alg. 2 of arXiv:1811.04551, batched over environments; what samplers do differently is passed in.

    Args:
        mean, std: of the first iteration, `[E, H, A]`.
        elites: K, at most the candidates of an iteration.
        weigh: weights `[E, K]` of the elites from their scores `[E, K]`; finite ones count alike by default.
    """
    best, best_score = mean, mean.new_full(mean.shape[:1], -torch.inf)
    first, chosen = best_score, None
    for iteration in range(iterations):
        candidates, origin = draw(mean, std, iteration, chosen)
        score = search.score(candidates)
        top, index = score.topk(min(elites, score.shape[1]), dim=1)
        chosen = pick(candidates, index)
        mean, std = settle(*fit(chosen, weigh(top), mean, std), mean, std)
        better = top[:, 0] > best_score
        best = torch.where(better[:, None, None], chosen[:, 0], best)
        best_score = torch.where(better, top[:, 0], best_score)
        first = top[:, 0] if iteration == 0 else first
    assert chosen is not None
    return Fitted(mean, candidates, score, origin, chosen, top, best, best_score, first)


def cross_entropy(search: Search, memory: TensorDictBase | None, c: SamplerConfig) -> Fitted:
    """CEM: white noise, all elites count alike; the previous plan is the first mean and among its candidates."""
    mean, std, warm = begin(search, memory, c.init_std)

    def draw(mean: Tensor, std: Tensor, iteration: int, _: Tensor | None) -> tuple[Tensor, Tensor]:
        drawn, origin = around(search, mean, std, c.candidates)
        if c.zero:
            drawn, origin = with_zero(drawn, origin, slot=c.candidates // 2)
        return starts.put(drawn, origin, 0, mean, warm & (iteration == 0), PREVIOUS)

    def settle(mean: Tensor, std: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
        return mean, std.clamp(min=c.min_std)

    return refine(search, mean, std, c.iterations, c.elites, draw, settle)


def begin(search: Search, memory: TensorDictBase | None, init_std: float) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and standard deviation `[E, H, A]` of the first iteration, and whether the mean is remembered `[E]`."""
    zeros = search.like.new_zeros(search.environments, search.horizon, search.problem.action)
    mean, warm = starts.valid_rows(memory, "actions", zeros)
    return mean, torch.full_like(mean, init_std), warm


def around(search: Search, mean: Tensor, std: Tensor, number: int, colour: float = 0.0) -> tuple[Tensor, Tensor]:
    """Candidates `[E, N, H, A]` drawn around a mean, clamped to [-1, 1], and their origins `[E, N]`."""
    noise = starts.noise(number, search.horizon, search.problem.action, search.generators, search.like, colour)
    candidates = noise.mul_(std[:, None]).add_(mean[:, None]).clamp_(-1, 1)
    return candidates, torch.full(candidates.shape[:2], RANDOM, device=mean.device)


def with_zero(candidates: Tensor, origin: Tensor, slot: int) -> tuple[Tensor, Tensor]:
    """Candidates `[E, N, H, A]` with zero actions in a slot, and their origins; a single candidate stays."""
    if candidates.shape[1] == 1:
        return candidates, origin
    everywhere = torch.ones_like(origin[:, 0], dtype=torch.bool)
    return starts.put(candidates, origin, slot, torch.zeros_like(candidates[:, 0]), everywhere, ZERO)


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
