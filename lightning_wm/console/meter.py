"""How far a list of planners is with its episodes: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Meter:
    """Shows what is played, and keeps on the screen what is done.

    Args:
        console: where to write; standard error by default.
        every: seconds between lines where there is no terminal.
    """

    def __init__(self, console: Console | None = None, every: float = 10.0) -> None:
        self.console, self.every = console or Console(stderr=True), every
        self._label, self._episodes, self._played, self._decisions = "", 0, 0, 0
        self._line = time.monotonic()
        self._bar: Progress | None = None
        if self.console.is_terminal:
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(20),
                TextColumn("{task.fields[done]}"),
            )
            self._bar = Progress(
                *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self.console, transient=True
            )

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, label: str, episodes: int, decisions: int | None = None) -> None:
        """A planner begins.

        Args:
            label: what is shown of it.
            episodes: how many it plays.
            decisions: calls of `decided` that they take at most; None where that is not known.
        """
        self._label, self._episodes, self._played, self._decisions = label, episodes, 0, 0
        if self._bar is not None:
            for task in self._bar.task_ids:
                self._bar.remove_task(task)
            self._task = self._bar.add_task(label, total=decisions, done=self._done())

    def decided(self) -> None:
        """Every environment has made a decision."""
        self._decisions += 1
        if self._bar is not None:
            self._bar.update(self._task, completed=self._decisions, done=self._done())
        elif time.monotonic() - self._line >= self.every:
            self._line = time.monotonic()
            self._print(f"{self._label}: {self._done()}, {self._decisions:,} decisions")

    def played(self, episodes: int) -> None:
        """So many episodes have been played to their end."""
        self._played = episodes
        if self._bar is not None:
            self._bar.update(self._task, done=self._done())

    def say(self, text: str) -> None:
        """A line that stays."""
        self._print(text)

    def _done(self) -> str:
        return f"{self._played}/{self._episodes} episodes"

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)
