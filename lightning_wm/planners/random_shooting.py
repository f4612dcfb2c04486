"""Random shooting: draw plans uniformly, zero actions among them, execute the best. The simplest planner there is."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase

from lightning_wm.config.fields import Count, settings
from lightning_wm.planning import starts
from lightning_wm.planning.base import RANDOM, BasePlanner, SearchResult
from lightning_wm.planning.gaussian import with_zero
from lightning_wm.planning.search import Search
from lightning_wm.planning.selection import choose
from lightning_wm.planning.settings import PlannerConfig
from lightning_wm.registry import register


@settings("planner")
class RandomShootingConfig(PlannerConfig):
    """The best of uniformly drawn plans."""

    name: str = "random_shooting"
    candidates: Count = 1000
    """N: action sequences that are drawn."""
    elites: Count = 1
    """Best candidates that `execute: mean` averages and `sample` draws from."""


@register("planner", "random_shooting")
class RandomShooting(BasePlanner):
    """Random shooting; `RandomShootingConfig` has its settings."""

    Config = RandomShootingConfig
    config: RandomShootingConfig

    def search(self, search: Search, memory: TensorDictBase | None) -> SearchResult:
        """Draw once, score once, choose."""
        c = self.config
        drawn = starts.uniform(c.candidates, c.horizon, search.problem.action, search.generators, search.like)
        drawn, origin = with_zero(drawn, torch.full(drawn.shape[:2], RANDOM, device=drawn.device), slot=-1)
        score = search.score(drawn)
        plan, plan_score = choose(search, drawn, score, c.execute, c.elites)
        return SearchResult(drawn, score, origin, plan, plan_score, score.amax(1), {"actions": plan})
