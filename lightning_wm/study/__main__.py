"""Run a grid: `python -m lightning_wm.study study=learning jobs=2`."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Literal

from lightning_wm import config as configuration
from lightning_wm.config.fields import settings
from lightning_wm.console.command import command
from lightning_wm.study.launch import Launch

USAGE = "python -m lightning_wm.study [status] study=learning [size=small] [jobs=2] [launcher=local] [until=18:30]"


@settings("")
class StudyOptions(Launch):
    """What `study` is told."""

    study: str = field(kw_only=True)
    """Name of a shipped study, or a YAML file."""
    size: Literal["small", "full"] = "full"
    """Which of the study's sizes."""
    out: str | None = None
    """Folder of the runs; runs/study/<name> by default."""


@command(lambda _: configuration.options_help(StudyOptions, USAGE))
def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    status = "status" in arguments
    given = [item for item in arguments if item != "status"]
    options = configuration.options(given, StudyOptions, {"study": "learning"})
    from lightning_wm.study import benches, grid, progress

    path = grid.study_file(options.study)
    out = Path(options.out or f"runs/study/{path.stem}").expanduser()
    tree = grid.sized(path, options.size)
    trains = "arms" in tree or "bench" not in tree
    if not trains:
        benches.refuse_launch(options)
    cells = grid.cells(grid.read_study(path, options.size), out) if trains else []
    lines = benches.benches(tree, path, out, cells) if "bench" in tree else []
    if status:
        for cell in cells:
            print(progress.line(cell, progress.state(cell), progress.rows_of(cell)))
        if cells:
            print(progress.overview(cells, options.jobs or 2))
        benches.status(lines)
        return 0
    code = options.run(cells, out, out / "lock") if cells else 0
    # Of SLURM, or after until=, not all have ended: the same command goes on.
    return benches.run(lines) if code == 0 and all(map(progress.finished, cells)) else code


if __name__ == "__main__":
    raise SystemExit(main(None))
