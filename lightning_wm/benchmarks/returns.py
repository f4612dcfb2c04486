"""What a millisecond of each planner buys, on one trained model and the same episodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from rich.table import Table
from torchrl.envs import EnvBase

from lightning_wm.benchmarks.budget import Measure, knobs, plan_milliseconds, sizes, within
from lightning_wm.benchmarks.named import named
from lightning_wm.benchmarks.split import Split, measured
from lightning_wm.benchmarks.timing import clock_of
from lightning_wm.console.meter import Meter
from lightning_wm.planners.grad_mpc import GradMPCConfig
from lightning_wm.playing.latency import latency
from lightning_wm.playing.play import side_by_side
from lightning_wm.playing.results import Evaluation, decimal, interval, paired, written
from lightning_wm.protocols import Actor, PlannerSettings
from lightning_wm.registry import build
from lightning_wm.runs.loading import LoadedRun, planner_config
from lightning_wm.training.evaluation import evaluate_planner

Entry = tuple[str, PlannerSettings]
"""A planner as it was written, and its settings."""


@dataclass(frozen=True)
class Games:
    """Which episodes are played."""

    episodes: int
    seed: int
    """Of the first; the others follow it."""
    environments: int
    """Episodes that are played at once; 1 times a decision as a robot would see it."""


@dataclass(frozen=True)
class Played:
    """One planner's games."""

    label: str
    evaluation: Evaluation
    split_ms: dict[str, float]
    """Mean milliseconds per decision: inference, optimisation, rest."""
    sizes: str = "-"
    """Candidates x iterations."""
    budget_ms: float | None = None
    busy_ms: float = 0.0
    """Median of a decision of one environment alone, in the time that budgets are counted in."""
    value: float | None = None
    """Of what is swept."""

    @property
    def earned(self) -> float:
        """Mean reward of as many decisions as a plan has: what to hold the predicted score against; 0 without plans."""
        e = self.evaluation
        decisions = len(e.milliseconds) * int(e.settings.get("replan", 1))
        return float(np.sum(e.returns)) / decisions * int(e.settings["horizon"]) if decisions else 0.0

    def as_json(self, first: Evaluation) -> dict[str, Any]:
        """A row of the JSON file; differences are paired by episode seed."""
        mean, low, high = paired(first.returns, self.evaluation.returns)
        row = self.evaluation.as_json()
        return {
            "label": self.label,
            "budget_ms": self.budget_ms,
            "busy_ms": self.busy_ms,
            "value": self.value,
            **row,
            "difference": {"mean": mean, "interval95": [low, high]},
            "earned": self.earned,
            "split_ms": self.split_ms,
        }


def planner_of(loaded: LoadedRun, written: str) -> PlannerSettings:
    """Settings from `name` or `name:field=value:field=value`.

    Raises:
        UserError: no such planner or field, or a part that is no field=value.
    """
    name, fields = named("planners", written, "candidates=100")
    chosen: PlannerSettings = planner_config(loaded, name, fields)
    return chosen


def entries(loaded: LoadedRun, planners: Sequence[str]) -> list[Entry]:
    """Planners as they were written, with their settings."""
    return [(text, planner_of(loaded, text)) for text in planners]


def compare(
    loaded: LoadedRun,
    planners: Sequence[Entry],
    games: Games,
    budgets: Sequence[float] = (),
    plans: int = 3,
    meter: Meter | None = None,
) -> Iterator[Played]:
    """Play every planner as it is, or once per budget with settings scaled to it, one after the other.

    Args:
        budgets: milliseconds per decision; none, and planners that nothing can be scaled of, play as they are.
        plans: plans that are timed to find the settings of a budget.
        meter: shows how far they are.
    """
    actors = [_actor(loaded, config, games) for _, config in planners]  # all faults before the first game
    measure = plan_milliseconds(loaded.agent, plans)
    with closing(loaded.environments(side_by_side(games.environments, games.episodes))) as env:
        for (label, config), actor in zip(planners, actors, strict=True):
            if not (budgets and knobs(config)):
                yield _timed(_play(loaded, label, config, actor, env, games, meter), loaded, actor, env)
                continue
            known: dict[str, Played] = {}  # what was played for one budget is not played again for the next
            for budget in budgets:
                scaled = _fitted(loaded, config, budget, measure, env, games)
                key, shown, actor = repr(scaled), f"{label} in {budget:g} ms", _actor(loaded, scaled, games)
                if key not in known:
                    known[key] = _timed(_play(loaded, shown, scaled, actor, env, games, meter), loaded, actor, env)
                yield dataclasses.replace(known[key], label=label, budget_ms=budget)


def _actor(loaded: LoadedRun, config: PlannerSettings, games: Games) -> Actor:
    """What plays with a planner; refuses one that asks for what the run has not learned."""
    return loaded.agent.actor(build("planner", config), seed=games.seed)


def _timed(played: Played, loaded: LoadedRun, actor: Actor, env: EnvBase) -> Played:
    """With a decision alone timed, outside of what the parts of its games' decisions are counted in."""
    alone = latency(env, actor, played.evaluation.seed)
    evaluation = played.evaluation.model_copy(update={"latency_ms": alone})
    return dataclasses.replace(played, evaluation=evaluation, busy_ms=_busy(loaded, actor, env, played.evaluation.seed))


def _busy(loaded: LoadedRun, actor: Actor, env: EnvBase, seed: int) -> float:
    return latency(env, actor, seed, clock_of(loaded.agent.device)).median


def _fitted(
    loaded: LoadedRun, config: PlannerSettings, budget: float, measure: Measure, env: EnvBase, games: Games
) -> PlannerSettings:
    """Settings whose decisions fit from observation to action; that is more than the plan alone."""
    target = budget
    for _ in range(3):
        scaled = within(config, target, measure)
        taken = _busy(loaded, _actor(loaded, scaled, games), env, games.seed)
        if taken <= budget:
            break
        target *= 0.95 * budget / taken
    return scaled


def _play(
    loaded: LoadedRun,
    label: str,
    config: PlannerSettings,
    actor: Actor,
    env: EnvBase,
    games: Games,
    meter: Meter | None = None,
) -> Played:
    play = partial(
        evaluate_planner, loaded.config, actor, config, env, seed=games.seed, meter=meter, label=label, timed=False
    )
    if isinstance(config, GradMPCConfig) and config.compile:  # compiling is no part of a decision
        play(episodes=1, env_steps=loaded.env_steps)
    with measured() as split:
        evaluation = play(episodes=games.episodes, env_steps=loaded.env_steps)
    return Played(label, evaluation, _per_decision(split, evaluation), sizes(config))


def _per_decision(split: Split, evaluation: Evaluation) -> dict[str, float]:
    """Mean milliseconds: a decision's, shared as the plans' are, which also plan where no episode is played."""
    decision = float(np.mean(evaluation.milliseconds)) if evaluation.milliseconds else 0.0
    of_a_plan = decision / split.total if split.total else 0.0
    inference, optimisation = of_a_plan * split.inference, of_a_plan * split.optimisation
    return {"inference": inference, "optimisation": optimisation, "rest": decision - inference - optimisation}


def table(played: Sequence[Played]) -> Table:
    """One row per planner (and budget); differences to the first, paired by episode seed."""
    first = played[0].evaluation
    games = f"{len(first.returns)} episodes from seed {first.seed}"
    view = Table(title=f"{first.task}, {first.env_steps:,} env steps, {games}")
    view.caption = (
        "N x I: candidates and iterations; alone, busy: ms from observation to action of one environment, by the clock "
        f"and of the processor; ms, p95, model, gradient, rest: the planner's wall time for {first.environments} at "
        f"once, over {first.environments}"
    )
    for column in (
        "planner", "N x I", "budget", "value", "return", "95 % interval", "IQM", "lowest", "to the first", "predicted",
        "earned", "busy", "alone", "ms", "p95", "model", "gradient", "rest", "model steps", "calls",
    ):  # fmt: skip
        view.add_column(column, justify="left" if column == "planner" else "right")
    for planner in played:
        view.add_row(*_cells(planner, first))
    return view


def _cells(played: Played, first: Evaluation) -> list[str]:
    e, split = played.evaluation, played.split_ms
    return [
        played.label,
        played.sizes,
        _cell(played.budget_ms),
        _cell(played.value),
        decimal(e.mean),
        interval(*e.interval95),
        decimal(e.iqm),
        decimal(min(e.returns)),
        "-" if e is first else written(*paired(first.returns, e.returns)),
        f"{np.mean(e.scores):.1f}" if e.scores else "-",
        f"{played.earned:.1f}" if e.scores else "-",
        f"{played.busy_ms:.1f}",
        "-" if e.latency_ms is None else f"{e.latency_ms.median:.1f}",
        f"{e.ms_per_decision.median:.1f}",
        f"{e.ms_per_decision.p95:.1f}",
        *(f"{split[name]:.1f}" for name in ("inference", "optimisation", "rest")),
        f"{e.model_steps:,.0f}",
        f"{e.sequential_calls:,.0f}",
    ]


def _cell(number: float | None) -> str:
    return "-" if number is None else f"{number:g}"
