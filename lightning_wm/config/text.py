"""YAML in, plain containers out: text, numbers, booleans, null, lists and mappings, nothing else.

PyYAML's own rules read `12:30` as 750 and `on` as True; here plain scalars
follow YAML 1.2 (plus `1_000`), so both stay text. No tag constructs an object
and no alias is followed, so a file from elsewhere can neither run code nor grow.
"""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]

from lightning_wm.errors import UserError

_DIGITS = 30
LARGEST = 500_000
"""Bytes of a YAML file; a recipe with every key has 3,000."""
_TAG = "tag:yaml.org,2002:"
_RULES = {
    "bool": (r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    "int": (r"^[-+]?[0-9][0-9_]*$|^0x[0-9a-fA-F]+$", "-+0123456789"),
    "float": (
        r"^[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$",
        "-+.0123456789",
    ),
    "null": (r"^(?:~|null|Null|NULL|)$", "~nN"),
}


class _Loader(yaml.SafeLoader):  # type: ignore[misc, unused-ignore]
    """PyYAML's safe loader with YAML 1.2's plain scalars and without tags or aliases."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (PyYAML's own name and type)
    yaml_constructors: dict[Any, Any] = {}  # noqa: RUF012

    def compose_node(self, parent: Any, index: Any) -> Any:
        """One node; an alias is refused, since a few of them can describe gigabytes."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("anchors and aliases (&name, *name) are not read; use ${key} instead")
        return super().compose_node(parent, index)

    def mapping(self, node: Any) -> dict[str, Any]:
        """A mapping whose keys are text and occur once."""
        if not isinstance(node, yaml.MappingNode):
            raise yaml.YAMLError("expected a mapping after !!map")
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.YAMLError(f"the key {key!r} is no text; put it in quotes")
            if key in result:
                raise yaml.YAMLError(f"the key {key!r} is there twice")
            result[key] = self.construct_object(value_node, deep=True)
        return result

    def sequence(self, node: Any) -> list[Any]:
        """A list."""
        if not isinstance(node, yaml.SequenceNode):
            raise yaml.YAMLError("expected a list after !!seq")
        return [self.construct_object(item, deep=True) for item in node.value]

    def integer(self, node: Any) -> int:
        """A whole number; a leading zero does not make it octal."""
        text = self.construct_scalar(node).replace("_", "")
        if len(text) > _DIGITS:
            raise yaml.YAMLError(f"a number of {len(text)} digits; expected {_DIGITS} at most")
        return int(text, 16 if text.startswith("0x") else 10)

    def number(self, node: Any) -> float:
        """A floating-point number, `.inf` and `.nan` included."""
        text = self.construct_scalar(node).replace("_", "").lower()
        return float(re.sub(r"\.(inf|nan)$", r"\1", text))

    def unknown(self, node: Any) -> Any:
        """Refuses every other tag (`!!python/object`, `!!binary`, `!!set`, ...)."""
        raise yaml.YAMLError(f"the tag {node.tag!r} is not read; only text, numbers, true, false, null, lists and maps")


for _name, (_pattern, _first) in _RULES.items():
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(_pattern), [*_first, ""] if _name == "null" else [*_first])
for _name, _construct in {
    "null": lambda loader, node: None,
    "bool": lambda loader, node: loader.construct_scalar(node).lower() == "true",
    "int": _Loader.integer,
    "float": _Loader.number,
    "str": lambda loader, node: loader.construct_scalar(node),
    "seq": _Loader.sequence,
    "map": _Loader.mapping,
}.items():
    _Loader.add_constructor(_TAG + _name, _construct)
_Loader.add_constructor(None, _Loader.unknown)


def parse(text: str) -> Any:
    """The value of a piece of YAML.

    Raises:
        ValueError: it is no YAML, or has a tag, an alias or a key that is no text.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError(_short(error)) from error


def read(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, as plain containers; interpolations stay text.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    try:
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, "it is not there, or no plain file")
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ValueError(f"it has more than {LARGEST:,} bytes")
        value = parse(content.decode("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path}: no valid YAML: {error}") from error
    if value is not None and not isinstance(value, dict):
        raise UserError(f"{path}: expected keys and values (key: value), found {type(value).__name__}")
    return value or {}


def _short(error: BaseException) -> str:
    """One line of a parser's message, with the place where it has one."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    mark = getattr(error, "problem_mark", None)
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else problem
