"""How long the rest takes, from how long the last turns took."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any


class Pace:
    """Wall time against env steps that updates were made for, at the ends of the last turns.

    Seed episodes and pretraining are no measure of what a turn takes, so nothing is known before the first turn has
    ended. What a run has logged before it was stopped counts, so that it is known at once when the run goes on.

    Args:
        turns: how many count; enough for an evaluation to be among them.
    """

    def __init__(self, turns: int = 10) -> None:
        self._points: deque[tuple[float, int]] = deque(maxlen=turns + 1)

    def add(self, seconds: float, steps: int) -> None:
        """A turn has ended, or the first one is about to begin; a turn without new env steps measures nothing."""
        if self._points and steps <= self._points[-1][1]:
            self._points.pop()
        self._points.append((seconds, steps))

    def remember(self, rows: Iterable[Mapping[str, Any]], owed: int = 0) -> None:
        """Take the ends of turns from the rows of a metrics.jsonl; `owed` env steps are still to be learned from."""
        for row in rows:
            if "time/update" in row:
                self.add(row["seconds"], row["env_steps"] - owed)

    @property
    def per_step(self) -> float | None:
        """Seconds per env step; None before a turn has ended."""
        if len(self._points) < 2:
            return None
        (begin, before), (end, after) = self._points[0], self._points[-1]
        return (end - begin) / (after - before)

    def left(self, seconds: float, budget: int) -> float | None:
        """Seconds to go at `seconds`, for a run of `budget` env steps; None before a turn has ended."""
        pace = self.per_step
        if pace is None:
            return None
        end, after = self._points[-1]
        return max(0.0, (budget - after) * pace - max(0.0, seconds - end))
