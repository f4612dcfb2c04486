"""The settings that planners share."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from lightning_wm.errors import UserError
from lightning_wm.planning.checks import check_choice, check_shared
from lightning_wm.planning.objective import Objective
from lightning_wm.planning.selection import EXECUTE
from lightning_wm.protocols import PlannerSettings

LATENTS = ("mean", "sample")


@dataclass(frozen=True)
class PlannerConfig:
    """What every planner that searches is told; a subclass adds its own fields and may change these defaults."""

    name: str = ""
    """The planner's name."""
    horizon: int = 12
    """H: agent steps that are imagined (PlaNet's 12, arXiv:1811.04551 App. A)."""
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
        check_choice("latents", self.latents, LATENTS)


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
        """`best`, `mean` or `sample`."""


def executing(settings: PlannerSettings, execute: str) -> PlannerSettings:
    """A planner's settings with another `execute`.

    Raises:
        UserError: the planner has no such choice, or refuses it.
    """
    if not isinstance(settings, Executing):
        raise UserError(f"rollout.execute={execute}: planner {settings.name} has no execute; type rollout.execute=null")
    try:
        return replace(settings, execute=execute)  # type: ignore[type-var]
    except ValueError as error:
        raise UserError(f"rollout.execute={execute}, which planner {settings.name} refuses: {error}") from error


def judged_alike(settings: Any, run: Any) -> Any:
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
