"""A planner's settings for so many milliseconds a decision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lightning_wm import rng
from lightning_wm.agents.base import BaseAgent
from lightning_wm.benchmarks.timing import clock_of, interleaved
from lightning_wm.playing.actor import WorldModelActor
from lightning_wm.protocols import PlannerSettings
from lightning_wm.registry import build

Measure = Callable[[PlannerSettings], float]

KNOBS = ("iterations", "candidates")
"""What a planner spends its time on, by the fields that planners share."""
POPULATION = 10
"""Candidates per iteration beyond which a planner searches with numbers rather than with steps."""
FEWEST_CANDIDATES = 32
"""Below this fewer candidates hardly save time: the calls themselves cost it."""
MOST = 64
"""Times the planner's own number that a knob is turned up at most."""


def knobs(config: PlannerSettings) -> list[str]:
    """Which of `KNOBS` a planner has, the first to scale first."""
    present = [name for name in KNOBS if isinstance(vars(config).get(name), int)]
    many = len(present) == 2 and vars(config)["candidates"] > POPULATION * vars(config)["iterations"]
    return present[::-1] if many else present


def sizes(config: PlannerSettings) -> str:
    """Candidates and iterations as `16x10`, whichever of them a planner has; `-` without either."""
    own = vars(config)
    return "x".join(str(own[name]) for name in ("candidates", "iterations") if isinstance(own.get(name), int)) or "-"


def within(config: PlannerSettings, budget: float, measure: Measure) -> PlannerSettings:
    """The settings, scaled to the most that fits into a budget.

    Iterations are scaled first, but candidates (and elites in proportion) in a planner that has far more of those;
    the other one only where that is not enough, and then what is left goes to the first. A planner without either
    stays as it is, and one that does not fit at its smallest is returned at its smallest.

    Args:
        config: a planner's settings.
        budget: milliseconds of a decision.
        measure: milliseconds of a decision with given settings.
    """
    known: dict[str, bool] = {}

    def fits(config: PlannerSettings) -> bool:
        """Measures each settings once."""
        key = repr(config)
        if key not in known:
            known[key] = measure(config) <= budget
        return known[key]

    order = knobs(config)
    for knob in order:
        config = _turned(config, knob, fits)
        if fits(config):
            # Half an iteration is left over where a second knob was needed: candidates use it.
            return config if knob == order[0] else _turned(config, order[0], fits)
    return config


def _turned(config: PlannerSettings, knob: str, fits: Callable[[PlannerSettings], bool]) -> PlannerSettings:
    """The largest value of one knob that fits, found by doubling or halving and then bisecting to a tenth."""
    own: int = vars(config)[knob]
    least = min(own, FEWEST_CANDIDATES) if knob == "candidates" else 1
    if fits(config):
        low = high = own
        while low == high < MOST * own:
            high = 2 * low
            low = high if fits(with_knob(config, knob, high)) else low
    else:
        low, high = own, own
        while low > least and not fits(with_knob(config, knob, low)):
            low, high = max(least, low // 2), low
    while high - low > max(1, low // 10):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(with_knob(config, knob, middle)) else (low, middle)
    return with_knob(config, knob, low)


def with_knob(config: PlannerSettings, knob: str, value: int) -> PlannerSettings:
    """Settings with another number of candidates, and elites in proportion, or of iterations."""
    changed = {knob: value}
    elites = vars(config).get("elites")
    if knob == "candidates" and elites is not None:
        changed["elites"] = min(value, max(1, round(elites * value / vars(config)["candidates"])))
    return replace(config, **changed)


def plan_milliseconds(agent: BaseAgent, repeats: int = 3) -> Measure:
    """Measures settings on what an agent learned: median time of a plan for one environment, after one to warm up."""

    def measure(config: PlannerSettings) -> float:
        actor = agent.actor(build("planner", config))  # with its policy and critics, where it has them
        assert isinstance(actor, WorldModelActor)
        state = actor.model.initial(1)
        return interleaved(
            lambda number: actor.planner.plan(actor.problem, state, None, [rng.generator(0, "planner", number)]),
            repeats=repeats,
            warm=1,
            clock=clock_of(agent.device),
        )[0]

    return measure
