"""How everything here is timed: one thread, the two sides in turn within one process, medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from lightning_wm.protocols import WorldModel

Call = Callable[[int], Any]
"""One repetition; told its number, so that its draws can be keyed."""
Clock = Callable[[], float]


def clock_of(device: torch.device) -> Clock:
    """Seconds that a budget is counted in: of the processor on a CPU, which other work there leaves as they are."""
    return time.process_time if device.type == "cpu" else time.perf_counter


@dataclass(frozen=True)
class Setting:
    """What every benchmark is told."""

    repeats: int | None = None
    """Timed repetitions; None for the benchmark's own."""
    smoke: bool = False
    """Tiny sizes: that it runs, not how fast it is."""
    env_steps: int = 100_000
    """Of the memory benchmark."""
    model: WorldModel | None = None
    """A trained world model for the planners; None for a fresh one of the quickstart's size."""

    def count(self, usual: int) -> int:
        """Repetitions where `usual` are enough for a steady median."""
        return usual if self.repeats is None else self.repeats


def interleaved(*calls: Call, repeats: int, warm: int = 3, clock: Clock = time.perf_counter) -> list[float]:
    """Median milliseconds of each call; they take turns, so that a slow minute of the machine slows them all.

    Args:
        repeats: timed rounds.
        warm: rounds before those that are not timed.
        clock: seconds; wall time by default.
    """
    taken: list[list[float]] = [[] for _ in calls]
    for number in range(warm + repeats):
        for call, times in zip(calls, taken, strict=True):
            begin = clock()
            call(number)
            times.append(1e3 * (clock() - begin))
    return [statistics.median(times[warm:]) for times in taken]


def row(
    what: str, ours: float, peer: str, theirs: float, settings: Mapping[str, Any], unit: str = "ms"
) -> dict[str, Any]:
    """One line of `bench.json`."""
    return {
        "what": what,
        f"ours_{unit}": ours,
        "peer": peer,
        f"peer_{unit}": theirs,
        "ratio": ours / theirs,
        "settings": {**settings, "threads": torch.get_num_threads()},
    }


@contextmanager
def one_thread() -> Iterator[None]:
    """A single CPU thread of torch inside the block: two threads beside another job can be 90 times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
