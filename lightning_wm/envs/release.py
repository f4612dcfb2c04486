"""Closing simulators, whatever their own `close` does."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from lightning_wm.envs.simulator import Simulator

_named: set[str] = set()


def release(simulators: Iterable[Simulator], task: str) -> None:
    """Close every simulator; those that raise are named on standard error, once per task and process."""
    errors = [error for simulator in simulators if (error := _close(simulator)) is not None]
    if errors and task not in _named:
        _named.add(task)
        first = f"{type(errors[0]).__name__}: {errors[0]}"
        print(f"warning: task {task} could not be closed ({first}); it may keep memory", file=sys.stderr)


def _close(simulator: Simulator) -> BaseException | None:
    try:
        simulator.close()
    except (Exception, SystemExit) as error:  # a close that ends the process would take the run with it
        return error
    return None
