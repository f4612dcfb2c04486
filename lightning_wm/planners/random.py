"""Uniform random actions: what every planner must beat, and what explores before there is a model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tensordict import TensorDictBase

from lightning_wm.planning import starts
from lightning_wm.planning.base import RANDOM, BasePlanner, SearchResult
from lightning_wm.planning.checks import check_shared
from lightning_wm.planning.search import Search
from lightning_wm.registry import register


@dataclass(frozen=True)
class RandomConfig:
    """Uniform random actions."""

    name: str = "random"
    """The planner's name."""
    horizon: int = 1
    """H: actions that are drawn at once."""
    replan: int = 1
    """Decisions that a draw serves."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        check_shared(self)


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
