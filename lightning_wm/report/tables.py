"""Rows gathered into what a table shows: which rows, joined over episode seeds, with short labels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from lightning_wm.report.rows import CurveRow, EvaluationRow
from lightning_wm.runs.evaluation_file import student


def select(rows: Iterable[EvaluationRow], where: Mapping[str, str]) -> list[EvaluationRow]:
    """The rows whose columns, or settings, have the given texts.

    Several are separated by commas; one may have commas itself. Runs of a recipe with nothing changed, unless `where`
    names `run_settings`.
    """
    where = {"run_settings": "{}", **where}
    return [row for row in rows if all(_text(row, name) in (v, *v.split(",")) for name, v in where.items())]


def _text(row: EvaluationRow, name: str) -> str:
    columns = vars(row)
    return str(columns[name] if name in columns else json.loads(row.settings).get(name, ""))


@dataclass(frozen=True)
class Series:
    """Episodes with consecutive seeds of one planner on one checkpoint, played in one evaluation or in several."""

    row: EvaluationRow
    """The first evaluation's."""
    returns: tuple[float, ...]
    predicted: float | None

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Student's 95 % interval of the mean over episodes; not-a-number with one episode."""
        return student(self.returns) or (float("nan"), float("nan"))

    @property
    def group(self) -> tuple[str | int, ...]:
        """Series that may be compared episode by episode: the same checkpoint and the same first seed."""
        return (*self.row.run, self.row.env_steps, self.row.checkpoint, self.row.revision, self.row.seed)


def joined(rows: Iterable[EvaluationRow]) -> list[Series]:
    """Evaluations of one planner on one checkpoint whose episode seeds follow each other, as one series each."""
    chains: dict[tuple[str | int, ...], list[list[EvaluationRow]]] = {}
    for row in sorted(rows, key=lambda row: (row.seed, -row.episodes)):
        same = chains.setdefault((*row.run, row.env_steps, row.checkpoint, row.planner, row.settings), [])
        ends = [chain for chain in same if chain[-1].seed + chain[-1].episodes == row.seed]
        if ends:  # of several, one that was played in portions of the same size
            min(ends, key=lambda chain: chain[-1].episodes != row.episodes).append(row)
        else:
            same.append([row])
    return [_series(chain) for same in chains.values() for chain in same]


def _series(chain: Sequence[EvaluationRow]) -> Series:
    scores = [(row.predicted, row.episodes) for row in chain if row.predicted is not None]
    episodes = sum(count for _, count in scores)
    predicted = sum(score * count for score, count in scores) / episodes if episodes else None
    return Series(chain[0], tuple(value for row in chain for value in row.returns), predicted)


def labels(rows: Sequence[EvaluationRow]) -> list[str]:
    """A short name for each: planner, sizes, and the settings in which it differs from others with that name.

    Gradient planners are written candidates x steps, sampling planners horizon x iterations x candidates.
    """
    short = [_short(row) for row in rows]
    names = []
    for row, name in zip(rows, short, strict=True):
        alike = [json.loads(other.settings) for other, its in zip(rows, short, strict=True) if its == name]
        own = json.loads(row.settings)
        keys = sorted({key for settings in alike for key in settings})
        differing = [key for key in keys if any(settings.get(key) != own.get(key) for settings in alike)]
        names.append(", ".join([name, *(_setting(key, own[key]) for key in differing if key in own)]))
    return names


def _setting(key: str, value: object) -> str:
    word = key.rpartition(".")[2]
    return word if value is True else f"{word}={json.dumps(value) if value is None else value}"


def _short(row: EvaluationRow) -> str:
    settings = json.loads(row.settings)
    sizes = ("candidates", "iterations") if "step_size" in settings else ("horizon", "iterations", "candidates")
    if not all(name in settings for name in sizes):
        return row.planner
    return f"{row.planner} {'x'.join(str(settings[name]) for name in sizes)}"


def training(curves: Iterable[CurveRow], row: EvaluationRow) -> list[tuple[int, float]]:
    """Env steps and mean returns of the evaluations while a row's run was trained."""
    return [(point.env_steps, point.value) for point in curves if point.kind == "evaluation" and point.run == row.run]


@dataclass(frozen=True)
class Level:
    """One planner over all training seeds of a recipe."""

    row: EvaluationRow
    """Of the first training seed."""
    means: tuple[float, ...]
    """Mean return of each training seed, in their order."""
    episodes: int
    """Of each training seed."""
    revisions: tuple[str, ...]
    """Of the code that trained them, each once."""

    @property
    def mean(self) -> float:
        """Mean over training seeds."""
        return float(np.mean(self.means))


def levels(rows: Iterable[EvaluationRow]) -> list[Level]:
    """Evaluations gathered over training seeds: the same recipe, budget, planner, settings and episode seeds."""
    groups: dict[tuple[str | int, ...], list[Series]] = {}
    for series in joined(rows):
        row = replace(series.row, run_seed=0)
        group = (*row.run, row.env_steps, row.checkpoint, row.planner, row.settings, row.seed, len(series.returns))
        groups.setdefault(group, []).append(series)
    gathered = (sorted(same, key=lambda series: series.row.run_seed) for same in groups.values())
    return [_level(same) for same in gathered]


def _level(same: Sequence[Series]) -> Level:
    revisions = tuple(dict.fromkeys(series.row.revision for series in same))
    return Level(same[0].row, tuple(series.mean for series in same), len(same[0].returns), revisions)
