"""The command lines of the other words: `key=value` over a flat dataclass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from lightning_wm.config.check import Check
from lightning_wm.config.keys import dotted, texts
from lightning_wm.config.layers import nest
from lightning_wm.config.line import TYPED, read_line
from lightning_wm.config.store import path_of
from lightning_wm.errors import ConfigError, UserError, hint

T = TypeVar("T")
_PATHS = ("run", "out", "json")


def options(argv: Sequence[str], cls: type[T], examples: Mapping[str, str] | None = None) -> T:
    """An instance of `cls` from a command line: the same `key=value`, the same messages, over a flat dataclass.

    A field `<group>_fields: dict` takes every `<group>.name=value` beside a field `<group>`, unchecked:
    `planner=cem,grad_mpc planner.candidates=100`.

    Args:
        argv: the tokens.
        cls: a dataclass; a field without a default has to be typed.
        examples: dotted key to what to type, for a key that is missing.

    Raises:
        ConfigError: all faults.
    """
    known = [key for key in dotted(cls) if not key.endswith("_fields")]
    line = read_line(argv, (), texts(cls), f"{known[0]}=…")
    check = Check(dict.fromkeys(line.raw, TYPED), line.raw, list(line.faults), examples=examples or {})
    if "--print" in argv:
        check.faults.append("--print: only fit prints what it would run with; leave it out, or type --help")
    loose = {key: f"{key.removesuffix('_fields')}." for key in dotted(cls) if key.endswith("_fields")}
    own = [key for key in line.values if not key.startswith(tuple(loose.values()))]
    tree = nest(line.entries(own), "", check.faults, parts=())
    for key, group in loose.items():
        if key in tree:
            check.faults.append(f"{check.said(key, None)}: there is no such key{hint(key, known)}")
        inner = (typed for typed in line.values if typed.startswith(group))
        tree[key] = nest(line.entries(inner), "", check.faults).get(group[:-1], {})
    for key in _PATHS:
        if isinstance(tree.get(key), str):
            try:
                tree[key] = str(path_of(key, tree[key]))
            except UserError as error:
                check.faults.append(str(error))
    result: T | None = check.build(cls, tree, "", known)
    if check.faults or result is None:
        raise ConfigError(check.faults)
    return result
