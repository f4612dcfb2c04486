"""The cross-entropy method as PlaNet plans with it (arXiv:1811.04551, Alg. 2).

    a^j ~ N(mean, std^2), clamped;  K elites by score;  mean, std <- of the elites;  I times;  execute the mean
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from tensordict import TensorDictBase
from torch import Tensor

from lightning_wm.planners import starts
from lightning_wm.planners.base import RANDOM, BasePlanner, Found, pick, valid_rows
from lightning_wm.planners.checks import check_choice, check_positive, check_range, check_shared
from lightning_wm.planners.choose import EXECUTE, average, choose, safe
from lightning_wm.planners.objective import Objective
from lightning_wm.planners.search import Search
from lightning_wm.registry import register


@dataclass(frozen=True)
class CEMConfig:
    """The cross-entropy method."""

    name: str = "cem"
    """The planner's name."""
    horizon: int = 12
    """H: agent steps that are imagined (arXiv:1811.04551, App. A, as the next three)."""
    iterations: int = 10
    """Times that the distribution is fitted to the elites."""
    candidates: int = 1000
    """N: action sequences drawn in each iteration."""
    elites: int = 100
    """K: best candidates that the distribution is fitted to."""
    execute: str = "mean"
    """`mean` of the fitted distribution, `best` candidate seen, or `sample`, one of the last elites."""
    replan: int = 1
    """Decisions that a plan serves; 1 plans at every decision."""
    warm_start: bool = False
    """Start the mean from the previous plan, moved on in time; PlaNet does not."""
    latents: str = "mean"
    """`mean` imagines the prior's mode; `sample` its noise, drawn once per plan."""
    init_std: float = 1.0
    """Standard deviation of the first iteration."""
    min_std: float = 1e-6
    """The standard deviation's floor; PlaNet has none, this one only keeps numbers apart."""
    objective: Objective = field(default_factory=Objective)
    """What a plan is judged by."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        check_shared(self)
        check_choice("execute", self.execute, EXECUTE)
        check_choice("latents", self.latents, ("mean", "sample"))
        check_positive(self, "init_std")
        check_range(self, min_std=0)


@register("planner", "cem")
class CEM(BasePlanner):
    """CEM, Alg. 2 of arXiv:1811.04551; `CEMConfig` has its settings."""

    Config = CEMConfig
    config: CEMConfig

    def search(self, search: Search, memory: TensorDictBase | None) -> Found:
        """Draw, score, fit, again; the standard deviation is the population's, so one elite is no NaN."""
        c, shape = self.config, (search.environments, self.config.horizon, search.problem.action)
        mean, warm = valid_rows(memory, "actions", search.like.new_zeros(shape))  # E, H, A
        std = torch.full_like(mean, c.init_std)
        best, best_score = mean, mean.new_full(shape[:1], -torch.inf)
        first: Tensor | None = None
        for iteration in range(c.iterations):
            candidates = self.draw(search, mean, std)  # E, N, H, A
            if memory is not None and iteration == 0:  # the previous plan itself is one of the first
                candidates[:, 0] = torch.where(warm[:, None, None], mean, candidates[:, 0])
            score = search.score(candidates)
            top, index = score.topk(c.elites, dim=1)  # E, K
            elites = pick(candidates, index)
            mean, std = fit(elites, top, mean, std)
            std = std.clamp(min=c.min_std)
            better = top[:, 0] > best_score
            best = torch.where(better[:, None, None], elites[:, 0], best)
            best_score = torch.where(better, top[:, 0], best_score)
            first = top[:, 0] if first is None else first
        assert first is not None
        plan, plan_score = best, best_score
        if c.execute == "mean":
            plan, plan_score = safe(search, mean, best, best_score)
        elif c.execute == "sample":
            plan, plan_score = choose(search, candidates, score, "sample", c.elites)
        origin = torch.full(score.shape, RANDOM, device=score.device)
        return Found(candidates, score, origin, plan, plan_score, first, {"actions": mean})

    def draw(self, search: Search, mean: Tensor, std: Tensor) -> Tensor:
        """Candidates `[E, N, H, A]` around mean and std `[E, H, A]`, clamped to [-1, 1]."""
        c = self.config
        noise = starts.noise(c.candidates, c.horizon, search.problem.action, search.generators, search.like)
        return noise.mul_(std[:, None]).add_(mean[:, None]).clamp_(-1, 1)


def fit(elites: Tensor, score: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `[E, H, A]` of the elites `[E, K, H, A]`; unchanged where none is finite.

    Args:
        score: `[E, K]`; elites whose score is not finite do not count.
        mean, std: of the distribution that was drawn from.
    """
    counts = score.isfinite()  # E, K
    centre = average(elites, counts)
    spread = average((elites - centre[:, None]).square(), counts).sqrt()
    any_finite = counts.any(1)[:, None, None]
    return torch.where(any_finite, centre, mean), torch.where(any_finite, spread, std)
