"""Run a grid: `python -m lightning_wm.study study=learning jobs=2`."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lightning_wm import config as configuration
from lightning_wm.config.fields import Count, settings
from lightning_wm.errors import Interrupted, UserError, exits

if TYPE_CHECKING:
    from lightning_wm.study.grid import Cell

USAGE = "python -m lightning_wm.study [status] study=learning [size=small] [jobs=2] [until=18:30]"


@settings("")
class StudyOptions:
    """What `study` is told."""

    study: str
    """Name of a shipped study, or a YAML file."""
    size: Literal["small", "full"] = "full"
    """Which of the study's sizes."""
    jobs: Count = 2
    """Runs at a time."""
    until: str | None = None
    """HH:MM at which all runs are stopped; the same command goes on."""
    out: str | None = None
    """Folder of the runs; runs/study/<name> by default."""


@exits
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = list(argv or [])
    if "--help" in arguments or "-h" in arguments:
        print(configuration.options_help(StudyOptions, USAGE))
        return 0
    status = "status" in arguments
    given = [item for item in arguments if item != "status"]
    options = configuration.options(given, StudyOptions, {"study": "study=learning"})
    deadline = None if options.until is None else _deadline(options.until)
    from lightning_wm.study import grid, progress

    path = grid.study_file(options.study)
    out = Path(options.out or f"runs/study/{path.stem}").expanduser()
    cells = grid.cells(grid.read_study(path, options.size), out)
    if status:
        for cell in cells:
            state = "finished" if progress.finished(cell) else "begun" if cell.run.is_dir() else "waiting"
            print(progress.line(cell, state, progress.last_rows(cell)))
        return 0
    return _run(cells, out, options.jobs, deadline)


def _run(cells: Sequence[Cell], out: Path, jobs: int, deadline: float | None) -> int:
    from lightning_wm.runs.lock import locked
    from lightning_wm.study.jobs import Local, last_line, log

    with locked(out / "lock", "out=<another folder>"):
        local = Local(jobs, deadline)
        local.run(cells)
    for cell in local.failed:
        print(f"failed: {cell.name}: {last_line(cell)} (log: {log(cell)})", file=sys.stderr)
    if local.late:
        print("stopped at the time that until= names; the same command goes on", file=sys.stderr)
    if local.received:
        raise Interrupted(local.received)
    return 1 if local.failed else 0


def _deadline(text: str) -> float:
    """The next time of day HH:MM, in seconds since the epoch."""
    match = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", text)
    if match is None:
        raise UserError(f"until={text}: expected a time of day, HH:MM; type e.g. until=18:30")
    now = datetime.now()
    at = now.replace(hour=int(match[1]), minute=int(match[2]), second=0, microsecond=0)
    return (at if at > now else at + timedelta(days=1)).timestamp()


if __name__ == "__main__":
    raise SystemExit(main(None))
