"""Dotted keys of a dataclass's fields."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

from lightning_wm.config.fields import kinds_of, members, nested


def dotted(cls: type, above: str = "") -> dict[str, Any]:
    """Dotted keys of every field of a dataclass, groups included, and what they are annotated with."""
    keys = {}
    for name, kind in kinds_of(cls).items():
        keys[above + name], inner = kind, nested(kind)
        keys.update(dotted(inner, f"{above}{name}.") if inner is not None else {})
    return keys


def texts(cls: type) -> list[str]:
    """Dotted keys whose values are text as it was typed."""
    return [key for key, kind in dotted(cls).items() if all(_is_text(member) for member in members(kind))]


def _is_text(kind: object) -> bool:
    return kind in (str, type(None)) or (get_origin(kind) is Literal and {*map(type, get_args(kind))} == {str})
