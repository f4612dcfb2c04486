"""Cells as an array job of SLURM, whose machines share the folder of the runs."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_wm.errors import UserError
from lightning_wm.runs.files import write_text
from lightning_wm.study.grid import Cell
from lightning_wm.study.progress import finished

GRACE = 120
"""Seconds between SLURM's warning and its time limit; fit saves and asks to be queued again."""


def submit(cells: Sequence[Cell], out: Path, jobs: int | None, words: Sequence[str]) -> str | None:
    """Hand what is not finished to `sbatch`; returns the job's number, None where all is finished.

    Args:
        cells: of the study.
        out: folder of the runs; the script becomes `array.sh` there.
        jobs: how many run at a time; None for no limit.
        words: further words of `sbatch`.

    Raises:
        UserError: SLURM is not there, or refuses.
    """
    rest = [cell for cell in cells if not finished(cell)]
    if not rest:
        return None
    out.mkdir(parents=True, exist_ok=True)
    path = out / "array.sh"
    write_text(path, script(rest, out.resolve(), jobs))
    try:
        done = subprocess.run(
            ["sbatch", "--parsable", *words, str(path)], capture_output=True, text=True, timeout=600, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(
            f"sbatch could not be started ({error}); expected a machine that submits to SLURM; the script is {path}; "
            "type launcher=local for this machine"
        ) from error
    if done.returncode:
        why = done.stderr.strip() or f"exit code {done.returncode}"
        raise UserError(f"sbatch refused {path}: {why}; type e.g. sbatch=[--partition=<one of sinfo>,--time=4:00:00]")
    return done.stdout.strip().partition(";")[0]


def script(cells: Sequence[Cell], out: Path, jobs: int | None) -> str:
    """The array job's script: task N is the N-th cell."""
    gpus = max(cell.devices * cell.gpus for cell in cells)
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name={out.name}",
        f"#SBATCH --array=0-{len(cells) - 1}" + ("" if jobs is None else f"%{jobs}"),
        "#SBATCH --ntasks=1",
        f"#SBATCH --cpus-per-task={max(cell.devices for cell in cells)}",
        *([f"#SBATCH --gpus-per-task={gpus}"] if gpus else []),
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        f"#SBATCH --signal=USR1@{GRACE}",
        "#SBATCH --output=/dev/null",
        f"cd {shlex.quote(str(Path.cwd()))} || exit 1",
        "export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}",
        'case "$SLURM_ARRAY_TASK_ID" in',
    ]
    for number, cell in enumerate(cells):
        beside = shlex.quote(str(cell.run.absolute()))
        fit = shlex.join([sys.executable, "-m", "lightning_wm.fit", *cell.arguments])
        lines.append(f"{number}) run={beside}; steps={cell.env_steps}; set -- {fit} ;;")
    lines += [
        "esac",
        'mkdir -p "$(dirname "$run")"',
        'rm -f "$run.failed" "$run.finished"',
        'srun "$@" >> "$run.log" 2>&1',
        "code=$?",
        'case "$code" in',
        '0) echo "$steps" > "$run.finished" ;;',
        "130|143) ;;  # stopped with a checkpoint",
        '*) echo "$code" > "$run.failed" ;;',
        "esac",
        "exit $code",
    ]
    return "\n".join(lines) + "\n"
