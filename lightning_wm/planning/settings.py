"""The settings that planners share."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from lightning_wm.config.fields import Count, settings
from lightning_wm.planning.objective import Objective


@settings("planner")
class PlannerConfig:
    """What every planner that searches is told; a subclass adds its own fields and may change these defaults."""

    name: str = ""
    """The planner's name."""
    horizon: Count = 12
    """H: agent steps that are imagined (PlaNet's 12, arXiv:1811.04551 App. A)."""
    execute: Literal["best", "mean", "sample"] = "best"
    """`best` candidate, `mean` of the elites or `sample`, one of the elites."""
    replan: Count = 1
    """Decisions that a plan serves; 1 plans at every decision."""
    latents: Literal["mean", "sample"] = "mean"
    """`mean` imagines the prior's mode; `sample` its noise, drawn once per plan."""
    objective: Objective = field(default_factory=Objective)
    """What a plan is judged by."""

    def __post_init__(self) -> None:
        """Refuse plans that are too short, and more elites than candidates where there are both."""
        check_replan(self.horizon, self.replan)
        own = vars(self)
        elites, candidates = own.get("elites"), own.get("candidates")
        if elites is not None and candidates is not None and elites > candidates:
            raise ValueError(
                f"planner.elites={elites}: more elites than candidates={candidates}; expected at most that"
            )


def check_replan(horizon: int, replan: int) -> None:
    """Refuse a plan that is to serve more decisions than it has actions.

    Raises:
        ValueError: names both fields.
    """
    if replan > horizon:
        raise ValueError(f"planner.replan={replan}: more actions than planner.horizon={horizon} has")
