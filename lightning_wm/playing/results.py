"""What an evaluation found: its numbers, its file, its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from lightning_wm.playing.episode import Episode
from lightning_wm.runs.evaluation_file import Evaluation as Evaluation
from lightning_wm.runs.evaluation_file import student


def summarise(episodes: Sequence[Episode], **about: Any) -> Evaluation:
    """Gather episodes into an evaluation; `about` are the fields that episodes do not know."""
    return Evaluation(
        returns=[episode.total for episode in episodes],
        milliseconds=[value for episode in episodes for value in episode.milliseconds],
        # -inf where no candidate's score was finite: those decisions are counted as fallbacks, not averaged.
        scores=[score for episode in episodes for _, score in episode.scores if isfinite(score)],
        model_steps=episodes[0].model_steps,
        sequential_calls=episodes[0].sequential_calls,
        fallbacks=sum(episode.fallbacks for episode in episodes),
        by_policy=sum(episode.by_policy for episode in episodes),
        **about,
    )


def paired(first: Sequence[float], other: Sequence[float]) -> tuple[float, float, float]:
    """Mean difference of `other`'s returns to `first`'s on the same episode seeds, with its 95 % interval.

    The interval is not-a-number with one episode.
    """
    difference = np.asarray(other) - np.asarray(first)
    low, high = student(difference) or (float("nan"), float("nan"))
    return float(difference.mean()), low, high


def decimal(value: float, sign: str = "") -> str:
    """A return with one decimal, or with two digits where these would not show it: 831.9, 0.034."""
    return f"{value:{sign}.2g}" if 0 < abs(value) < 1 else f"{value:{sign}.1f}"


def written(mean: float, low: float, high: float) -> str:
    """A difference and its interval, where there is one."""
    difference = decimal(mean, "+")
    return f"{difference} ({decimal(low, '+')} to {decimal(high, '+')})" if low == low else difference


def interval(low: float | None, high: float | None) -> str:
    """Both ends of an interval, or a dash where there is none, as of one episode."""
    if low is None or high is None or low != low:
        return "-"
    return f"{decimal(low)} to {decimal(high)}"


def table(evaluations: Sequence[Mapping[str, Any]]) -> Table:
    """Evaluations, as `as_json` gives them, as rows; differences to the first are paired by episode seed."""
    first = evaluations[0]
    view = Table(title=f"{first['task']}, {first['env_steps']:,} env steps, seeds {first['seed']}..")
    at_once = first["environments"]
    columns = ["planner", "episodes", "return", "95 % interval", "IQM", "lowest"]
    columns += ["predicted", "ms alone", "p95", *([f"ms of {at_once}"] if at_once > 1 else []), "model steps"]
    view.caption = "ms alone, p95: from observation to action of one environment, median and 95th percentile"
    if at_once > 1:
        view.caption += f"; ms of {at_once}: the planner's wall time for {at_once} at once, over {at_once}"
    if len(evaluations) > 1:
        columns.insert(4, "to the first")
    for column in columns:
        view.add_column(column, justify="left" if column == "planner" else "right")
    for evaluation in evaluations:
        cells = _cells(evaluation)
        if len(evaluations) > 1:
            cells.insert(4, "-" if evaluation is first else written(*paired(first["returns"], evaluation["returns"])))
        view.add_row(*cells)
    return view


def _cells(evaluation: Mapping[str, Any]) -> list[str]:
    predicted, cost, alone = evaluation["predicted_score"], evaluation["ms_per_decision"], evaluation.get("latency_ms")
    return [
        evaluation["planner"],
        str(evaluation["episodes"]),
        decimal(evaluation["mean"]),
        interval(*evaluation["interval95"]),
        decimal(evaluation["iqm"]),
        decimal(min(evaluation["returns"])),
        "-" if predicted is None else decimal(predicted),
        "-" if alone is None else f"{alone['median']:.1f}",
        "-" if alone is None else f"{alone['p95']:.1f}",
        *([f"{cost['median']:.1f}"] if evaluation["environments"] > 1 else []),
        f"{evaluation['model_steps']:,.0f}",
    ]


def line(evaluation: Evaluation, name: str = "") -> str:
    """One evaluation in a line, for while others are still being played; `name` in place of the planner's own."""
    alone = evaluation.latency_ms
    cost = "" if alone is None else f", {alone.median:.1f} ms a decision alone"
    return f"{name or evaluation.planner}: return {decimal(evaluation.mean)} over {evaluation.episodes} episodes{cost}"


def show(evaluations: Sequence[Mapping[str, Any]]) -> None:
    """Print the table to standard output, wide enough not to break where it is no terminal."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    console.print(table(evaluations))
