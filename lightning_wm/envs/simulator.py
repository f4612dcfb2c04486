"""What a simulator must offer to be played as a row of a batched environment."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_wm import registry
from lightning_wm.config.schema import ObservationConfig, PerturbConfig, TaskConfig
from lightning_wm.envs.layout import ObservationLayout, Part
from lightning_wm.errors import UserError, similar

LARGEST_BOUND = 1e6


class Simulator(Protocol):
    """One episode after another of one task; built as `cls(name, observation)`.

    `name` is the task without its prefix, `observation` an `ObservationConfig`.
    Register with `@register("environment", "<prefix>")`.
    """

    low: NDArray[np.float64]
    """Lower action bounds `[A]`, finite."""
    high: NDArray[np.float64]
    """Upper action bounds `[A]`, finite."""
    size: int
    """O: length of the state vector."""

    def reset(self, seed: int | None) -> None:
        """Begin an episode: from this seed exactly, or from the simulator's own stream."""

    def step(self, action: NDArray[np.float64]) -> tuple[float, bool, bool]:
        """Hold `action` `[A]` (within the bounds) for one env step; reward, terminated, truncated."""

    def observe(self, out: NDArray[np.float32]) -> None:
        """Write the state vector into `out` `[O]`."""

    def render(self, size: int) -> NDArray[np.uint8]:
        """The picture now, `[size, size, 3]`; may be overwritten by the next call."""

    def close(self) -> None:
        """Free native memory; the simulator is not used afterwards."""


@runtime_checkable
class NamesParts(Protocol):
    """A simulator whose own observation has parts with names."""

    layout: ObservationLayout


@runtime_checkable
class TriesOut(Protocol):
    """A simulator that looks at what it plays with before a run does."""

    def try_out(self) -> None:
        """Play a step; raises UserError where what comes back cannot be used."""


@runtime_checkable
class EndsByTime(Protocol):
    """A simulator that knows how long its episodes are at most."""

    @property
    def episode_limit(self) -> int | None:
        """Env steps after which an episode is truncated; None where none is."""


@runtime_checkable
class Perturbable(Protocol):
    """A simulator whose physics can be changed."""

    def perturb(self, factors: PerturbConfig) -> None:
        """Multiply masses, friction, damping and gravity, once, before the first reset."""


@runtime_checkable
class Rewinds(Protocol):
    """A simulator that can be put back into a state that it was in during the same episode."""

    def state(self) -> object:
        """All that the rest of the episode depends on."""

    def restore(self, state: object) -> None:
        """Go on from there; the same actions lead to the same rewards."""


@runtime_checkable
class Poses(Protocol):
    """A simulator that can be drawn where a state vector has it."""

    def pose(self, vector: NDArray[np.float32]) -> None:
        """Put what is drawn where the vector `[O]` has it, within an episode; nothing is played on from there."""


def limit_of(simulator: Simulator) -> int | None:
    """Env steps after which a simulator ends every episode; None where it does not, or does not say."""
    return simulator.episode_limit if isinstance(simulator, EndsByTime) else None


def layout_of(simulator: Simulator) -> ObservationLayout:
    """The parts of a simulator's state vector; one part where it does not name them."""
    if isinstance(simulator, NamesParts):
        return simulator.layout
    return ObservationLayout(Part((simulator.size,)))


def bounds(task: str, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Action bounds as flat float64 arrays `[A]`.

    Raises:
        UserError: a bound is missing or beyond ±1e6, so that [-1, 1] cannot be scaled to it.
    """
    flat = np.asarray(low, np.float64).ravel(), np.asarray(high, np.float64).ravel()
    largest = max((float(np.abs(side).max(initial=0.0)) for side in flat), default=0.0)
    if not largest <= LARGEST_BOUND:
        raise UserError(
            f"task {task} has action bounds of ±{largest:g}, expected at most ±{LARGEST_BOUND:g}: "
            "[-1, 1] cannot be scaled to them; choose another task"
        )
    return flat


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean …?` with up to three near names, or nothing."""
    near = similar(name, known, 3)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def check(environments: int) -> None:
    """Refuse a number of environments that cannot be.

    Raises:
        UserError: it is not positive.
    """
    if environments < 1:
        raise UserError(f"environments is {environments}, expected 1 or more")


def build(task: TaskConfig, observation: ObservationConfig) -> Simulator:
    """The simulator that the task's prefix is registered with.

    Raises:
        UserError: no such prefix, or the simulator refuses the task.
    """
    prefix, _, name = task.name.partition("/")
    simulator: Simulator = registry.lookup("environment", prefix)(name, observation)
    if task.perturb.changed():
        _perturb(simulator, task)
    return simulator


def _perturb(simulator: Simulator, task: TaskConfig) -> None:
    try:
        if not isinstance(simulator, Perturbable):
            raise UserError(
                f"task.perturb: {type(simulator).__name__} has no perturb(factors); leave task.perturb out, or add it"
            )
        simulator.perturb(task.perturb)
    except BaseException:
        simulator.close()
        raise
