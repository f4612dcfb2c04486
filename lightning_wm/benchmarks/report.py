"""Rows as a table and as a file."""

from __future__ import annotations

import csv
import io
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lightning_wm.console.info import processor
from lightning_wm.runs.directory import environment
from lightning_wm.runs.files import write_json, write_text


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One line per row: ours, the peer's, and ours over the peer's."""
    view = Table(title="median of each; ratio is ours over the peer's")
    for column in ("what", "ours", "peer's", "ratio", "peer"):
        view.add_column(column, justify="left" if column in ("what", "peer") else "right")
    for row in rows:
        unit = "gb" if "ours_gb" in row else "ms"
        shown = [f"{row[f'{side}_{unit}']:,.2f} {unit.replace('gb', 'GB')}" for side in ("ours", "peer")]
        view.add_row(row["what"], *shown, f"{row['ratio']:.3f}", row["peer"])
    return view


def show(view: Table, notes: Sequence[str] = ()) -> None:
    """Print a table to standard output, wide enough not to break where it is no terminal, and notes below it."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=210)
    console.print(view)
    for note in notes:
        print(note)


def save(path: Path, rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> None:
    """Write `{machine, versions, revision, rows}` and what else is said about them."""
    surroundings = environment()
    machine = {
        "processor": processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)),
        "threads": surroundings["threads"],
    }
    content = {"machine": machine, "versions": surroundings["versions"], "revision": surroundings["revision"]}
    write_json(path, {**content, **about, "rows": list(rows)})


def save_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file; None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(path, text.getvalue())
