"""A planner's settings for so many milliseconds a decision."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

from lightning_wm import rng
from lightning_wm.registry import build

KNOBS = ("iterations", "candidates")
"""What a planner spends its time on, by the fields that planners share."""
POPULATION = 10
"""Candidates per iteration beyond which a planner searches with numbers rather than with steps."""
FEWEST_CANDIDATES = 32
"""Below this fewer candidates hardly save time: the calls themselves cost it."""
MOST = 64
"""Times the planner's own number that a knob is turned up at most."""


def knobs(config: Any) -> list[str]:
    """Which of `KNOBS` a planner has, the one to scale first before the other."""
    found = [name for name in KNOBS if isinstance(getattr(config, name, None), int)]
    if len(found) == 2 and config.candidates > POPULATION * config.iterations:
        found.reverse()
    return found


def within(config: Any, budget: float, measure: Callable[[Any], float]) -> Any:
    """The settings, scaled to the most that fits into a budget.

    Iterations are scaled first, but candidates (and elites in proportion) in a planner that has far more of those;
    the other one only where that is not enough. A planner without either stays as it is, and one that does not fit
    at its smallest is returned at its smallest.

    Args:
        config: a planner's settings.
        budget: milliseconds of a decision.
        measure: milliseconds of a decision with given settings.
    """
    fits = _Fits(budget, measure)
    for knob in knobs(config):
        config = _turned(config, knob, fits)
        if fits(config):
            break
    return config


class _Fits:
    """Whether settings fit the budget; measures each once."""

    def __init__(self, budget: float, measure: Callable[[Any], float]) -> None:
        self.budget, self.measure = budget, measure
        self._known: dict[str, bool] = {}

    def __call__(self, config: Any) -> bool:
        key = repr(config)
        if key not in self._known:
            self._known[key] = self.measure(config) <= self.budget
        return self._known[key]


def _turned(config: Any, knob: str, fits: _Fits) -> Any:
    """The largest value of one knob that fits, found by doubling or halving and then bisecting to a tenth."""
    own = getattr(config, knob)
    least = min(own, FEWEST_CANDIDATES) if knob == "candidates" else 1
    if fits(config):
        low = high = own
        while low == high < MOST * own:
            high = 2 * low
            low = high if fits(_with(config, knob, high)) else low
    else:
        low, high = own, own
        while low > least and not fits(_with(config, knob, low)):
            low, high = max(least, low // 2), low
    while high - low > max(1, low // 10):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(_with(config, knob, middle)) else (low, middle)
    return _with(config, knob, low)


def _with(config: Any, knob: str, value: int) -> Any:
    """Settings with another number of candidates or iterations."""
    changed = {knob: value}
    elites = getattr(config, "elites", None)
    if knob == "candidates" and elites is not None:
        changed["elites"] = min(value, max(1, round(elites * value / config.candidates)))
    return dataclasses.replace(config, **changed)


def plan_milliseconds(agent: Any, repeats: int = 3) -> Callable[[Any], float]:
    """Measures settings on what an agent learned: median time of a plan for one environment, after one to warm up."""

    def measure(config: Any) -> float:
        actor = agent.actor(build("planner", config))  # with its policy and critics, where it has them
        taken = []
        for number in range(1 + repeats):
            begin = time.perf_counter()
            actor.planner.plan(actor.problem, actor.model.initial(1), None, [rng.generator(0, "planner", number)])
            taken.append(1e3 * (time.perf_counter() - begin))
        return statistics.median(taken[1:])

    return measure
