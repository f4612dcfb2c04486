"""`--help` and the documentation's reference, from the docstrings that follow the fields."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Any, Literal, get_args, get_origin

from lightning_wm.config.line import read_line
from lightning_wm.config.plugins import load_plugins
from lightning_wm.config.recipes import GROUPS, PARTS, choices, group_file
from lightning_wm.config.schema import Config
from lightning_wm.config.text import read
from lightning_wm.config.walk import MISSING, default, hints, nested
from lightning_wm.errors import ConfigError

_USAGE = """\
python -m lightning_wm.fit recipe=NAME [group=name ...] [key=value ...]

  recipe=list       the shipped recipes
  --print           the resolved configuration, each line with the file it came from
  planner=cem --help  also the fields of a part (model, agent, planner)
"""


@dataclasses.dataclass(frozen=True)
class Row:
    """One key of the reference."""

    key: str
    kind: str
    default: str
    text: str


@cache
def docstrings(cls: type) -> dict[str, str]:
    """The docstring that follows each field, inherited ones included; empty where there is no source."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError, SyntaxError):
            continue
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for field, text in pairwise(body):
            said = text.value.value if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) else None
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(said, str):
                found[field.target.id] = " ".join(said.split())
    return found


def rows(cls: type, prefix: str = "", base: Any = None) -> Iterator[Row]:
    """Every leaf of a dataclass with its type, default and docstring."""
    kinds, texts = hints(cls), docstrings(cls)
    for one in dataclasses.fields(cls):
        if one.name not in kinds:
            continue
        value = default(one) if base is None else getattr(base, one.name)
        inner = nested(kinds[one.name])
        if inner is not None and value is not None:
            yield from rows(inner, f"{prefix}{one.name}.", value if isinstance(value, inner) else None)
        else:
            yield Row(prefix + one.name, _kind(kinds[one.name]), _default(value), texts.get(one.name, ""))


def help_text(argv: Sequence[str] = ()) -> str:
    """The core's keys; with `planner=cem` (model, agent) that part's fields too.

    Raises:
        UserError: a part that does not exist, or a plugin that cannot be imported.
    """
    line = read_line([token for token in argv if "=" in token])
    if line.faults:
        raise ConfigError(line.faults)
    text = [_USAGE, _table(rows(Config))]
    text += [f"{group}=<{'|'.join(choices(group))}>" for group in GROUPS]
    parts = {part: str(line.values[part]) for part in PARTS if part in line.values}
    if parts:
        plugins = line.values.get("plugins") or []
        load_plugins(plugins if isinstance(plugins, list) else str(plugins).split(","))
    for part, name in parts.items():
        text += ["", *_part_help(part, name)]
    return "\n".join(text)


def options_help(cls: type, usage: str) -> str:
    """The options of another command, from its dataclass."""
    return f"{usage.rstrip()}\n\n{_table(row for row in rows(cls) if not row.key.endswith('_fields'))}"


def reference_markdown() -> str:
    """Every key of the core and of every registered part, as Markdown tables."""
    from lightning_wm import registry
    from lightning_wm.config.parts import fields

    text = ["## Core", "", Config.__doc__ or "", "", *_markdown(rows(Config))]
    for kind in (*PARTS, "callback"):
        for name in registry.names(kind):
            cls = fields(kind, name)
            prefix = f"callbacks.{name}." if kind == "callback" else f"{kind}."
            own = [row for row in rows(cls, prefix) if row.key != f"{kind}.name"]
            text += ["", f"## {kind} `{name}`", "", _first(registry.lookup(kind, name)), ""]
            text += _markdown(own) if own else ["No fields of its own."]
    return "\n".join(text) + "\n"


def _part_help(part: str, name: str) -> list[str]:
    """The fields of what `part=name` stands for, with the group file's values as defaults."""
    from lightning_wm import registry
    from lightning_wm.config.parts import fields

    path = group_file(part, name)
    said: Mapping[str, Any] = read(path) if path else {}
    registered = str(said.get("name", name))
    own = [
        dataclasses.replace(row, default=_default(said[row.key.partition(".")[2]]))
        if row.key.partition(".")[2] in said
        else row
        for row in rows(fields(part, registered), f"{part}.")
    ]
    return [f"{part}={name}: {_first(registry.lookup(part, registered))}", "", _table(own)]


def _table(table: Iterator[Row] | Sequence[Row]) -> str:
    """Rows as text: `key=default  (type)` and the docstring below."""
    lines = []
    for row in table:
        lines.append(f"  {row.key}={row.default}  ({row.kind})")
        lines += textwrap.wrap(row.text, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines) + "\n"


def _markdown(table: Iterator[Row] | Sequence[Row]) -> list[str]:
    lines = ["| key | type | default | |", "|---|---|---|---|"]
    for row in table:
        cells = (f"`{row.key}`", row.kind, f"`{row.default}`", row.text)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def _first(cls: type) -> str:
    """The first line of a class's docstring."""
    return (inspect.getdoc(cls) or "").partition("\n")[0]


def _kind(kind: Any) -> str:
    """An annotation in a word or two."""
    if get_origin(kind) is Literal:
        return ", ".join(str(one) for one in get_args(kind))
    if kind is Any:
        return "part"
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind).replace("typing.", "")


def _default(value: Any) -> str:
    if isinstance(value, str) and value == MISSING:
        return "(required)"
    if isinstance(value, dict) and set(value) == {"name"}:
        return str(value["name"])
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
