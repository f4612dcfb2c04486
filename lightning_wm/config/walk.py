"""One pass over a tree against a dataclass: every fault at once, each with its nearest right name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lightning_wm.config.fields import build, default, kinds_of, nested, unbounded
from lightning_wm.config.names import hint
from lightning_wm.config.words import MISSING, Fault, FieldFaults

TYPED, DEFAULT = "command line", "default"
"""Sources that are no file."""
__all__ = ["DEFAULT", "MISSING", "TYPED", "Walk", "default", "dotted", "hints", "nested", "plain"]


def hints(cls: Any) -> dict[str, Any]:
    """A dataclass's fields and what they are annotated with, without their bounds.

    Raises:
        UserError: an annotation names what cannot be found.
    """
    return {name: unbounded(kind) for name, kind in kinds_of(cls).items()}


def dotted(cls: type, prefix: str = "") -> list[str]:
    """Dotted keys of every field of a dataclass, groups included."""
    keys = []
    for name, kind in hints(cls).items():
        keys.append(prefix + name)
        inner = nested(kind)
        if inner is not None:
            keys.extend(dotted(inner, f"{prefix}{name}."))
    return keys


def plain(value: Any) -> Any:
    """Dataclasses and tuples as dicts and lists; other objects as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


@dataclasses.dataclass
class Walk:
    """Collects faults while building dataclasses from a tree."""

    known: list[str]
    """Every right dotted key, for nearest names."""
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict)
    raw: Mapping[str, str] = dataclasses.field(default_factory=dict)
    examples: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What to type for a key without a default."""
    faults: list[str] = dataclasses.field(default_factory=list)

    def build(self, cls: type, tree: Any, prefix: str = "") -> Any:
        """An instance of `cls`, or None where something in `tree` does not fit (then in `faults`).

        Args:
            cls: a dataclass.
            tree: what was said; fields it lacks have their defaults.
            prefix: dotted key of the tree, with its last dot.
        """
        typed = {key: text for key, text in self.raw.items() if self.sources.get(key) == TYPED}
        try:
            return build(cls, tree, prefix.rstrip("."), typed)
        except FieldFaults as error:
            self.faults.extend(self._line(fault) for fault in error.fields)
            return None

    def unknown(self, key: str, value: Any) -> str:
        """The fault of a key that does not exist."""
        return f"{self._said(key, value)}: there is no such key{hint(key, self.known)}"

    def _line(self, fault: Fault) -> str:
        """A fault with its source and what to type."""
        key, part = fault.key, fault.key.partition(".")[0]
        if fault.kind == "unknown":
            return self.unknown(key, fault.value)
        if fault.kind == "missing":
            example = "..." if fault.example is None else fault.example
            return f"{key}: missing; type e.g. {key}={self.examples.get(key, example)}"
        if fault.kind == "rule":
            alone = not part or fault.message.startswith((f"{part}.", f"{part}:"))
            return fault.message if alone else f"{part}: {fault.message}"
        advice = self.examples.get(key, fault.example)
        shown = str(advice).lower() if isinstance(advice, bool) else advice
        such_as = "" if advice is None or "type e.g." in fault.message else f"; type e.g. {key}={shown}"
        return f"{self._said(key, fault.value)}: {fault.message}{such_as}"

    def _said(self, key: str, value: Any) -> str:
        """`key=value (file)`, the value as typed where it was typed."""
        if isinstance(value, Mapping):
            return f"{key}{self._where(key)}"
        text = self._typed(key)
        shown = text if text is not None else "null" if value is None else str(value)
        return f"{key}={shown[:80]}{self._where(key)}"

    def _typed(self, key: str) -> str | None:
        """The text of a key that was typed."""
        return self.raw.get(key) if self.sources.get(key) == TYPED else None

    def _where(self, key: str) -> str:
        source = self.sources.get(key)
        if source is None:
            source = next((one for name, one in self.sources.items() if name.startswith(f"{key}.")), None)
        return "" if source in (None, TYPED, DEFAULT) else f" (in {source})"
