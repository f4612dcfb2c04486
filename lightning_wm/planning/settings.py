"""The settings that planners share."""

from __future__ import annotations

from dataclasses import field, replace
from typing import Literal, Protocol, TypeVar, runtime_checkable

from lightning_wm.config.fields import Count, settings
from lightning_wm.errors import UserError
from lightning_wm.planning.objective import Objective
from lightning_wm.protocols import PlannerSettings

T = TypeVar("T")


@settings("planner")
class PlannerConfig:
    """What every planner that searches is told; a subclass adds its own fields and may change these defaults."""

    name: str = ""
    """The planner's name."""
    horizon: Count = 12
    """H: agent steps that are imagined (PlaNet's 12, arXiv:1811.04551 App. A)."""
    execute: Literal["best", "mean", "basin", "vote", "sample"] = "best"
    """`best` candidate, `mean` of the elites, `basin`, the mean of those on the best one's peak, `vote`, of those on
    the peak that most are on where the model cannot tell them apart, or `sample`, one of the elites."""
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
        if self.execute == "basin" and 1 in (elites, candidates):
            single = "a single candidate" if candidates == 1 else "planner.elites=1, a single candidate,"
            raise ValueError(f"planner.execute=basin: {single} has no neighbours; type planner.execute=best")
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


@runtime_checkable
class WarmStarted(Protocol):
    """Settings of a planner that can start from its previous plan."""

    @property
    def warm_start(self) -> bool:
        """Whether it does."""


@runtime_checkable
class Executing(Protocol):
    """Settings of a planner that can be told what it executes of what it has searched."""

    @property
    def execute(self) -> str:
        """What its planner knows: `best`, `mean`, `sample`, of some also `basin` or `vote`."""


def executing(settings: PlannerSettings, execute: str) -> PlannerSettings:
    """A planner's settings with another `execute`.

    Raises:
        UserError: the planner has no such choice, or refuses it.
    """
    if not isinstance(settings, Executing):
        raise UserError(f"rollout.execute={execute}: planner {settings.name} has no execute; type rollout.execute=null")
    try:
        return replace(settings, execute=execute)
    except ValueError as error:
        raise UserError(f"rollout.execute={execute}, which planner {settings.name} refuses: {error}") from error


def judged_alike(settings: T, run: object) -> T:
    """A planner's settings on the run of another planner: the end of an episode counts for both or for neither.

    Args:
        settings: of the planner; what its objective says of `continues` stays.
        run: settings of the run's own planner.
    """
    if not (isinstance(settings, PlannerConfig) and isinstance(run, PlannerConfig)):
        return settings
    if settings.objective.continues is not None:
        return settings
    return replace(settings, objective=replace(settings.objective, continues=run.objective.continues))
