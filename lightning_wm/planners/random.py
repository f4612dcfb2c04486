"""Uniform random actions: what every planner must beat, and what explores before there is a model."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase

from lightning_wm.config.fields import Count, settings
from lightning_wm.planning import starts
from lightning_wm.planning.base import RANDOM, BasePlanner, SearchResult
from lightning_wm.planning.search import Search
from lightning_wm.planning.settings import check_replan
from lightning_wm.registry import register


@settings("planner")
class RandomConfig:
    """Uniform random actions."""

    name: str = "random"
    """The planner's name."""
    horizon: Count = 1
    """H: actions that are drawn at once."""
    replan: Count = 1
    """Decisions that a draw serves."""

    def __post_init__(self) -> None:
        """Refuse plans that are too short."""
        check_replan(self.horizon, self.replan)


@register("planner", "random")
class Random(BasePlanner):
    """Actions drawn uniformly from [-1, 1]; the model is never called and scores are 0."""

    Config = RandomConfig
    config: RandomConfig

    def search(self, search: Search, memory: TensorDictBase | None) -> SearchResult:
        """Draw one sequence per environment."""
        drawn = starts.uniform(1, self.config.horizon, search.problem.action, search.generators, search.like)
        score = drawn.new_zeros(search.environments, 1)
        origin = torch.full(score.shape, RANDOM, device=score.device)
        return SearchResult(drawn, score, origin, drawn[:, 0], score[:, 0], score[:, 0], {"actions": drawn[:, 0]})
