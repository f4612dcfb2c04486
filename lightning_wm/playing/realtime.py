"""A control loop at a fixed rate: what a robot would run."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lightning_wm.errors import UserError
from lightning_wm.runs.evaluation_file import Milliseconds, milliseconds

if TYPE_CHECKING:
    from lightning_wm.playing.actor import WorldModelActor

SHARE = 0.9
"""Of a period: how long an action may take, unless the caller says."""
WARM = 2
"""Decisions before the clock starts: the first ones allocate and compile."""

Action = NDArray[np.float32]


@dataclass
class ControlReport:
    """What a loop did; times in milliseconds of wall time."""

    hz: float
    budget: float
    """Milliseconds from an observation until an action must go out."""
    decisions: int = 0
    """Actions that were sent."""
    misses: int = 0
    """Decisions that were not ready in time, for which the newest plan's next action was sent."""
    held: int = 0
    """Misses for which no plan had an action left: the last action was sent again, zeros before the first."""
    overruns: int = 0
    """Periods that ended late, because `observe` and `send` or a budget beyond the period took too long."""
    latencies: list[float] = field(default_factory=list)
    """From an observation to the action that was planned for it, late ones included."""

    @property
    def latency_ms(self) -> Milliseconds:
        """Median and 95th percentile of the latencies."""
        return milliseconds(self.latencies)

    def __str__(self) -> str:
        latency = self.latency_ms
        return (
            f"{self.decisions} decisions at {self.hz:g} Hz: {self.misses} missed {self.budget:.1f} ms "
            f"({self.held} without a plan left), {self.overruns} periods ended late; "
            f"latency {latency.median:.1f} ms, 95th percentile {latency.p95:.1f}"
        )


def run_at(
    actor: WorldModelActor,
    hz: float,
    observe: Callable[[], Any],
    send: Callable[[Action], None],
    decisions: int | None = None,
    budget: float | None = None,
) -> ControlReport:
    """Act in real time: `observe`, decide and `send` an action `hz` times a second.

    Decisions are made in a thread. One that is not ready in time is a miss: what the newest plan goes on with is
    sent instead, and the last action again where no plan goes on (a policy's plan is one action long). The late
    plan counts from then on, and every observation is filtered with the action that was really sent.

    It is no hard real time. Planner and callables share Python's interpreter lock, so that waking up takes some
    milliseconds more while the planner computes; nothing here preempts anybody. A warm start that missed
    decisions lags behind by as many. The loop begins an episode of its own, after two decisions on what is seen
    first, before the clock starts.

    Args:
        actor: plans; its episode begins anew.
        hz: decisions a second: the rate of env steps, divided by the run's `task.action_repeat`.
        observe: what is seen now, of one environment without a batch, as `act` takes it; None ends the loop.
        send: does an action `[A]` in [-1, 1].
        decisions: how many; None for until `observe` gives None.
        budget: seconds from an observation until an action must go out; None for nine tenths of a period.

    Returns:
        Decisions, misses and latencies.

    Raises:
        UserError: the observation does not fit. Whatever `observe`, `send` and the planner raise ends the loop.
    """
    if not hz > 0 or (budget is not None and not budget > 0):
        raise UserError(f"hz={hz}, budget={budget}: expected positive numbers; type e.g. hz=20")
    seconds = SHARE / hz if budget is None else budget
    report = ControlReport(hz, 1e3 * seconds)
    if (first := observe()) is None:
        return report
    for _ in range(WARM):
        actor.reset()
        if np.ndim(actor.act(first)) != 1:
            raise UserError("run_at is for one robot: expected an observation without a batch; type actor.act(...)")
    actor.reset()
    with ThreadPoolExecutor(1, "planning") as pool:
        _loop(_Mind(actor, pool, report), observe, send, decisions, seconds)
    return report


def _loop(
    mind: _Mind, observe: Callable[[], Any], send: Callable[[Action], None], decisions: int | None, seconds: float
) -> None:
    report, period = mind.report, 1 / mind.report.hz
    due = time.perf_counter()
    while decisions is None or report.decisions < decisions:
        if (seen := observe()) is None:
            return
        send(mind.decide(seen, seconds))
        report.decisions += 1
        due += period
        left = due - time.perf_counter()
        if left > 0:
            time.sleep(left)
        else:  # no burst of periods to catch up
            report.overruns += 1
            due -= left


@dataclass(frozen=True)
class _Thought:
    """What came of an observation."""

    step: int
    action: Action
    upcoming: Action
    """`[K, A]`, what the plan goes on with."""
    milliseconds: float


@dataclass(frozen=True)
class _Seen:
    """An observation, and what was done before it."""

    step: int
    observation: Any
    executed: Action | None
    when: float


class _Mind:
    """Plans in a thread of its own; what was seen while it was busy is filtered first."""

    def __init__(self, actor: WorldModelActor, pool: ThreadPoolExecutor, report: ControlReport) -> None:
        self.actor, self.pool, self.report = actor, pool, report
        self._waiting: list[_Seen] = []
        self._busy: Future[_Thought] | None = None
        self._newest: _Thought | None = None
        self._sent: Action | None = None
        self._step = 0

    def decide(self, observation: Any, seconds: float) -> Action:
        """The action of this step, planned or, after so many seconds, the newest plan's."""
        begin = time.perf_counter()
        self._step += 1
        self._waiting.append(_Seen(self._step, deepcopy(observation), self._sent, begin))
        while self._newest is None or self._newest.step < self._step:
            if self._busy is None:
                self._busy = self.pool.submit(self._think, self._waiting)
                self._waiting = []
            wait([self._busy], timeout=max(0.0, begin + seconds - time.perf_counter()))
            if not self._busy.done():
                break
            self._newest, self._busy = self._busy.result(), None
            self.report.latencies.append(self._newest.milliseconds)
        self._sent = self._next()
        return self._sent.copy()

    def _think(self, seen: list[_Seen]) -> _Thought:
        for earlier in seen[:-1]:
            self.actor.watch(earlier.observation, earlier.executed)
        last = seen[-1]
        self.actor.did(last.executed)
        action = _numbers(self.actor.act(last.observation))
        upcoming = _numbers(self.actor.upcoming[0])
        return _Thought(last.step, action, upcoming, 1e3 * (time.perf_counter() - last.when))

    def _next(self) -> Action:
        newest = self._newest
        if newest is not None and newest.step == self._step:
            return newest.action
        self.report.misses += 1
        if newest is not None and self._step - newest.step <= len(newest.upcoming):
            action: Action = newest.upcoming[self._step - newest.step - 1]
            return action
        self.report.held += 1
        return np.zeros(self.actor.problem.action, np.float32) if self._sent is None else self._sent


def _numbers(action: Any) -> Action:
    """An array, or a tensor wherever it lies, as an array."""
    return np.asarray(action.cpu() if hasattr(action, "cpu") else action, np.float32)
