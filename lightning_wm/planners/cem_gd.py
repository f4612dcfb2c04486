"""CEM-GD: a short cross-entropy search, then gradient steps on its best candidates (arXiv:2112.07746).

Deviation: all of the gradient steps come after the search, on several candidates side by side; the paper alternates
them on a large first search and one candidate later.
"""

from __future__ import annotations

from typing import Literal

import torch
from tensordict import TensorDictBase

from lightning_wm.config.fields import Count, Positive, settings
from lightning_wm.planning.ascent import Ascent, ascend
from lightning_wm.planning.base import FITTED, RANDOM, BasePlanner, SearchResult
from lightning_wm.planning.gaussian import SamplerConfig, cross_entropy
from lightning_wm.planning.search import Search
from lightning_wm.planning.selection import choose, pick
from lightning_wm.registry import register


@settings("planner")
class CEMGDConfig(SamplerConfig):
    """A short cross-entropy search whose best candidates then climb the gradient."""

    name: str = "cem_gd"
    iterations: Count = 3
    candidates: Count = 100
    elites: Count = 10
    climbers: Count = 4
    """Candidates that climb: the fitted mean and the best of the last iteration."""
    steps: Count = 5
    """Gradient steps."""
    execute: Literal["best", "mean", "sample"] = "best"
    """`best` climber, `mean` of the climbers or `sample`, one of them."""
    step_size: Positive = 0.1
    """Of the first gradient step (Adam)."""
    decay: Positive = 1.0
    """The last step's size as a share of the first's."""
    bound: Literal["tanh", "clip"] = "tanh"
    """How actions stay in [-1, 1] while they climb: `tanh` or `clip` (projection)."""


@register("planner", "cem_gd")
class CEMGD(BasePlanner):
    """CEM with gradient steps, arXiv:2112.07746; `CEMGDConfig` has its settings."""

    Config = CEMGDConfig
    config: CEMGDConfig
    differentiates = True

    def search(self, search: Search, memory: TensorDictBase | None) -> SearchResult:
        """Fit, take the mean and the best, climb, choose; the search's best plan is kept if none climbs above it."""
        c = self.config
        fitted = cross_entropy(search, memory, c)
        number = max(2, min(c.climbers, c.candidates))
        # The best of the last iteration is the best of all, or worse than that.
        others = pick(fitted.candidates, fitted.score.topk(number - 1, dim=1).indices[:, 1:])
        climbers = torch.cat([fitted.mean[:, None], fitted.best[:, None], others], 1)
        origin = torch.full(climbers.shape[:2], RANDOM, device=climbers.device)
        origin[:, 0] = FITTED
        how = Ascent(c.steps, c.step_size, c.decay, bound=c.bound)
        climbers, score, _ = ascend(search, climbers, how)
        better = fitted.best_score > score[:, 1]  # tanh's edge may have moved the best plan a little
        climbers[:, 1] = torch.where(better[:, None, None], fitted.best, climbers[:, 1])
        score[:, 1] = torch.where(better, fitted.best_score, score[:, 1])
        plan, plan_score = choose(search, climbers, score, c.execute, climbers.shape[1])
        return SearchResult(climbers, score, origin, plan, plan_score, fitted.first, {"actions": plan})
