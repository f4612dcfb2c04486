"""Results as tables in a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lightning_wm.errors import printable
from lightning_wm.playing.results import decimal, interval
from lightning_wm.report import published
from lightning_wm.report.rows import CurveRow, EvaluationRow
from lightning_wm.report.tables import joined, labels, levels

TEXT = ("recipe", "planner", "changed", "strongest published", "whose runs")


def show(view: Table) -> None:
    """Print a table to standard output, wide enough not to break where it is no terminal."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=220)
    console.print(view)


def added(evaluations: Sequence[EvaluationRow], curves: Sequence[CurveRow], out: Path) -> Table:
    """What was written of the runs that were given: a row an evaluation, and one for a run that has none."""
    columns = ("recipe", "seed", "env steps", "planner", "episodes", "return", "95 % interval", "points of the curve")
    view = _table(f"added to {out}", *columns)
    points = Counter(row.run for row in curves)
    series = joined(evaluations)
    for name, entry in zip(labels([entry.row for entry in series]), series, strict=True):
        row = entry.row
        mean, episodes = decimal(entry.mean), str(len(entry.returns))
        cells = (row.recipe, str(row.run_seed), f"{row.env_steps:,}", name, episodes, mean, interval(*entry.interval))
        _add(view, *cells, str(points.pop(row.run, "")))
    for run in points:
        _add(view, str(run[0]), str(run[-1]), "", "not evaluated yet", "", "", "", str(points[run]))
    return view


def overview(evaluations: Sequence[EvaluationRow]) -> Table:
    """Every planner of every recipe over its training seeds, beside the strongest published number at that budget."""
    columns = ("recipe", "changed", "env steps", "planner", "training seeds", "revision", "episodes", "return")
    view = _table("means over training seeds", *columns, "strongest published", "whose runs")
    gathered = sorted(levels(evaluations), key=lambda level: (*level.row.run[:-1], level.row.env_steps, -level.mean))
    for name, level in zip(labels([level.row for level in gathered]), gathered, strict=True):
        row = level.row
        best = published.strongest(row.task, row.observation, row.env_steps)
        beside = (f"{decimal(best.mean)}, {best.method}", best.whose) if best else ("none at this budget", "")
        revisions = ", ".join(revision or "unknown" for revision in level.revisions)
        counts = (str(len(level.means)), revisions, str(level.episodes), decimal(level.mean))
        changed = "" if row.run_settings == "{}" else row.run_settings
        _add(view, row.recipe, changed, f"{row.env_steps:,}", name, *counts, *beside)
    return view


def _table(title: str, *columns: str) -> Table:
    view = Table(title=escape(title))
    for column in columns:
        view.add_column(column, justify="left" if column in TEXT else "right")
    return view


def _add(view: Table, *cells: str) -> None:
    view.add_row(*(escape(printable(cell)) for cell in cells))
