"""The return as a function of the time per decision, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning_wm.benchmarks.returns import Played
from lightning_wm.runs.disk import write_atomically


def draw(played: Sequence[Played], picture: Path) -> None:
    """One line per planner over measured milliseconds, with 95 % intervals; the best at each time is outlined."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    for label in dict.fromkeys(games.label for games in played):
        own = sorted((games for games in played if games.label == label), key=milliseconds)
        means = [games.evaluation.mean for games in own]
        spread = [[mean - low, high - mean] for mean, (low, high) in zip(means, map(_interval, own), strict=True)]
        lower, upper = zip(*spread, strict=True)
        times = [milliseconds(games) for games in own]
        axis.errorbar(times, means, yerr=[lower, upper], marker="o", capsize=3, label=label)
    best = front(played)
    axis.plot(
        [milliseconds(games) for games in best], [games.evaluation.mean for games in best],
        "o", markersize=11, markerfacecolor="none", markeredgecolor="black", label="not beaten by a faster one",
    )  # fmt: skip
    first = played[0].evaluation
    axis.set(xscale="log", xlabel="milliseconds per decision (median)", ylabel="return", title=first.task)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))  # 30 rather than 3 x 10^1
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    write_atomically(picture, lambda file: figure.savefig(file, format="png", dpi=120))


def milliseconds(games: Played) -> float:
    """The measured median of a decision, above zero for the logarithmic axis."""
    return max(games.evaluation.ms_per_decision.median, 1e-3)


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
