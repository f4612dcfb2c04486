"""Cells as tasks of a Ray cluster, whose machines share the folder of the runs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning_wm.errors import UserError
from lightning_wm.study.grid import Cell

STOP = "stop"
"""Ending of the file beside a run that stops it: ray.cancel promises no more than to try."""


def _fit(cell: Cell, folder: str) -> int:
    """On a worker: run the cell's fit in `folder`, and stop it with a checkpoint when its stop file appears."""
    from lightning_wm.study.jobs import process

    os.chdir(folder)
    stop = cell.beside(STOP)
    running, told = process(cell), False
    while True:
        with suppress(KeyboardInterrupt):  # what ray.cancel raises here; it is for tasks that still wait
            while (code := running.poll()) is None:
                if not told and stop.exists():
                    running.terminate()
                    told = True
                time.sleep(0.2)
            return code


class RayJob:
    """A cell's task.

    Args:
        task: what Ray calls an object reference.
        stop: the file that stops it once it runs.
    """

    def __init__(self, task: Any, stop: Path) -> None:
        self.task, self.stop = task, stop

    def poll(self) -> int | None:
        """Its exit code; None while it runs, 1 where its machine was lost."""
        import ray
        from ray.exceptions import RayError, TaskCancelledError

        done, _ = ray.wait([self.task], timeout=0)
        if not done:
            return None
        try:
            return int(ray.get(self.task))
        except TaskCancelledError:
            return 143
        except RayError:
            return 1

    def send_signal(self, number: int) -> None:
        """Stop the fit with a checkpoint, or a task that has not begun."""
        import ray

        self.stop.touch()
        with suppress(ValueError):
            ray.cancel(self.task)


def connected() -> tuple[int, Callable[[Cell], RayJob]]:
    """Connect to the cluster that RAY_ADDRESS names, or to one of this machine.

    Returns:
        How many tasks it takes at a time, and what starts one.

    Raises:
        UserError: Ray is not installed, or there is no such cluster.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise UserError('launcher=ray needs the package ray; type pip install "lightning_wm[ray]"') from error
    try:
        ray.init(ignore_reinit_error=True, include_dashboard=False, log_to_driver=False)
    except (ConnectionError, RuntimeError) as error:
        raise UserError(
            f"there is no Ray cluster at RAY_ADDRESS={os.environ.get('RAY_ADDRESS')} ({str(error).splitlines()[0]}); "
            "start one with 'ray start --head', or type 'unset RAY_ADDRESS' for one of this machine"
        ) from error
    task, folder = ray.remote(max_retries=0)(_fit), os.getcwd()

    def start(cell: Cell) -> RayJob:
        wanted = {"num_cpus": cell.devices, "num_gpus": cell.devices if cell.gpus else 0}
        stop = cell.beside(STOP)
        stop.parent.mkdir(parents=True, exist_ok=True)
        stop.unlink(missing_ok=True)
        return RayJob(task.options(name=cell.name, **wanted).remote(cell, folder), stop)

    return max(1, int(ray.cluster_resources().get("CPU", 1))), start
