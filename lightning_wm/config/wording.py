"""What is said of a value that does not fit: where it came from, what was expected, what to type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from lightning_wm.config.keys import dotted
from lightning_wm.config.line import TYPED
from lightning_wm.config.words import Fault
from lightning_wm.errors import hint

FEW = 6
"""Keys of a group that are all named where one is misspelled."""


class Part(NamedTuple):
    """What has the fields that are checked."""

    name: str
    others: Mapping[str, type | None]
    """Parts of its kind by name, itself among them."""


@dataclass
class Wording:
    """Where values came from, and what was found wrong with them."""

    sources: Mapping[str, str] = field(default_factory=dict)
    """Dotted key to the file it came from, or `command line`."""
    raw: Mapping[str, str] = field(default_factory=dict)
    """Dotted key to the text as typed."""
    faults: list[str] = field(default_factory=list)
    """What was found wrong so far."""
    examples: Mapping[str, str] = field(default_factory=dict)
    """What to type for a key that is missing."""

    def said(self, key: str, value: object) -> str:
        """`key=value (in file)`, the value as typed where it was typed."""
        near = (source for name, source in self.sources.items() if name.startswith(f"{key}."))
        source = self.sources.get(key) or next(near, TYPED)
        where = "" if source == TYPED else f" (in {source})"
        text = self.raw.get(key) if source == TYPED else None
        shown = text if text is not None else "null" if value is None else str(value)
        return f"{key}{where}" if isinstance(value, Mapping) else f"{key}={shown[:80]}{where}"

    def worded(self, fault: Fault, place: str, known: Sequence[str], of: Part | None) -> str:
        """A fault with where its value came from and what to type."""
        key, said = fault.key, self.said(fault.key, fault.value)
        if fault.kind == "rule":
            part = key.partition(".")[0]
            whole = not part or fault.message.startswith((f"{part}.", f"{part}:"))
            return fault.message if whole else f"{part}: {fault.message}"
        if fault.kind == "missing":
            example = self.examples.get(key, fault.example)
            return f"{key}: missing; type e.g. {key}={'...' if example is None else example}"
        if fault.kind == "unknown" and of is None:
            return f"{said}: there is no such key{hint(key, known)}{_siblings(key, known)}"
        if fault.kind == "unknown" and of is not None:
            others = (name for name, cls in of.others.items() if cls and key in dotted(cls, f"{place}."))
            near = hint(key, known) or "; it has " + ", ".join(one.partition(".")[2] for one in known)
            if having := list(others):
                near = f", but {', '.join(having)} has; type {place}={having[0]} beside it, or leave it out"
            return f"{said}: {place} {of.name!r} has no such field{near}"
        below = next((inner for inner in known if inner.startswith(f"{key}.")), None)
        if below is not None:
            return f"{said}: {fault.message}; write {key}: {{{below.removeprefix(f'{key}.')}: ...}}, or leave it out"
        shown = str(fault.example).lower() if isinstance(fault.example, bool) else fault.example
        advice = "" if shown is None or "type e.g." in fault.message else f"; type e.g. {key}={shown}"
        return f"{said}: {fault.message}{advice}"


def _siblings(key: str, known: Sequence[str]) -> str:
    """The keys of the same small group."""
    group = key.rpartition(".")[0]
    names = [each.rpartition(".")[2] for each in known if group and each.rpartition(".")[0] == group]
    return f" Known there: {', '.join(names)}." if 0 < len(names) <= FEW else ""
