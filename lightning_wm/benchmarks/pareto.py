"""The return as a function of the time per decision, as a picture and as rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_wm.benchmarks.picture import finish
from lightning_wm.benchmarks.report import save_csv
from lightning_wm.benchmarks.returns import Played

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = (
    "planner", "budget_ms", "value", "candidates", "iterations", "busy_ms", "model_steps", "return", "low95", "high95",
    "episodes", "seed",
)  # fmt: skip


def write_rows(played: Sequence[Played], path: Path) -> None:
    """A CSV file of what the picture shows, a row a point; empty cells where a planner has no such number."""
    rows: list[list[object]] = []
    for games in played:
        e = games.evaluation
        sizes = [e.settings.get(name) for name in ("candidates", "iterations")]
        numbers = [games.busy_ms, e.model_steps, e.mean, *e.interval95]
        shown = [None if number is None else round(float(number), 6) for number in numbers]
        rows.append([games.label, games.budget_ms, games.value, *sizes, *shown, len(e.returns), e.seed])
    save_csv(path, COLUMNS, rows)


def draw(played: Sequence[Played], picture: Path) -> None:
    """Returns over measured milliseconds; the best at each time is outlined."""
    from matplotlib.ticker import LogLocator

    def outlined(axis: Axes) -> None:
        best = front(played)
        axis.plot(
            [milliseconds(games) for games in best], [games.evaluation.mean for games in best],
            "o", markersize=11, markerfacecolor="none", markeredgecolor="black", label="not beaten by a faster one",
        )  # fmt: skip
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))

    draw_over(
        played, picture, milliseconds, "milliseconds per decision of one environment, one thread (median)", outlined
    )


def draw_over(
    played: Sequence[Played],
    picture: Path,
    at: Callable[[Played], float],
    name: str,
    more: Callable[[Axes], None] = lambda axis: None,
) -> None:
    """One line of returns per planner over a number, with 95 % intervals.

    Args:
        at: the number.
        name: what it is.
        more: draws what else there is, and sets the scale.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    for label in dict.fromkeys(games.label for games in played):
        own = sorted((games for games in played if games.label == label), key=at)
        means = [games.evaluation.mean for games in own]
        spread = [[mean - low, high - mean] for mean, (low, high) in zip(means, map(_interval, own), strict=True)]
        lower, upper = zip(*spread, strict=True)
        axis.errorbar([at(games) for games in own], means, yerr=[lower, upper], marker="o", capsize=3, label=label)
    more(axis)
    first = played[0].evaluation
    axis.set(xlabel=name, ylabel="return", title=f"{first.task}, {len(first.returns)} episodes, 95 % intervals")
    finish(figure, axis, picture)


def milliseconds(games: Played) -> float:
    """Of a decision, above zero for the logarithmic axis."""
    return max(games.busy_ms, 1e-3)


def front(played: Sequence[Played]) -> list[Played]:
    """Those with a higher mean return than every faster one (the Pareto front), the fastest first."""
    kept: list[Played] = []
    for games in sorted(played, key=milliseconds):
        if not kept or games.evaluation.mean > kept[-1].evaluation.mean:
            kept.append(games)
    return kept


def _interval(games: Played) -> tuple[float, float]:
    low, high = games.evaluation.interval95
    return (games.evaluation.mean, games.evaluation.mean) if low is None or high is None else (low, high)
