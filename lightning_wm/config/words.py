"""What is wrong with a field, in words: the one place where pydantic's errors are put into the project's language."""

from __future__ import annotations

import math
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from lightning_wm.errors import ConfigError, hint

_KINDS: Mapping[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "null",
}
_BOUNDS: Mapping[str, tuple[str, str]] = {
    "greater_than_equal": ("ge", "at least {:g}"),
    "greater_than": ("gt", "more than {:g}"),
    "less_than_equal": ("le", "at most {:g}"),
    "less_than": ("lt", "less than {:g}"),
    "multiple_of": ("multiple_of", "a multiple of {:g}"),
}
MAPPING = "keys and values ({key: value})"
MISSING = "???"
"""OmegaConf's mark of a value that has to be given."""
LARGEST = 2**63
"""No whole number of a configuration is as large."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a setting."""

    key: str
    """Dotted key; of a rule across fields, the place of the part."""
    value: object
    """What was given."""
    message: str
    """What was expected; of a rule, the whole sentence."""
    kind: Literal["unknown", "missing", "type", "bound", "rule"]
    example: object = None
    """A value that would do, None where there is none to name."""

    def __str__(self) -> str:
        if self.kind == "rule":
            return self.message
        return f"{self.key}: {self.message}" if self.kind == "missing" else f"{self.key}={self.value}: {self.message}"


class FieldFaults(ConfigError, ValueError):
    """Everything that is wrong with an object's settings, each a line."""

    def __init__(self, fields: Iterable[Fault]) -> None:
        self.fields = tuple(fields)
        super().__init__([str(fault) for fault in self.fields])


def expected(kind: object) -> str:
    """What a field of this annotation takes, in words."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return expected(arguments[0])
    if origin in (Union, types.UnionType):
        return " or ".join(expected(member) for member in arguments)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is tuple and Ellipsis not in arguments:
        return f"a list of {len(arguments)}"
    if origin in (list, tuple, Sequence):
        return f"a list, each {expected(arguments[0])}" if arguments else "a list"
    if origin in (dict, Mapping) or kind is dict:
        return MAPPING
    return "anything" if kind is Any else _KINDS.get(kind, getattr(kind, "__name__", str(kind)))


def notes(kind: Any) -> Iterator[FieldInfo]:
    """What `Field(...)` says in an annotation: `description` is what the value may be, `examples` what to type."""
    if get_origin(kind) is Annotated:
        yield from (note for note in kind.__metadata__ if isinstance(note, FieldInfo))
    for member in get_args(kind):
        yield from notes(member)


def choices(kind: object) -> list[Any]:
    """The words that a field takes where it takes no others."""
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return [choice for member in get_args(kind) for choice in choices(member)]


def example(kind: object, usual: object) -> Any:
    """What to type for a field: its annotation's example, else its default where that is a plain value."""
    named = next((note.examples[0] for note in notes(kind) if note.examples), usual)
    return named if isinstance(named, bool | int | float | str) and named != MISSING else None


def of_field(error: ErrorDetails, key: str, kind: object, value: object, usual: object) -> Fault:
    """One of pydantic's errors about a field.

    Args:
        error: an entry of `ValidationError.errors()`.
        key: the field's dotted key.
        kind: its annotation, bounds included.
        value: what was given for the whole field.
        usual: the field's default.
    """
    what, context, named = error["type"], error.get("ctx", {}), example(kind, usual)
    described = next((note.description for note in notes(kind) if note.description), None)
    if what == "literal_error":
        near = hint(value, [word for word in choices(kind) if isinstance(word, str)]) if isinstance(value, str) else ""
        return Fault(key, value, f"expected {described or expected(kind)}{near}", "bound", None if near else named)
    if what == "finite_number":
        words = "a number" if isinstance(value, float) and math.isnan(value) else described or "a finite number"
        return Fault(key, value, f"expected {words}", "bound", named)
    if what in _BOUNDS:
        return Fault(key, value, f"expected {described or _bound(what, context)}", "bound", named)
    if what in ("value_error", "assertion_error", "string_pattern_mismatch"):  # of a field's own validator
        words = f"expected {described}" if described else str(context.get("error", error["msg"]))
        return Fault(key, value, words, "bound", named if described else None)
    quotes = " (put it in quotes)" if what == "string_type" and isinstance(value, bool | int | float) else ""
    return Fault(key, value, f"expected {expected(kind)}{quotes}", "type", named)


def _bound(what: str, context: Mapping[str, Any]) -> str:
    name, words = _BOUNDS[what]
    if what == "greater_than" and context[name] == 0:
        return "a positive number"
    return words.format(context[name])
