"""Random shooting: draw plans uniformly, execute the best. The simplest planner there is."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from tensordict import TensorDictBase

from lightning_wm.planners import starts
from lightning_wm.planners.base import RANDOM, BasePlanner, Found
from lightning_wm.planners.checks import check_choice, check_shared
from lightning_wm.planners.choose import EXECUTE, choose
from lightning_wm.planners.objective import Objective
from lightning_wm.planners.search import Search
from lightning_wm.registry import register


@dataclass(frozen=True)
class RandomShootingConfig:
    """The best of uniformly drawn plans."""

    name: str = "random_shooting"
    """The planner's name."""
    horizon: int = 12
    """H: agent steps that are imagined."""
    candidates: int = 1000
    """N: action sequences that are drawn."""
    elites: int = 1
    """Best candidates that `execute: mean` averages and `sample` draws from."""
    execute: str = "best"
    """`best` candidate, `mean` of the elites or `sample`, one of the elites."""
    replan: int = 1
    """Decisions that a plan serves; 1 plans at every decision."""
    latents: str = "mean"
    """`mean` imagines the prior's mode; `sample` its noise, drawn once per plan."""
    objective: Objective = field(default_factory=Objective)
    """What a plan is judged by."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        check_shared(self)
        check_choice("execute", self.execute, EXECUTE)
        check_choice("latents", self.latents, ("mean", "sample"))


@register("planner", "random_shooting")
class RandomShooting(BasePlanner):
    """Random shooting; `RandomShootingConfig` has its settings."""

    Config = RandomShootingConfig
    config: RandomShootingConfig

    def search(self, search: Search, memory: TensorDictBase | None) -> Found:
        """Draw once, score once, choose."""
        c = self.config
        drawn = starts.uniform(c.candidates, c.horizon, search.problem.action, search.generators, search.like)
        score = search.score(drawn)
        origin = torch.full(score.shape, RANDOM, device=score.device)
        plan, plan_score = choose(search, drawn, score, c.execute, c.elites)
        return Found(drawn, score, origin, plan, plan_score, score.amax(1), {"actions": plan})
