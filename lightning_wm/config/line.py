"""A command line's `key=value`, each value read as YAML or as the text it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_wm.config.store import PARTS, flatten, parse
from lightning_wm.errors import hint

TYPED = "command line"
"""The source of what was typed."""
FLAGS = ("--help", "--print", "--debug", "--version")
Entry = tuple[str, Any, str]
"""A dotted key, its value, and the place where it stands."""
_KEY = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)*")


@dataclass(frozen=True)
class Line:
    """What was typed: `key=value`; of a key that was typed twice the last value counts."""

    values: dict[str, Any] = field(default_factory=dict)
    """Dotted key to its value."""
    raw: dict[str, str] = field(default_factory=dict)
    """Dotted key to the text as typed."""
    faults: tuple[str, ...] = ()
    """What could not be read."""

    def tokens(self) -> list[str]:
        """`key=value` again, each key once."""
        return [f"{key}={text}" for key, text in self.raw.items()]

    def entries(self, keys: Iterable[str]) -> Iterator[Entry]:
        """The leaves of what was typed for some keys, each with its token."""
        for typed in keys:
            value, token = self.values[typed], f"{typed}={self.raw[typed]}"
            inner = flatten(value, f"{typed}.") if isinstance(value, Mapping) and value else [(typed, value)]
            yield from ((key, leaf, token) for key, leaf in inner)


def read_line(
    argv: Sequence[str], words: Sequence[str] = (), texts: Sequence[str] = (), example: str = "seed=1"
) -> Line:
    """Split the tokens of a command line; what cannot be read becomes a fault.

    Args:
        argv: the tokens.
        words: what a token without `=` may have been meant for, as `recipe=<word>`.
        texts: dotted keys whose values are text as typed; others are YAML.
        example: what a fault shows of how settings are typed.
    """
    values: dict[str, Any] = {}
    raw: dict[str, str] = {}
    faults: list[str] = []
    for token in argv:
        key, equals, text = token.partition("=")
        if not equals or not _KEY.fullmatch(key):
            faults += [] if token in FLAGS else [_unreadable(token, words, example)]
            continue
        try:
            value = _value(text, key.partition(".")[0] in (*PARTS, "callbacks"))
        except ValueError as error:
            if key not in texts:
                faults.append(f"{token}: the value is no valid YAML: {error}; put it in quotes: {key}=\"'...'\"")
                continue
            value = text
        raw.pop(key, None)
        values[key], raw[key] = (None if text in ("", "null") else text) if key in texts else value, text
    return Line(values, raw, tuple(faults))


def _value(text: str, loose: bool) -> Any:
    """A typed value: YAML's numbers, words, lists and maps, any other text in full, `#` and all.

    Args:
        text: as typed.
        loose: what is no YAML is a text too, as a part's field may be.

    Raises:
        ValueError: it is no YAML.
    """
    text = text.strip()
    try:
        value = parse(text)
    except ValueError:
        if loose:
            return text
        raise
    comment = value is None and text.startswith("#")
    return text if comment or (isinstance(value, str) and text[:1] not in ("'", '"', "|", ">")) else value


def _unreadable(token: str, words: Sequence[str], example: str) -> str:
    """The fault of a token that is no `key=value`."""
    bare = token.lstrip("-+~")
    if "=" in bare and _KEY.fullmatch(bare.partition("=")[0]):
        return f"{token}: expected key=value; type {bare}"
    if token.startswith("-"):
        return f"{token}: there is no such flag; settings are typed as key=value{hint(token, FLAGS)}"
    return f"{token}: expected key=value{f'; type recipe={token}' if token in words else f', for example {example}'}"
