"""Where a cell stands, from what its run has on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lightning_wm.study.grid import Cell

TAIL = 1 << 14


def finished(cell: Cell) -> bool:
    """Whether fit has ended well with at least as many env steps as are wanted now."""
    mark = cell.run.parent / f"{cell.run.name}.finished"
    if not (cell.run / "config.yaml").is_file():
        return False
    try:
        return int(mark.read_text("utf-8")) >= cell.env_steps
    except (OSError, ValueError):
        return False


def mark_finished(cell: Cell) -> None:
    """Note that the cell need not be started again."""
    (cell.run.parent / f"{cell.run.name}.finished").write_text(f"{cell.env_steps}\n", "utf-8")


def last_rows(cell: Cell) -> dict[str, Any]:
    """The newest value of each metric at the end of the run's `metrics.jsonl`; empty where there is none yet."""
    try:
        with (cell.run / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL))
            lines = file.read().splitlines()
    except OSError:
        return {}
    merged: dict[str, Any] = {}
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:  # the first may be cut, the last half written
            continue
        merged.update(row if isinstance(row, dict) else {})
    return merged


def line(cell: Cell, state: str, row: Mapping[str, Any]) -> str:
    """One line of figures."""
    text = f"{cell.name:32} {state:9} {row.get('env_steps', 0):,}/{cell.env_steps:,} env steps"
    text += f" | {row.get('updates', 0):,} updates"
    return text + (f" | return {row['evaluation/return']:.1f}" if "evaluation/return" in row else "")
