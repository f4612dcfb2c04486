"""Cells as tasks of a Ray cluster, whose machines share the folder of the runs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from lightning_wm.errors import UserError
from lightning_wm.study.grid import Cell

AGAIN = 5.0
"""Seconds after which a task that still runs is cancelled again: Ray promises no more than to try."""


def _fit(cell: Cell, folder: str) -> int:
    """On a worker: run the cell's fit in `folder`; where the task is cancelled, stop it with a checkpoint."""
    from lightning_wm.study.jobs import process

    os.chdir(folder)
    running, told = process(cell), False
    while True:
        try:
            while (code := running.poll()) is None:
                time.sleep(0.2)  # Ray's KeyboardInterrupt does not end a wait for a process
            return code
        except KeyboardInterrupt:  # what ray.cancel raises, perhaps more than once
            if not told:
                told = True
                running.terminate()


class RayJob:
    """A cell's task.

    Args:
        task: what Ray calls an object reference.
    """

    def __init__(self, task: Any) -> None:
        self.task = task
        self._cancelled: float | None = None

    def poll(self) -> int | None:
        """Its exit code; None while it runs, 1 where its machine was lost."""
        import ray
        from ray.exceptions import RayError, TaskCancelledError

        done, _ = ray.wait([self.task], timeout=0)
        if not done:
            if self._cancelled is not None and time.monotonic() - self._cancelled > AGAIN:
                self._cancel()
            return None
        try:
            return int(ray.get(self.task))
        except TaskCancelledError:
            return 143
        except RayError:
            return 1

    def send_signal(self, number: int) -> None:
        """Cancel the task, which stops the fit with a checkpoint."""
        self._cancel()

    def _cancel(self) -> None:
        import ray

        self._cancelled = time.monotonic()
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
        return RayJob(task.options(name=cell.name, **wanted).remote(cell, folder))

    return max(1, int(ray.cluster_resources().get("CPU", 1))), start
