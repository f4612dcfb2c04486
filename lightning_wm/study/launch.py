"""Where and until when cells run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from lightning_wm.config.fields import Count, settings
from lightning_wm.errors import UserError
from lightning_wm.study.grid import Cell


@settings("")
class Launch:
    """How a study's runs are started."""

    jobs: Count | None = None
    """Runs at a time; null: 2 on this machine, as many as a Ray cluster has CPUs, no limit in SLURM."""
    launcher: Literal["local", "ray", "slurm"] = "local"
    """`local`: processes of this machine; `ray`: tasks of a Ray cluster; `slurm`: an array job. All machines need the
    same folder for the runs."""
    until: str | None = None
    """HH:MM at which all runs are stopped; the same command goes on."""
    sbatch: list[str] = field(default_factory=list)
    """Further words of SLURM's sbatch: sbatch=[--partition=gpu,--time=4:00:00]."""

    def __post_init__(self) -> None:
        """Refuse what the launcher has not."""
        if self.until is not None:
            deadline(self.until)
        if self.launcher == "slurm" and self.until is not None:
            raise ValueError(
                "until is for runs that this command waits for; with launcher=slurm type sbatch=[--time=…]"
            )
        if self.launcher != "slurm" and self.sbatch:
            raise ValueError(f"sbatch: there is no SLURM with launcher={self.launcher}; type launcher=slurm beside it")

    def run(self, cells: Sequence[Cell], out: Path, lock: Path) -> int:
        """Run, or submit, what is not finished; returns the exit code.

        Args:
            cells: the runs.
            out: their folder.
            lock: a file; nobody else runs them while this process has it.

        Raises:
            UserError: the launcher is not there.
            Interrupted: a signal came; all runs were stopped.
        """
        from lightning_wm.runs.lock import locked
        from lightning_wm.study.jobs import Jobs

        until = None if self.until is None else deadline(self.until)
        with locked(lock, "another folder for the runs"):
            if self.launcher == "slurm":
                return _submitted(cells, out, self.jobs, self.sbatch)
            if self.launcher == "ray":
                from lightning_wm.study.on_ray import connected

                count, start = connected()
                jobs = Jobs(self.jobs or count, until, start)
            else:
                jobs = Jobs(self.jobs or 2, until)
            jobs.run(cells)
        return jobs.close()


def _submitted(cells: Sequence[Cell], out: Path, jobs: int | None, words: Sequence[str]) -> int:
    from lightning_wm.study.slurm import submit

    number = submit(cells, out, jobs, words)
    if number is None:
        print("all runs are finished; nothing was submitted")
    else:
        print(f"submitted as job {number}; its script is {out / 'array.sh'}; 'squeue -j {number}' shows it")
    return 0


def deadline(text: str, now: datetime | None = None) -> float:
    """The next time of day HH:MM, in seconds since the epoch.

    Raises:
        UserError: it is none.
    """
    match = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", text)
    if match is None:
        raise UserError(f"until={text}: expected a time of day, HH:MM; type e.g. until=18:30")
    now = now or datetime.now()
    at = now.replace(hour=int(match[1]), minute=int(match[2]), second=0, microsecond=0)
    return (at if at > now else at + timedelta(days=1)).timestamp()
