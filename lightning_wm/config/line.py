"""The command line: `key=value` tokens, nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_wm.config.names import hint
from lightning_wm.config.text import parse

FLAGS = ("--help", "--print", "--debug")
_KEY = re.compile(r"^[A-Za-z_][\w-]*(\.[\w-]+)*$")


@dataclass(frozen=True)
class Line:
    """What was typed, in order; of a key that was typed twice the last value counts."""

    values: dict[str, Any] = field(default_factory=dict)
    """Dotted key to the value YAML makes of it."""
    raw: dict[str, str] = field(default_factory=dict)
    """Dotted key to the text as typed."""
    flags: frozenset[str] = frozenset()
    """Those of `FLAGS` that were typed."""
    faults: tuple[str, ...] = ()
    """What could not be read."""

    def tokens(self) -> list[str]:
        """`key=value` again, each key once."""
        return [f"{key}={text}" for key, text in self.raw.items()]


def read_line(argv: Sequence[str], words: Sequence[str] = ()) -> Line:
    """Split the tokens of a command line; what cannot be read becomes a fault.

    Args:
        argv: the tokens.
        words: what a token without `=` may have been meant for, as `recipe=<word>`.
    """
    values: dict[str, Any] = {}
    raw: dict[str, str] = {}
    flags: set[str] = set()
    faults: list[str] = []
    for token in argv:
        key, equals, text = token.partition("=")
        if token in FLAGS:
            flags.add(token)
        elif not equals or not _KEY.match(key):
            faults.append(_unreadable(token, words))
        else:
            try:
                parsed = parse(text)
            except ValueError as error:
                faults.append(f"{token}: the value is no valid YAML: {error}; put it in quotes: {key}=\"'...'\"")
                continue
            raw.pop(key, None)
            values[key], raw[key] = parsed, text
    return Line(values, raw, frozenset(flags), tuple(faults))


def _unreadable(token: str, words: Sequence[str]) -> str:
    """The fault of a token that is no `key=value`."""
    bare = token.lstrip("-+~")
    if "=" in bare and _KEY.match(bare.partition("=")[0]):
        return f"{token}: expected key=value; type {bare}"
    if token.startswith("-"):
        return f"{token}: there is no such flag; settings are typed as key=value{hint(token, FLAGS)}"
    if token in words:
        return f"{token}: expected key=value; type recipe={token}"
    return f"{token}: expected key=value, for example seed=1"
