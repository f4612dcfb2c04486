"""`--help` and the documentation's reference, from the docstrings that follow the fields."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Any, Literal, get_args, get_origin

from lightning_wm import registry
from lightning_wm.config.compose import Composition
from lightning_wm.config.fields import default, kinds_of, members, nested
from lightning_wm.config.keys import texts
from lightning_wm.config.line import Line, read_line
from lightning_wm.config.load import trusted
from lightning_wm.config.schema import Config
from lightning_wm.config.shipped import GROUPS, choices, group_file, names
from lightning_wm.config.store import PARTS, read_tree
from lightning_wm.config.words import MISSING
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
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError, SyntaxError):
            continue
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for field, doc in pairwise(body):
            text = doc.value.value if isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant) else None
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, str):
                texts[field.target.id] = " ".join(text.split())
    return texts


def rows(cls: type, prefix: str = "", base: object = None) -> Iterator[Row]:
    """Every leaf of a dataclass with its type, default and docstring."""
    kinds, about = kinds_of(cls), docstrings(cls)
    for one in dataclasses.fields(cls):
        if one.name not in kinds:
            continue
        value = default(one) if base is None else getattr(base, one.name)
        inner = nested(kinds[one.name])
        if inner is not None and value is not None:
            yield from rows(inner, f"{prefix}{one.name}.", value if isinstance(value, inner) else None)
        else:
            yield Row(prefix + one.name, _kind(kinds[one.name]), _default(value), about.get(one.name, ""))


def help_text(argv: Sequence[str] = ()) -> str:
    """The core's keys; with `planner=cem` (model, agent) that part's fields too, also of the recipe's plugins.

    Raises:
        UserError: a recipe or a part that does not exist, or a plugin that cannot be imported.
    """
    line = read_line([token for token in argv if "=" in token], names(), texts(Config))
    if line.faults:
        raise ConfigError(line.faults)
    text = [_USAGE, _table(rows(Config))]
    text += [f"{group}=<{'|'.join(choices(group))}>" for group in GROUPS]
    typed = {part: str(line.values[part]) for part in PARTS if part in line.values}
    if typed:
        registry.load_plugins(_plugins(line))
    for part, name in typed.items():
        text += ["", *_part_help(part, name)]
    return "\n".join(text)


def _plugins(line: Line) -> list[str]:
    """The plugins that are typed, or that the recipe names."""
    composed = Composition(line)
    if composed.path is None and line.values.get("recipe") is not None:
        raise ConfigError(composed.faults)
    tree = composed.layers.tree
    listed = tree.get("plugins") or []
    modules = listed if isinstance(listed, list) else str(listed).split(",")
    return trusted([str(name).strip() for name in modules], composed.names_plugins, tree.get("trust") is True)


def options_help(cls: type, usage: str) -> str:
    """The options of another command, from its dataclass."""
    return f"{usage.rstrip()}\n\n{_table(row for row in rows(cls) if not row.key.endswith('_fields'))}"


def reference_markdown() -> str:
    """Every key of the core and of every registered part, as Markdown tables."""
    text = ["## Core", "", Config.__doc__ or "", "", *_markdown(rows(Config))]
    for kind in (*PARTS, "callback"):
        for name in registry.names(kind):
            prefix = f"callbacks.{name}." if kind == "callback" else f"{kind}."
            own = [row for row in rows(registry.config_class(kind, name), prefix) if row.key != f"{kind}.name"]
            text += ["", f"## {kind} `{name}`", "", _first(registry.lookup(kind, name)), ""]
            text += _markdown(own) if own else ["No fields of its own."]
    return "\n".join(text) + "\n"


def _part_help(part: str, name: str) -> list[str]:
    """The fields of what `part=name` stands for, with the group file's values as defaults."""
    path = group_file(part, name)
    shipped: Mapping[str, Any] = read_tree(path) if path else {}
    registered = str(shipped.get("name", name))
    table = []
    for row in rows(registry.config_class(part, registered), f"{part}."):
        field = row.key.partition(".")[2]
        table.append(dataclasses.replace(row, default=_default(shipped[field])) if field in shipped else row)
    return [f"{part}={name}: {_first(registry.lookup(part, registered))}", "", _table(table)]


def _table(table: Iterable[Row]) -> str:
    """Rows as text: `key=default  (type)` and the docstring below."""
    lines = []
    for row in table:
        lines.append(f"  {row.key}={row.default}  ({row.kind})")
        lines += textwrap.wrap(row.text, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines) + "\n"


def _markdown(table: Iterable[Row]) -> list[str]:
    lines = ["| key | type | default | |", "|---|---|---|---|"]
    for row in table:
        cells = (f"`{row.key}`", row.kind, f"`{row.default}`", row.text)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def _first(cls: type) -> str:
    """The first line of a class's docstring."""
    return (inspect.getdoc(cls) or "").partition("\n")[0]


def _kind(kind: object) -> str:
    """An annotation in a word or two."""
    words: list[str] = []
    for member in members(kind):
        if get_origin(member) is Literal:
            words += map(str, get_args(member))
        elif get_origin(member) is list:
            words.append(f"list[{_kind(*get_args(member))}]")
        elif isinstance(member, type) and not get_args(member):
            words.append("null" if member is type(None) else member.__name__)
        else:
            words.append("part" if member is Any else str(member).replace("typing.", ""))
    return " | ".join(words)


def _default(value: object) -> str:
    if isinstance(value, str) and value == MISSING:
        return "(required)"
    if isinstance(value, dict) and set(value) == {"name"}:
        return str(value["name"])
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
