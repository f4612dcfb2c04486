"""What a row of `evaluations.csv` and of `curves.csv` is, and how a run's files become rows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from lightning_wm.config.store import flatten

Kind = Literal["evaluation", "rollout"]
RETURNS: Mapping[str, Kind] = {"evaluation/return": "evaluation", "rollout/return": "rollout"}
"""Keys of `metrics.jsonl` that a curve is made of."""
POINTS = 100
"""Rollouts of a run that `curves.csv` keeps at most."""
_PHYSICS = "perturb."


@dataclass(frozen=True)
class Run:
    """Which training run a row is of."""

    recipe: str
    task: str
    observation: str
    agent: str
    action_repeat: int
    run_seed: int
    settings: str = "{}"
    """JSON: what the command line changed of the recipe."""
    revision: str = ""
    """Of git, short; empty where it is not known."""


@dataclass(frozen=True)
class EvaluationRow:
    """One planner on one checkpoint of one run, over episodes with consecutive seeds."""

    recipe: str
    task: str
    observation: str
    action_repeat: int
    agent: str
    planner: str
    run_seed: int
    env_steps: int
    checkpoint: str
    seed: int
    """Of the first episode."""
    episodes: int
    environments: int
    """Episodes that were played at once; milliseconds depend on it."""
    mean: float
    std: float
    iqm: float
    low: float | None
    """Of the 95 % interval of the mean over episodes; None for a single episode."""
    high: float | None
    lowest: float
    predicted: float | None
    """Mean score of the executed plans under the model; None where nothing was planned."""
    model_steps: float
    sequential_calls: float
    fallbacks: int
    ms_per_decision: float
    """Median."""
    ms_p95: float
    settings: str
    """JSON: the planner's, see `compact`."""
    run_settings: str
    """JSON: what the command line changed of the recipe."""
    revision: str
    """Of the code that trained the run."""
    returns: tuple[float, ...]

    @property
    def run(self) -> tuple[str | int, ...]:
        """The training run that it is of, whatever code trained it."""
        return (self.recipe, self.task, self.observation, self.agent, self.run_settings, self.run_seed)

    @property
    def trained(self) -> tuple[str | int, ...]:
        """The same, wherever it was judged: without what an evaluation changed of the physics."""
        changed = json.loads(self.run_settings)
        plain = {key: value for key, value in changed.items() if not key.startswith(_PHYSICS)}
        return replace(self, run_settings=_text(plain)).run

    @property
    def key(self) -> tuple[str | int, ...]:
        """Rows with equal keys are of the same evaluation: the newer replaces the older."""
        judged = (self.env_steps, self.checkpoint, self.planner, self.settings, self.seed, self.episodes)
        return (*self.run, *judged)


@dataclass(frozen=True)
class CurveRow:
    """One point of a run's learning curve."""

    recipe: str
    task: str
    observation: str
    agent: str
    run_seed: int
    kind: str
    """`evaluation`: the mean return of an evaluation without noise; `rollout`: of collected episodes, with noise."""
    env_steps: int
    updates: int
    value: float
    settings: str
    """JSON: what the command line changed of the recipe."""

    @property
    def run(self) -> tuple[str | int, ...]:
        """The training run that it is of."""
        return (self.recipe, self.task, self.observation, self.agent, self.settings, self.run_seed)

    @property
    def key(self) -> tuple[str | int, ...]:
        """Orders the points of all curves."""
        return (*self.run, self.kind, self.env_steps, self.updates)


def _text(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True, separators=(",", ":"))


def compact(settings: Mapping[str, Any]) -> str:
    """Settings as one short JSON text: sorted dotted keys, without the name and what is off (false, 0, empty).

    The defaults are written out: a row must not change its meaning when a default does. A setting that the planner
    got later, and that is off unless it is set, leaves old rows as they are.
    """
    kept = {key: value for key, value in flatten(settings) if key != "name" and (value is None or bool(value))}
    return _text(kept)


def evaluation_row(content: Mapping[str, Any], run: Run) -> EvaluationRow:
    """The row of `evaluations/NAME.json`.

    Args:
        content: the file's, as `runs.evaluation_file.read_evaluation` returns it.
        run: of the directory that the file lies in.
    """
    cost = content["ms_per_decision"]
    low, high = content["interval95"]
    return EvaluationRow(
        recipe=run.recipe,
        task=content["task"],
        observation=content["observation"],
        action_repeat=run.action_repeat,
        agent=content["agent"],
        planner=content["planner"],
        run_seed=content["run_seed"],
        env_steps=content["env_steps"],
        checkpoint=content["checkpoint"],
        seed=content["seed"],
        episodes=len(content["returns"]),
        environments=content["environments"],
        mean=float(content["mean"]),
        std=float(content["std"]),
        iqm=float(content["iqm"]),
        low=low,
        high=high,
        lowest=float(min(content["returns"])),
        predicted=content["predicted_score"],
        model_steps=float(content["model_steps"]),
        sequential_calls=float(content.get("sequential_calls", 0.0)),
        fallbacks=int(content.get("fallbacks", 0)),
        ms_per_decision=float(cost["median"]),
        ms_p95=float(cost["p95"]),
        settings=compact(content["settings"]),
        run_settings=_with_physics(run.settings, content.get("perturb", {})),
        revision=run.revision,
        returns=tuple(map(float, content["returns"])),
    )


def _with_physics(settings: str, factors: Mapping[str, float]) -> str:
    """A run's settings and what an evaluation changed of its physics, which so stays out of the tables of recipes."""
    if not factors:
        return settings
    return _text({**json.loads(settings), **{_PHYSICS + name: factor for name, factor in factors.items()}})


def curve_rows(lines: Iterable[Mapping[str, Any]], run: Run) -> list[CurveRow]:
    """The rows of `metrics.jsonl`: every evaluation, and at most `POINTS` rollouts, evenly spaced.

    Args:
        lines: its lines; values that are null or not finite are left out.
        run: of the directory that the file lies in.
    """
    rows: dict[Kind, list[CurveRow]] = {"evaluation": [], "rollout": []}
    about = (run.recipe, run.task, run.observation, run.agent, run.run_seed)
    for line in lines:
        for name, kind in RETURNS.items():
            value = line.get(name)
            if isinstance(value, int | float) and math.isfinite(value):
                point = (int(line["env_steps"]), int(line["updates"]), float(value))
                rows[kind].append(CurveRow(*about, kind, *point, run.settings))
    return rows["evaluation"] + thinned(rows["rollout"])


def thinned(rows: Sequence[CurveRow], most: int = POINTS) -> list[CurveRow]:
    """At most `most` of the rows, evenly spaced by position, the first and the last among them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(place * (len(rows) - 1) / (most - 1))] for place in range(most)]
