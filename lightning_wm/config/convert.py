"""A YAML value becomes what a field is annotated with, or says what was expected."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "null",
}
_SHORTER = "a whole number of 18 digits at most"
_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class MismatchError(Exception):
    """A value does not fit its annotation; the message is what was expected."""


def expected(kind: Any) -> str:
    """What a field of this annotation takes, in words."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(expected(one) for one in arguments)
    if origin is Literal:
        return "one of " + ", ".join(str(one) for one in arguments)
    if origin in (list, tuple, Sequence):
        inner = expected(arguments[0]) if arguments else "anything"
        return f"a list, each {inner}"
    if origin in (dict, Mapping):
        return "keys and values ({key: value})"
    return _WORDS.get(kind, getattr(kind, "__name__", str(kind)))


def convert(value: Any, kind: Any, raw: str | None = None) -> Any:
    """`value` as `kind`.

    Args:
        value: what YAML made of it.
        kind: the field's annotation.
        raw: the text as typed, which a text field takes even where YAML sees a number.

    Raises:
        MismatchError: it does not fit; nothing is rounded and no boolean is a number.
    """
    origin = get_origin(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return _union(value, kind, raw)
    if origin is Literal:
        return _literal(value, kind, raw)
    if origin in (list, tuple, Sequence) or kind in (list, tuple):
        return _sequence(value, kind, raw)
    if origin in (dict, Mapping) or kind is dict:
        return _mapping(value, kind)
    if kind in _SCALARS:
        return _SCALARS[kind](value, raw)
    if isinstance(kind, type) and isinstance(value, kind):
        return value
    raise MismatchError(expected(kind))


def _integer(value: Any, raw: str | None) -> int:
    if isinstance(value, float) and abs(value) <= 2**53 and value.is_integer():
        return int(value)  # 1e3 is a whole number too, as far as floating point counts
    if isinstance(value, bool) or not isinstance(value, int):
        raise MismatchError(expected(int))
    if abs(value) >= 2**63:
        raise MismatchError(_SHORTER)
    return value


def _number(value: Any, raw: str | None) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise MismatchError(expected(float))
    if isinstance(value, int) and abs(value) >= 2**63:
        raise MismatchError(_SHORTER)
    return float(value)


def _boolean(value: Any, raw: str | None) -> bool:
    if isinstance(value, str) and value.lower() in _TRUTH:
        return _TRUTH[value.lower()]
    if not isinstance(value, bool):
        raise MismatchError(expected(bool))
    return value


def _string(value: Any, raw: str | None) -> str:
    if isinstance(value, str):
        return value
    if raw is not None and isinstance(value, bool | int | float):
        return raw
    raise MismatchError("text" if value is None or isinstance(value, list | dict) else "text (put it in quotes)")


def _none(value: Any, raw: str | None) -> None:
    if value is not None:
        raise MismatchError(expected(type(None)))


_SCALARS: dict[Any, Callable[[Any, str | None], Any]] = {
    int: _integer,
    float: _number,
    bool: _boolean,
    str: _string,
    type(None): _none,
}


def _union(value: Any, kind: Any, raw: str | None) -> Any:
    """The member whose type it has already, else the first that takes it."""
    members = sorted(get_args(kind), key=lambda one: type(value) is not one)
    said = []
    for one in members:
        try:
            return convert(value, one, raw)
        except MismatchError as error:
            said.append(str(error))
    raise MismatchError(" or ".join(said))


def _literal(value: Any, kind: Any, raw: str | None) -> Any:
    for one in get_args(kind):
        if (type(one) is type(value) and one == value) or (isinstance(one, str) and one == raw):
            return one
    raise MismatchError(expected(kind))


def _sequence(value: Any, kind: Any, raw: str | None) -> Any:
    """A list, or for text fields `a,b` as it is typed on a command line."""
    make = tuple if (get_origin(kind) or kind) is tuple else list
    arguments = [one for one in get_args(kind) if one is not Ellipsis] or [Any]
    if arguments[0] is str and isinstance(value, str | int | float):
        text = value if isinstance(value, str) else raw
        value = [part.strip() for part in text.split(",") if part.strip()] if text is not None else value
    if not isinstance(value, list | tuple):
        raise MismatchError(expected(kind))
    if make is tuple and Ellipsis not in get_args(kind) and get_args(kind):
        if len(value) != len(arguments):
            raise MismatchError(f"a list of {len(arguments)}")
        return tuple(convert(item, one) for item, one in zip(value, arguments, strict=True))
    return make(convert(item, arguments[0]) for item in value)


def _mapping(value: Any, kind: Any) -> dict[str, Any]:
    inner = (get_args(kind) or (str, Any))[1]
    if not isinstance(value, dict):
        raise MismatchError(expected(kind) if get_args(kind) else "keys and values ({key: value})")
    return {key: convert(item, inner) for key, item in value.items()}
