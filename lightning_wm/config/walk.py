"""One pass over a tree against a dataclass: every fault at once, each with its nearest right name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from typing import Any, get_args, get_type_hints

from lightning_wm.config.compose import TYPED
from lightning_wm.config.convert import MismatchError, convert
from lightning_wm.config.ranges import Range
from lightning_wm.errors import UserError, hint

DEFAULT = "default"
"""The source of what nobody said."""
MISSING = "???"
"""OmegaConf's mark of a value that has to be given."""


@cache
def hints(cls: type[Any]) -> dict[str, Any]:
    """A dataclass's fields and what they are annotated with.

    Raises:
        UserError: an annotation names what cannot be found.
    """
    try:
        found = get_type_hints(cls)
    except Exception as error:
        raise UserError(f"{cls.__module__}.{cls.__qualname__}: its annotations cannot be read ({error})") from error
    return {one.name: found[one.name] for one in dataclasses.fields(cls) if one.init}


def nested(kind: Any) -> type | None:
    """The dataclass of a field that is one (or may be null), else None."""
    for one in (kind, *get_args(kind)):
        if isinstance(one, type) and dataclasses.is_dataclass(one):
            return one
    return None


def dotted(cls: type, prefix: str = "") -> dict[str, Any]:
    """Dotted keys of every field of a dataclass, groups included, and what they are annotated with."""
    keys = {}
    for name, kind in hints(cls).items():
        keys[prefix + name] = kind
        inner = nested(kind)
        if inner is not None:
            keys.update(dotted(inner, f"{prefix}{name}."))
    return keys


def default(one: dataclasses.Field[Any]) -> Any:
    """A field's default, `MISSING` where it has none."""
    if one.default_factory is not dataclasses.MISSING:
        return one.default_factory()
    return MISSING if one.default is dataclasses.MISSING else one.default


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
    ranges: Mapping[str, Range] = dataclasses.field(default_factory=dict)
    examples: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What to type for a key without a default."""
    faults: list[str] = dataclasses.field(default_factory=list)

    def build(self, cls: type, tree: Any, prefix: str = "", base: Any = None) -> Any:
        """An instance of `cls`, or None where something in `tree` does not fit (then in `faults`).

        Args:
            cls: a dataclass.
            tree: what was said; fields it lacks have their defaults.
            prefix: dotted key of the tree, with its last dot.
            base: an instance whose values are the defaults instead of the class's.
        """
        if not isinstance(tree, Mapping):
            self.faults.append(f"{self._said(prefix.rstrip('.'), tree)}: expected keys and values ({{key: value}})")
            return None
        before = len(self.faults)
        fields = hints(cls)
        values = {}
        for name in tree:
            if name not in fields:
                self.faults.append(self.unknown(prefix + name, tree[name]))
        for one in dataclasses.fields(cls):
            if one.name in fields:
                unsaid = default(one) if base is None else getattr(base, one.name)
                values[one.name] = self._field(prefix + one.name, fields[one.name], tree.get(one.name, MISSING), unsaid)
        if len(self.faults) > before:
            return None
        return self._make(cls, values, prefix)

    def unknown(self, key: str, value: Any) -> str:
        """The fault of a key that does not exist."""
        return f"{self._said(key, value)}: there is no such key{hint(key, self.known)}"

    def _field(self, key: str, kind: Any, value: Any, unsaid: Any) -> Any:
        """A field's value: what was said, or what holds where nothing was."""
        said = not (isinstance(value, str) and value == MISSING)
        inner = nested(kind)
        if inner is not None and (value is not None if said else unsaid is not None):
            return self.build(inner, value if said else {}, f"{key}.", unsaid if isinstance(unsaid, inner) else None)
        if not said:
            if isinstance(unsaid, str) and unsaid == MISSING:
                self.faults.append(f"{key}: missing; type e.g. {key}={self.examples.get(key, '...')}")
            return unsaid
        try:
            value = convert(value, kind, self._typed(key))
        except MismatchError as error:
            self.faults.append(f"{self._said(key, value)}: expected {error}{self._such_as(key, unsaid)}")
            return None
        fault = self.ranges[key].fault(key, value) if key in self.ranges else None
        if fault:
            self.faults.append(fault + self._where(key))
        return value

    def _make(self, cls: type, values: dict[str, Any], prefix: str) -> Any:
        """The instance; what its `__post_init__` objects to is a fault."""
        try:
            return cls(**values)
        except (ValueError, UserError) as error:
            part = prefix.partition(".")[0]
            said = str(error)
            self.faults.append(said if not part or said.startswith((f"{part}.", f"{part}:")) else f"{part}: {said}")
            return None

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

    def _such_as(self, key: str, unsaid: Any) -> str:
        value = self.examples.get(key, unsaid)
        if value is None or value == MISSING or isinstance(value, list | tuple | dict):
            return ""
        return f"; type e.g. {key}={str(value).lower() if isinstance(value, bool) else value}"
