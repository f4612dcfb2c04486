"""Pictures of runs."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_wm.runs.disk import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; a last line cut short by a crash is left out, and so is what fit did not write."""
    lines = []
    for text in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            break
        if isinstance(line, dict):
            lines.append(line)
    return lines


def series(lines: list[dict[str, Any]], name: str, over: str = "env_steps") -> tuple[list[int], list[float]]:
    """Env steps (or updates) and values of one metric."""
    pairs: list[tuple[Any, Any]] = [(line.get(over), line.get(name)) for line in lines]
    points = [pair for pair in pairs if all(type(value) in (int, float) for value in pair)]
    return [steps for steps, _ in points], [value for _, value in points]


def learning_curve(metrics: Path, picture: Path, title: str) -> None:
    """Draw what was measured as a PNG."""
    figure = drawn(read_metrics(metrics), title)
    write_atomically(picture, lambda file: figure.savefig(file, format="png", dpi=120))


def drawn(lines: list[dict[str, Any]], title: str) -> Figure:
    """Returns and the open-loop error over env steps, losses over updates; a panel for each that was measured."""
    from matplotlib.figure import Figure

    panels = [panel for panel in _panels(lines, title) if panel.curves]
    figure = Figure(figsize=(1 + 3.2 * max(1, len(panels)), 3.4), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0] if panels else []
    for axis, panel in zip(axes, panels, strict=True):
        for curve in panel.curves:
            axis.plot(curve.x, curve.y, curve.style or _style(curve.x), alpha=curve.alpha, label=curve.label)
        axis.set(title=panel.title, xlabel=panel.over, ylabel=panel.ylabel, yscale="log" if panel.log else "linear")
        if (limits := _limits(panel)) is not None:
            axis.set_ylim(*limits)
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small", loc="best")  # named: the default warns where drawing is slow
    return figure


@dataclass(frozen=True)
class Curve:
    """One line of a panel."""

    label: str
    x: list[int]
    y: list[float]
    style: str | None = None
    """None: a line, with markers where there are few points."""
    alpha: float = 1.0


@dataclass(frozen=True)
class Panel:
    """One picture of the row."""

    title: str
    over: str
    curves: list[Curve]
    ylabel: str = ""
    log: bool = False


def _panels(lines: list[dict[str, Any]], title: str) -> list[Panel]:
    names = sorted({name for line in lines for name in line if name.startswith("train/loss/")} - {"train/loss/total"})
    losses = [Curve(name.removeprefix("train/loss/"), *series(lines, name, "updates")) for name in names]
    positive = [curve for curve in losses if curve.y and min(curve.y) > 0]
    other = [curve for curve in losses if curve.y and curve not in positive]
    returns = [
        Curve("collected, with noise", *series(lines, "rollout/return"), style=".", alpha=0.5),
        Curve("evaluation", *series(lines, "evaluation/return"), style="o-"),
    ]
    error = [Curve("open-loop error", *series(lines, "model/open_loop_error"))]
    return [
        Panel(title, "env steps", [curve for curve in returns if curve.y], "return"),
        Panel("losses", "updates", positive, log=True),
        Panel("losses that may be negative", "updates", other),
        Panel("prediction without observations", "env steps", [curve for curve in error if curve.y], log=True),
    ]


FEW = 30
"""Points that are marked one by one."""
BEGINNING = 0.05
"""Share of a curve whose spike may leave the picture."""


def _style(x: list[int]) -> str:
    return "o-" if len(x) <= FEW else "-"


def _limits(panel: Panel) -> tuple[float, float] | None:
    """Limits without the first spike, where that would squash everything after it; None where all of it fits."""
    begun = [curve.y[int(BEGINNING * len(curve.y)) + 1 :] for curve in panel.curves if len(curve.y) > FEW]
    rest = [value for values in begun for value in values]
    whole = [value for curve in panel.curves for value in curve.y]
    if not rest or panel.over != "updates":
        return None
    low, high = min(rest), max(rest)
    if panel.log:
        within, across = math.log(high / low), math.log(max(whole) / min(whole))
        margin = (high / low) ** 0.05
        limits = low / margin, high * margin
    else:
        within, across = high - low, max(whole) - min(whole)
        limits = low - 0.05 * within, high + 0.05 * within
    return limits if 0 < 1.5 * within < across else None
