"""Cells as processes of this machine, some at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from lightning_wm.study.grid import Cell
from lightning_wm.study.progress import finished, last_rows, line, mark_finished


@dataclass
class Local:
    """Runs cells.

    Args:
        jobs: how many at a time.
        deadline: seconds since the epoch after which all are stopped, or None.
        every: seconds between the lines of progress.
    """

    jobs: int
    deadline: float | None = None
    every: float = 30.0
    received: int = 0
    """The signal that stops the study."""
    late: bool = False
    """Whether the deadline has stopped it."""
    running: dict[subprocess.Popen[bytes], Cell] = field(default_factory=dict)
    failed: list[Cell] = field(default_factory=list)

    @property
    def stopping(self) -> bool:
        """Whether nothing more is started."""
        return self.late or bool(self.received)

    def run(self, cells: Sequence[Cell]) -> None:
        """Run what is not finished; returns when all have ended or were stopped."""
        waiting, shown = [cell for cell in cells if not finished(cell)], time.monotonic()
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._note) for number in numbers}
        try:
            while self.running or (waiting and not self.stopping):
                while waiting and len(self.running) < self.jobs and not self.stopping:
                    self._start(waiting.pop(0))
                self._reap()
                if self.deadline is not None and time.time() >= self.deadline and not self.stopping:
                    self.late = True
                    self._pass_on(signal.SIGTERM)
                if time.monotonic() - shown >= self.every:
                    shown = time.monotonic()
                    self._show()
                time.sleep(0.2)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _start(self, cell: Cell) -> None:
        cell.run.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "lightning_wm.fit", *cell.arguments]
        with log(cell).open("ab") as file:
            # A session of its own: ^C in the terminal reaches the study only, which passes it on once.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={"OMP_NUM_THREADS": "1", **os.environ},
                start_new_session=True,
            )
        self.running[process] = cell

    def _reap(self) -> None:
        for process, cell in list(self.running.items()):
            code = process.poll()
            if code is None:
                continue
            del self.running[process]
            if code == 0:
                mark_finished(cell)
            elif not (self.stopping and code in (130, 143, -self.received, -signal.SIGTERM)):
                self.failed.append(cell)
            print(line(cell, "finished" if code == 0 else f"exit {code}", last_rows(cell)), file=sys.stderr, flush=True)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        for process in list(self.running):
            process.send_signal(number)

    def _show(self) -> None:
        for cell in self.running.values():
            print(line(cell, "running", last_rows(cell)), file=sys.stderr, flush=True)


def log(cell: Cell) -> Path:
    """Where a cell's fit writes what it says."""
    return cell.run.parent / f"{cell.run.name}.log"


def last_line(cell: Cell) -> str:
    """The last error of a cell's log."""
    lines = [text for text in log(cell).read_text("utf-8", "replace").splitlines() if text.strip()]
    return next((text for text in reversed(lines) if text.startswith("error:")), lines[-1] if lines else "no output")
