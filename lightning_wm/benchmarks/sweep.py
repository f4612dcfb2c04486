"""What the return owes to one number: of the planners, or of the simulator that they play in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lightning_wm.benchmarks.budget import KNOBS, with_knob
from lightning_wm.benchmarks.pareto import draw_over
from lightning_wm.benchmarks.returns import Entry, Games, Played, compare, entries
from lightning_wm.config.schema import PerturbConfig
from lightning_wm.console.meter import Meter
from lightning_wm.errors import UserError, hint
from lightning_wm.protocols import PlannerSettings
from lightning_wm.runs.loading import LoadedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PERTURB = "perturb."
"""What a field of the simulator begins with."""


class Point(NamedTuple):
    """One value, and who plays there."""

    value: float
    loaded: LoadedRun
    planners: list[Entry]


def points(loaded: LoadedRun, planners: Sequence[str], name: str, values: Sequence[float]) -> list[Point]:
    """The run and its planners, once per value.

    Args:
        name: a field of every planner, or `perturb.` and a property.

    Raises:
        UserError: a planner, or the simulator, has no such number, or refuses a value of it.
    """
    written = entries(loaded, planners)
    made = []
    for value in values:
        if name.startswith(PERTURB):
            made.append(Point(value, _perturbed(loaded, name, value), written))
        else:
            own = [(label, _set(label, config, name, value)) for label, config in written]
            made.append(Point(value, loaded, own))
    return made


def played(made: Sequence[Point], games: Games, meter: Meter | None = None) -> Iterator[Played]:
    """Every planner at every value, on the same episodes."""
    for point in made:
        for one in compare(point.loaded, point.planners, games, meter=meter):
            yield replace(one, value=point.value)


def draw(done: Sequence[Played], picture: Path, name: str) -> None:
    """One line per planner over the values, with a tick at each; logarithmic over more than a factor of ten."""
    values = sorted({each.value for each in done if each.value is not None})

    def scaled(axis: Axes) -> None:
        if values[0] > 0 and values[-1] > 10 * values[0]:
            axis.set_xscale("log")
        axis.set_xticks(values)

    draw_over(done, picture, lambda each: float(each.value or 0.0), name, scaled)


def _set(label: str, config: PlannerSettings, name: str, value: float) -> PlannerSettings:
    own = vars(config).get(name)
    numbers = [key for key, held in vars(config).items() if type(held) in (int, float)]  # a truth value is an int, too
    if name not in numbers:
        raise UserError(
            f"sweep.of={name}: planner {label} has no such number{hint(name, numbers)}; "
            f"known: {', '.join(numbers)}, and {PERTURB}mass of the simulator"
        )
    number = int(value) if isinstance(own, int) and value.is_integer() else value
    try:
        if name in KNOBS and isinstance(number, int):
            return with_knob(config, name, number)
        return replace(config, **{name: number})
    except ValueError as error:
        raise UserError(f"sweep.values={value:g}: {error}") from None


def _perturbed(loaded: LoadedRun, name: str, value: float) -> LoadedRun:
    key = name.removeprefix(PERTURB)
    known = [each.name for each in fields(PerturbConfig)]
    if key not in known:
        listed = ", ".join(PERTURB + each for each in known)
        raise UserError(f"sweep.of={name}: there is no such property{hint(key, known)}; known: {listed}")
    return loaded.perturbed(PerturbConfig(**{key: value}))
