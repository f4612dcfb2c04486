"""Checks of a planner's fields; every message names the field, its value and what was expected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def check_shared(config: Any) -> None:
    """Refuse impossible values of the fields that planners share.

    Raises:
        ValueError: names the field, its value and what was expected.
    """
    name = config.name
    for field in ("horizon", "iterations", "candidates", "elites", "replan"):
        value = getattr(config, field, None)
        if value is not None and value < 1:
            raise ValueError(f"planner.{field}={value}: {name} expected at least 1")
    horizon, replan = config.horizon, getattr(config, "replan", 1)
    if replan > horizon:
        raise ValueError(f"planner.replan={replan}: more actions than planner.horizon={horizon} has")
    elites, candidates = getattr(config, "elites", None), getattr(config, "candidates", None)
    if elites is not None and candidates is not None and elites > candidates:
        raise ValueError(f"planner.elites={elites}: more elites than candidates={candidates}; expected at most that")


def check_choice(field: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a value that is none of the choices.

    Raises:
        ValueError: names the field, its value and the choices.
    """
    if value not in choices:
        raise ValueError(f"planner.{field}={value}: expected one of {', '.join(choices)}")


def check_range(config: Any, **least: float) -> None:
    """Refuse values below their least.

    Raises:
        ValueError: names the field, its value and the bound.
    """
    for field, bound in least.items():
        value = getattr(config, field)
        if not value >= bound:
            raise ValueError(f"planner.{field}={value}: expected at least {bound:g}")


def check_positive(config: Any, *fields: str) -> None:
    """Refuse values that are not above zero.

    Raises:
        ValueError: names the field and its value.
    """
    for field in fields:
        if not getattr(config, field) > 0:
            raise ValueError(f"planner.{field}={getattr(config, field)}: expected more than 0")
