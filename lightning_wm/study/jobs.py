"""Cells as processes, some at a time: on this machine, or wherever a launcher starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Protocol

from lightning_wm.errors import Interrupted
from lightning_wm.study.grid import Cell
from lightning_wm.study.progress import begin, finished, line, mark, overview, rows_of


class Job(Protocol):
    """A cell that runs."""

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        ...

    def send_signal(self, number: int) -> None:
        """Stop it, with a checkpoint."""
        ...


def process(cell: Cell) -> subprocess.Popen[bytes]:
    """Start a cell's fit as a process of this machine, what it says in the cell's log."""
    cell.run.parent.mkdir(parents=True, exist_ok=True)
    with cell.beside("log").open("ab") as file:
        # A session of its own: ^C in the terminal reaches the study only, which passes it on once.
        return subprocess.Popen(
            [sys.executable, "-m", "lightning_wm.fit", *cell.arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={"OMP_NUM_THREADS": "1", **os.environ},
            start_new_session=True,
        )


@dataclass
class Jobs:
    """Runs cells.

    Args:
        jobs: how many at a time.
        deadline: seconds since the epoch after which all are stopped, or None.
        start: starts a cell.
        every: seconds between the lines of progress.
    """

    jobs: int
    deadline: float | None = None
    start: Callable[[Cell], Job] = process
    every: float = 30.0
    received: int = 0
    """The signal that stops the study."""
    late: bool = False
    """Whether the deadline has stopped it."""
    running: dict[Cell, Job] = field(default_factory=dict)
    failed: list[Cell] = field(default_factory=list)

    @property
    def stopping(self) -> bool:
        """Whether nothing more is started."""
        return self.late or bool(self.received)

    def run(self, cells: Sequence[Cell]) -> None:
        """Run what is not finished; returns when all have ended or were stopped."""
        waiting, shown = [cell for cell in cells if not finished(cell)], time.monotonic()
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup sets it
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, self._note) for number in numbers}
        told = False
        try:
            while self.running or (waiting and not self.stopping):
                while waiting and len(self.running) < self.jobs and not self.stopping:
                    cell = waiting.pop(0)
                    begin(cell)
                    self.running[cell] = self.start(cell)
                self._reap()
                if self.deadline is not None and time.time() >= self.deadline and not self.stopping:
                    self.late = True
                if self.stopping and not told:
                    told = True
                    self._pass_on(self.received or signal.SIGTERM)
                if time.monotonic() - shown >= self.every:
                    shown = time.monotonic()
                    self._show(cells)
                time.sleep(0.2)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _reap(self) -> None:
        for cell, job in list(self.running.items()):
            code = job.poll()
            if code is None:
                continue
            del self.running[cell]
            if code == 0 or not (self.stopping and code in (130, 143, -self.received, -signal.SIGTERM)):
                mark(cell, code)
                self.failed += [cell] if code else []
            print(line(cell, "finished" if code == 0 else f"exit {code}", rows_of(cell)), file=sys.stderr, flush=True)

    def _note(self, number: int, frame: FrameType | None) -> None:
        # Passed on by the loop: a job that was being started has to hear of it too. A terminal that is closed ends it.
        self.received = signal.SIGTERM if number == signal.SIGHUP else number

    def _pass_on(self, number: int) -> None:
        for job in list(self.running.values()):
            job.send_signal(number)

    def _show(self, cells: Sequence[Cell]) -> None:
        for cell in self.running:
            print(line(cell, "running", rows_of(cell)), file=sys.stderr)
        print(overview(cells, self.jobs), file=sys.stderr, flush=True)

    def close(self) -> int:
        """Say what failed and what was stopped; returns the exit code.

        Raises:
            Interrupted: a signal has stopped the study.
        """
        for cell in self.failed:
            print(f"failed: {cell.name}: {last_line(cell)} (log: {cell.beside('log')})", file=sys.stderr)
        if self.late:
            print("stopped at the time that until= names; the same command goes on", file=sys.stderr)
        if self.received:
            raise Interrupted(self.received)
        return 1 if self.failed else 0


def last_line(cell: Cell) -> str:
    """The last error of a cell's log."""
    lines = [text for text in cell.beside("log").read_text("utf-8", "replace").splitlines() if text.strip()]
    return next((text for text in reversed(lines) if text.startswith("error:")), lines[-1] if lines else "no output")
