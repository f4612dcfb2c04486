"""How near planners come to the optimum of problems that are known, in one plan from nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from lightning_wm import rng
from lightning_wm.benchmarks.known_problems import Pendulum, Rosenbrock, linear_quadratic, returns
from lightning_wm.config.load import load
from lightning_wm.errors import UserError
from lightning_wm.planners.grad_mpc import GradMPC, GradMPCConfig
from lightning_wm.protocols import Planner, PlannerSettings, Problem, State
from lightning_wm.registry import build

HORIZON = 12


@dataclass(frozen=True)
class Known:
    """A problem, where its plans start, and the best plans from there."""

    problem: Problem
    state: State
    optimum: Tensor
    """`[E, H, A]`."""

    def share(self, actions: Tensor) -> Tensor:
        """How much of the way from zero actions to the optimum plans `[E, H, A]` go, `[E]`."""
        nothing, best, reached = (
            returns(self.problem, self.state, plans) for plans in (torch.zeros_like(actions), self.optimum, actions)
        )
        return (reached - nothing) / (best - nothing)


def linear(action: int) -> Known:
    """Linear-quadratic; planners that need a policy get one of half the best gain."""
    lq = linear_quadratic(action)
    policy = lq.endless(share=0.5).policy
    return Known(replace(lq.problem, policy=policy), lq.state, lq.optimum(HORIZON))


def searched(of: Rosenbrock | Pendulum) -> Known:
    """The optimum is the best of 256 starts that climb 200 steps."""
    config = GradMPCConfig(
        candidates=256, iterations=200, optimiser="lbfgs", bound="clip", init_std=1.0, execute="best", horizon=HORIZON
    )
    plan = GradMPC(config).plan(of.problem, of.state, None, _generators(of.state))
    return Known(of.problem, of.state, plan["actions"])


PROBLEMS: dict[str, Callable[[], Known]] = {
    **{f"linear-quadratic, {n} actions": lambda n=n: linear(n) for n in (1, 6, 30, 50, 100)},  # type: ignore[misc]
    "Rosenbrock": lambda: searched(Rosenbrock()),
    "pendulum": lambda: searched(Pendulum()),
}


def settings_of(written: str) -> PlannerSettings:
    """A planner's shipped settings, changed as in `name:field=value:field=value`.

    Raises:
        UserError: no such planner or field.
    """
    name, *fields = written.split(":")
    # Of a recipe that says nothing about planners.
    typed = [f"horizon={HORIZON}", *fields]
    arguments = ["recipe=dense/cartpole_swingup", f"planner={name}", *(f"planner.{part}" for part in typed)]
    settings: PlannerSettings = load(arguments).config.planner
    return settings


def rows(planners: Sequence[str], problems: Sequence[str] = tuple(PROBLEMS)) -> list[dict[str, Any]]:
    """A row per problem and planner: the worst start's share of the gap, and model steps in plans."""
    built = {written: build("planner", settings_of(written)) for written in planners}  # all faults first
    measured = []
    for name in problems:
        known = PROBLEMS[name]()
        measured += [{"problem": name, "planner": text, **_plan(planner, known)} for text, planner in built.items()]
    return measured


def _plan(planner: Planner, known: Known) -> dict[str, Any]:
    try:
        plan = planner.plan(known.problem, known.state, None, _generators(known.state))
    except UserError as error:  # it needs a policy, and there is none
        return {"share": None, "scorings": None, "why": str(error)}
    actions = plan["actions"]
    if actions.shape[1] != HORIZON:
        raise UserError(f"planner.horizon={actions.shape[1]}: the problems have {HORIZON} steps; leave horizon out")
    return {
        "share": known.share(actions).min().item(),
        "scorings": int(plan["stats", "model_steps"][0]) // HORIZON,
    }


def _generators(state: State) -> list[torch.Generator]:
    return [rng.generator(0, "planner", episode) for episode in range(len(state["x"]))]


def table(measured: Sequence[dict[str, Any]]) -> Table:
    """Problems down, planners across: share (scorings)."""
    planners = list(dict.fromkeys(row["planner"] for row in measured))
    shown = Table("problem", *planners)
    for name in dict.fromkeys(row["problem"] for row in measured):
        cells = {row["planner"]: row for row in measured if row["problem"] == name}
        shown.add_row(name, *(_cell(cells[planner]) for planner in planners))
    return shown


def _cell(row: dict[str, Any]) -> str:
    return "-" if row["share"] is None else f"{row['share']:.2f} ({row['scorings']:,})"
