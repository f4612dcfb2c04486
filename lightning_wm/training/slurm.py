"""Going back into SLURM's queue after a preempted run has been saved."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lightning_wm.errors import Interrupted
from lightning_wm.training.signals import Signals

SECONDS = 30.0
"""How long `scontrol` may take."""


def job() -> str | None:
    """The job that this process belongs to, an array's task as `job_task`; None outside of SLURM."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    if array is not None and task is not None:
        return f"{array}_{task}"
    return os.environ.get("SLURM_JOB_ID")


def requeue() -> bool:
    """Ask SLURM once to run the job again; says on standard error why it will not.

    Returns:
        Whether it will. False without a word outside of SLURM.
    """
    name = job()
    if name is None:
        return False
    try:
        done = subprocess.run(
            ["scontrol", "requeue", name], capture_output=True, text=True, timeout=SECONDS, check=False
        )
        reason = done.stderr.strip() or f"exit code {done.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        done, reason = None, str(error)
    if done is None or done.returncode:
        print(f"SLURM job {name} was not requeued ({reason}); submit the same command again", file=sys.stderr)
        return False
    print(f"SLURM job {name} is back in the queue", file=sys.stderr)
    return True


@contextmanager
def requeued_when_preempted(signals: Signals, rank: int) -> Iterator[None]:
    """Go back into the queue where a signal other than Ctrl-C ends the block, once for the whole run."""
    try:
        yield
    except Interrupted as error:
        if rank == 0 and error.signal != signal.SIGINT:
            with signals.deferred():  # a further signal must not stop scontrol
                requeue()
        raise
