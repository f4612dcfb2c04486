"""Where a cell stands, and how long the rest takes, from what the runs have on disk."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from lightning_wm.console.clock import clock
from lightning_wm.console.pace import Pace
from lightning_wm.runs.lock import is_locked
from lightning_wm.runs.metrics import tail
from lightning_wm.study.grid import Cell


def finished(cell: Cell) -> bool:
    """Whether fit has ended well with at least as many env steps as are wanted now."""
    if not (cell.run / "config.yaml").is_file():
        return False
    return _number(cell.beside("finished")) >= cell.env_steps


def begin(cell: Cell) -> None:
    """Forget how fit has ended before: the run may be another one, and need not come as far."""
    for name in ("failed", "finished"):
        cell.beside(name).unlink(missing_ok=True)


def mark(cell: Cell, code: int) -> None:
    """Note how fit has ended: that the cell need not be started again, or with which exit code it has failed."""
    name, number = ("failed", code) if code else ("finished", cell.env_steps)
    cell.beside(name).write_text(f"{number}\n", "utf-8")


def state(cell: Cell) -> str:
    """`finished`, `running`, `exit N` (it has failed), `stopped` or `waiting`."""
    if finished(cell):
        return "finished"
    if is_locked(cell.run / "lock"):
        return "running"
    code = _number(cell.beside("failed"))
    return f"exit {code}" if code > 0 else "stopped" if (cell.run / "config.yaml").is_file() else "waiting"


def _number(path: Path) -> int:
    try:
        return int(path.read_text("utf-8"))
    except (OSError, ValueError):
        return -1


def rows_of(cell: Cell) -> list[dict[str, Any]]:
    """The newest rows of the run's metrics."""
    return tail(cell.run / "metrics.jsonl")


def line(cell: Cell, state: str, rows: Iterable[Mapping[str, Any]]) -> str:
    """One line of figures, the newest value of each."""
    row: dict[str, Any] = {}
    for each in rows:
        row.update(each)
    text = f"{cell.name:32} {state:9} {row.get('env_steps', 0):,}/{cell.env_steps:,} env steps"
    text += f" | {row.get('updates', 0):,} updates"
    return text + (f" | return {row['evaluation/return']:.1f}" if "evaluation/return" in row else "")


# ---- how long the rest takes


def seconds_left(cells: Sequence[Cell], jobs: int) -> float | None:
    """Seconds until all cells are done, `jobs` at a time in their order; None before any has measured a pace.

    A cell goes on at the pace of its own last turns; one that has none yet goes at the mean pace of its arm, or of the
    whole study.
    """
    rows = {cell: rows_of(cell) for cell in cells}
    paces = {cell: pace for cell in cells if (pace := _pace(rows[cell])) is not None}
    if not paces:
        return None
    everywhere = mean(paces.values())
    free = [0.0] * jobs
    for cell in cells:
        if finished(cell):
            continue
        arm = [pace for other, pace in paces.items() if other.arm == cell.arm]
        pace = paces.get(cell, mean(arm) if arm else everywhere)
        done = rows[cell][-1]["env_steps"] if rows[cell] else 0
        heapq.heapreplace(free, free[0] + pace * max(0, cell.env_steps - done))
    return max(free)


def _pace(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Seconds per env step over the last turns of a run."""
    pace = Pace()
    pace.remember(rows)
    return pace.per_step


def overview(cells: Sequence[Cell], jobs: int) -> str:
    """How many are finished, and the time left for the whole study."""
    left = seconds_left(cells, jobs)
    done = sum(finished(cell) for cell in cells)
    return f"{done} of {len(cells)} runs finished" + ("" if left is None else f" | {clock(left)} left")
