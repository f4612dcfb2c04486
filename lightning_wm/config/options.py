"""The other commands' options: the same `key=value`, the same messages, over a flat dataclass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from lightning_wm.config.layers import expand
from lightning_wm.config.line import read_line
from lightning_wm.config.walk import TYPED, Walk, dotted
from lightning_wm.errors import ConfigError

T = TypeVar("T")


def options(
    argv: Sequence[str],
    cls: type[T],
    examples: Mapping[str, str] | None = None,
) -> T:
    """An instance of `cls` from a command line.

    A field `<group>_fields: dict` takes every `<group>.name=value` beside a field `<group>`, unchecked:
    `planner=cem,grad_mpc planner.candidates=100`.

    Args:
        argv: the tokens.
        cls: a dataclass; a field without a default (or with OmegaConf's MISSING) has to be typed.
        examples: dotted key to what to type, for a key that is missing.

    Raises:
        ConfigError: all faults.
    """
    line = read_line(argv)
    groups = [key.removesuffix("_fields") for key in dotted(cls) if key.endswith("_fields")]
    loose: dict[str, dict[str, Any]] = {group: {} for group in groups}
    own = {}
    for key, value in line.values.items():
        group, dot, inner = key.partition(".")
        if dot and group in loose:
            loose[group][inner] = value
        else:
            own[key] = value
    known = [key for key in dotted(cls) if not key.endswith("_fields")]
    walk = Walk(known, dict.fromkeys(own, TYPED), line.raw, examples or {}, list(line.faults))
    walk.faults.extend(walk.unknown(key, own.pop(key)) for key in list(own) if key.endswith("_fields"))
    tree = {**expand(own), **{f"{group}_fields": expand(values) for group, values in loose.items()}}
    result: T | None = walk.build(cls, tree)
    if walk.faults or result is None:
        raise ConfigError(walk.faults)
    return result
