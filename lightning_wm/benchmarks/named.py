"""A part as it is written on a command line: its name, and fields of its own after colons."""

from __future__ import annotations

from typing import Any

from lightning_wm.config.store import laid, parse
from lightning_wm.errors import UserError


def named(option: str, written: str, example: str) -> tuple[str, dict[str, Any]]:
    """The name, and the fields as a tree, of `name` or `name:field=value:group.field=value`.

    Args:
        option: where it was typed, for the message.
        written: as typed.
        example: a field of such a part, for the message.

    Raises:
        UserError: a part is no field=value.
    """
    name, *parts = written.split(":")
    fields: dict[str, Any] = {}
    for part in parts:
        key, equals, text = part.partition("=")
        if not equals:
            raise UserError(f"{option}={written}: {part!r} is no field=value; type e.g. {option}={name}:{example}")
        value: Any = parse(text)
        for inner in reversed(key.split(".")):
            value = {inner: value}
        fields = laid(fields, value)
    return name, fields
