"""Rows gathered as a page compares them: methods on tasks at a budget, over training seeds."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lightning_wm.report.rows import CurveRow, EvaluationRow
from lightning_wm.report.tables import Series, joined, labels

LARGEST = 1000.0
"""Return of a perfect episode of dm_control's suite, which scores are normalised by."""


@dataclass(frozen=True)
class Panel:
    """A task as it was seen, at one budget."""

    task: str
    observation: str
    env_steps: int

    def __str__(self) -> str:
        return f"{self.task.removeprefix('dmc/')}, {self.observation}, {self.env_steps:,} env steps"


@dataclass(frozen=True)
class Method:
    """An agent, what was changed of its recipe, and a planner, on one panel."""

    name: str
    panel: Panel
    series: tuple[Series, ...]
    """One for each training seed."""

    @property
    def scores(self) -> NDArray[np.float64]:
        """Mean return of each training seed."""
        return np.array([series.mean for series in self.series])

    @property
    def milliseconds(self) -> float:
        """Of a decision; mean of the training seeds' medians."""
        return float(np.mean([series.row.ms_per_decision for series in self.series]))


def arm(agent: str, settings: str, whole: bool = False) -> str:
    """An agent with what was changed of its recipe, by `whole` keys or their last words: `dreamer, noise=0.1`."""
    changed = {key: value for key, value in json.loads(settings).items() if key != "agent"}
    words = [f"{key if whole else key.rpartition('.')[2]}={value}" for key, value in sorted(changed.items())]
    return ", ".join([agent, *words])


def arms(of: Sequence[tuple[str, str]]) -> list[str]:
    """A name for each agent with its settings, by whole keys where last words would give two of them the same."""
    named: dict[str, set[str]] = {}
    for agent, settings in of:
        named.setdefault(arm(agent, settings), set()).add(settings)
    return [arm(agent, settings, whole=len(named[arm(agent, settings)]) > 1) for agent, settings in of]


def prefixes(arms: Sequence[Hashable], recipes: Sequence[str]) -> list[str]:
    """Before each arm its recipe, where several recipes have the same arm; else nothing."""
    of: dict[Hashable, set[str]] = {}
    for its, recipe in zip(arms, recipes, strict=True):
        of.setdefault(its, set()).add(recipe)
    return [f"{recipe} " if len(of[its]) > 1 else "" for its, recipe in zip(arms, recipes, strict=True)]


def methods(rows: Iterable[EvaluationRow]) -> list[Method]:
    """Every method of every panel, panels in the order of their tasks, on the last checkpoint."""
    series = joined(row for row in rows if row.checkpoint == "last")
    names = labels([replace(each.row, run_settings="{}") for each in series])
    rows = [each.row for each in series]
    changed = arms([(row.agent, row.run_settings) for row in rows])
    ours = [(Panel(r.task, r.observation, r.env_steps), its) for r, its in zip(rows, changed, strict=True)]
    recipes = prefixes(ours, [row.recipe for row in rows])
    groups: dict[tuple[Panel, str], dict[int, Series]] = {}
    for each, name, (panel, its), recipe in zip(series, names, ours, recipes, strict=True):
        seeds = groups.setdefault((panel, f"{recipe}{its}: {name}"), {})
        kept = seeds.get(each.row.run_seed)
        if kept is None or len(each.returns) > len(kept.returns):
            seeds[each.row.run_seed] = each
    found = [
        Method(name, panel, tuple(seeds[seed] for seed in sorted(seeds))) for (panel, name), seeds in groups.items()
    ]
    return sorted(found, key=lambda method: (str(method.panel), -float(method.scores.mean())))


def panels(found: Iterable[Method]) -> list[Panel]:
    """Each once."""
    return list(dict.fromkeys(method.panel for method in found))


def shared(found: Sequence[Method]) -> dict[str, list[NDArray[np.float64]]]:
    """Normalised scores by method, for the methods that all panels of the largest budget have."""
    budget = max((method.panel.env_steps for method in found), default=0)
    at = [method for method in found if method.panel.env_steps == budget]
    everywhere = panels(at)
    by_name: dict[str, dict[Panel, NDArray[np.float64]]] = {}
    for method in at:
        by_name.setdefault(method.name, {})[method.panel] = method.scores / LARGEST
    return {
        name: [scores[panel] for panel in everywhere]
        for name, scores in by_name.items()
        if set(scores) == set(everywhere)
    }


@dataclass(frozen=True)
class Curve:
    """Learning curves of one arm on one task."""

    name: str
    runs: tuple[tuple[CurveRow, ...], ...]
    """Points of each training seed, in the order of env steps."""


def curves(rows: Iterable[CurveRow], task: str, observation: str) -> list[Curve]:
    """A task's learning curves: evaluations where a run has three of them, collected episodes otherwise."""
    found: dict[str, list[tuple[CurveRow, ...]]] = {}
    runs: dict[tuple[str | int, ...], list[CurveRow]] = {}
    for row in rows:
        if (row.task, row.observation) == (task, observation):
            runs.setdefault(row.run, []).append(row)
    names = arms([(points[0].agent, points[0].settings) for points in runs.values()])
    recipes = prefixes(names, [points[0].recipe for points in runs.values()])
    for points, name, recipe in zip(runs.values(), names, recipes, strict=True):
        judged = [point for point in points if point.kind == "evaluation"]
        chosen = judged if len(judged) >= 3 else [point for point in points if point.kind == "rollout"]
        chosen.sort(key=lambda point: point.env_steps)
        found.setdefault(recipe + name, []).append(tuple(chosen))
    return [Curve(name, tuple(each)) for name, each in sorted(found.items())]
