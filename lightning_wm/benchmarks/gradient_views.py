"""What `gradients` has found: as rows, a table, a CSV file and a picture."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from lightning_wm.benchmarks.gradients import Compared
from lightning_wm.benchmarks.picture import finish
from lightning_wm.benchmarks.report import save_csv
from lightning_wm.runs.evaluation_file import student


def rows(found: Sequence[Compared]) -> list[dict[str, Any]]:
    """A row a horizon: means over decisions, with Student's 95 % interval of the cosine."""
    measured = []
    for horizon in sorted({each.horizon for each in found}):
        own = [each for each in found if each.horizon == horizon]
        cosines = [each.cosine for each in own if np.isfinite(each.cosine)]
        ratios = [each.ratio for each in own if np.isfinite(each.ratio)]
        predicted, real = [each.predicted for each in own], [each.real for each in own]
        varied = len(own) > 1 and np.std(predicted) > 0 and np.std(real) > 0
        measured.append({
            "horizon": horizon,
            "decisions": len(own),
            "cosine": float(np.mean(cosines)) if cosines else None,
            "interval95": student(cosines) if cosines else None,
            "uphill": float(np.mean(np.array(cosines) > 0)) if cosines else None,
            "length_ratio": float(np.median(ratios)) if ratios else None,
            "correlation": float(np.corrcoef(predicted, real)[0, 1]) if varied else None,
        })  # fmt: skip
    return measured


def table(measured: Sequence[Mapping[str, Any]]) -> Table:
    """One line a horizon, of each run."""
    several = len({row["run"] for row in measured}) > 1
    view = Table(title="the model's gradient of the return beside the simulator's")
    view.caption = (
        "uphill: share of decisions where a small step along the model's gradient raises the real return; length: the "
        "model's over the real one, median; correlation of predicted and real return over decisions"
    )
    if several:
        view.add_column("run")
    for column in ("horizon", "decisions", "cosine", "95 % interval", "uphill", "length", "correlation"):
        view.add_column(column, justify="right")
    for row in measured:
        interval = row["interval95"]
        view.add_row(
            *([row["run"]] if several else []),
            str(row["horizon"]),
            str(row["decisions"]),
            *(_shown(row["cosine"]), "-" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"),
            *(_shown(row[name]) for name in ("uphill", "length_ratio", "correlation")),
        )
    return view


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def name(run: str) -> str:
    """What a run is called here: `ARM/seedS` where it is one of a study, else as its folder."""
    path = Path(run)
    return f"{path.parent.name}/{path.name}" if re.fullmatch(r"seed\d+", path.name) else path.name


def write_rows(measured: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A CSV file, a row for each run and horizon."""
    columns = [column for column in measured[0] if column != "interval95"]
    rows = [[row[column] for column in columns] + list(row["interval95"] or (None, None)) for row in measured]
    shown = [[f"{value:.4f}" if isinstance(value, float) else value for value in row] for row in rows]
    save_csv(path, [*columns, "low95", "high95"], shown)


def draw(measured: Sequence[Mapping[str, Any]], picture: Path) -> None:
    """The cosine over the horizon: one line a run, or an arm with the mean of its seeds; each seed is a dot."""
    from matplotlib.figure import Figure

    horizons = sorted({row["horizon"] for row in measured})
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    for arm in dict.fromkeys(_arm(row) for row in measured):
        own = [row for row in measured if _arm(row) == arm and row["cosine"] is not None]
        at = sorted({row["horizon"] for row in own})
        means = [np.mean([row["cosine"] for row in own if row["horizon"] == horizon]) for horizon in at]
        (line,) = axis.plot(at, means, label=arm)
        axis.plot([row["horizon"] for row in own], [row["cosine"] for row in own], "o", ms=3, color=line.get_color())
    axis.set(
        xlabel="horizon, agent steps", ylabel="cosine of the model's gradient and the simulator's",
        title="the gradient of the return", ylim=(-0.1, 1.02),
    )  # fmt: skip
    axis.set_xscale("log")
    axis.set_xticks(horizons)
    finish(figure, axis, picture)


def _arm(row: Mapping[str, Any]) -> str:
    return str(row["run"]).partition("/")[0]
