"""YAML in and out, and trees of plain values.

OmegaConf's loader has PyYAML's rules, which read `12:30` as 750 and `on` as True, and follows tags and aliases. Here
plain scalars follow YAML 1.2 (plus `1_000`), so both stay text, and a file from elsewhere neither runs code nor grows.
OmegaConf writes nothing either: it cannot hold stored text that looks like `${key}`, and leaves `1e3` without quotes.
"""

from __future__ import annotations

import dataclasses
import errno
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped, unused-ignore]

from lightning_wm.config.fields import default
from lightning_wm.config.schema import Config
from lightning_wm.config.words import MISSING
from lightning_wm.errors import UserError
from lightning_wm.registry import Catalogue

if TYPE_CHECKING:
    from lightning_wm.config.load import Loaded

LARGEST = 500_000
"""Bytes of a YAML file; a recipe with every key has 3,000."""
PARTS = ("model", "agent", "planner")
"""Groups whose class comes from the registry; another name drops all fields of the one before."""
NOT_STORED = ("recipe", "run", "resume", "trust", "smoke")
"""Keys that a run's `config.yaml` lacks: they are about the command, or (smoke) have had their effect."""
Lines = Mapping[tuple[int, str], int]
"""(identity of a mapping in a file, key) to the line that the key stands in."""
_PLAIN = re.compile(r"(?!(?i:true|false|yes|no|on|off|y|n|null|nan|inf)$)[A-Za-z][\w./-]*", re.ASCII)
_TAG = "tag:yaml.org,2002:"
_RULES = {
    "null": r"(?:~|null|Null|NULL|)$",
    "bool": r"(?:true|True|TRUE|false|False|FALSE)$",
    "int": r"[-+]?[0-9]+(?:_[0-9]+)*$|0x[0-9a-fA-F]+$",
    "float": r"[-+]?(?:\.[0-9]+|[0-9]+(?:_[0-9]+)*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"
    r"|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$",
}


# ---- YAML in


class _Loader(yaml.SafeLoader):  # type: ignore[misc, unused-ignore]
    """Text, numbers, booleans, null, lists and mappings, nothing else."""

    yaml_implicit_resolvers = {None: [(_TAG + name, re.compile(rule)) for name, rule in _RULES.items()]}  # noqa: RUF012
    yaml_constructors = {  # noqa: RUF012
        tag: yaml.SafeLoader.yaml_constructors[tag]
        for tag in (_TAG + name for name in ("null", "bool", "float", "str", "seq"))
    }
    depth = 0

    def compose_node(self, parent: object, index: object) -> Any:
        """One node, not too deep, and no anchor or alias: a few of them can describe gigabytes."""
        if self.check_event(yaml.AliasEvent) or self.peek_event().anchor is not None:
            raise yaml.YAMLError("anchors and aliases (&name, *name) are not read; use ${key} instead")
        self.depth += 1
        if self.depth > 50:
            raise yaml.YAMLError("nested too deeply")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def mapping(self, node: Any) -> dict[str, Any]:
        """A mapping whose keys are text and occur once."""
        result: dict[str, Any] = {}
        for key_node, value_node in node.value if isinstance(node, yaml.MappingNode) else [(node, node)]:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str) or key in result:
                why = "is there twice" if isinstance(key, str) else "is no text; put it in quotes"
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} {why}", problem_mark=key_node.start_mark)
            result[key] = self.construct_object(value_node, deep=True)
            self.lines[id(result), key] = key_node.start_mark.line + 1
        return result

    def integer(self, node: Any) -> int:
        """A whole number of 30 digits at most; a leading zero does not make it octal."""
        text = self.construct_scalar(node).replace("_", "")
        if len(text) > 30:
            raise yaml.YAMLError(f"a number of {len(text)} digits; expected 30 at most")
        return int(text, 16 if text.startswith("0x") else 10)

    def unknown(self, node: Any) -> Any:
        """Refuses every other tag (`!!python/object`, `!!binary`, `!!set`, ...)."""
        raise yaml.YAMLError(f"the tag {node.tag!r} is not read; only text, numbers, true, false, null, lists and maps")


_Loader.add_constructor(None, _Loader.unknown)
_Loader.add_constructor(_TAG + "map", _Loader.mapping)
_Loader.add_constructor(_TAG + "int", _Loader.integer)


class _Dumper(yaml.SafeDumper):  # type: ignore[misc, unused-ignore]
    """PyYAML's, with text in quotes unless every reader takes it for text."""


_Dumper.add_representer(
    str, lambda self, text: self.represent_scalar(_TAG + "str", text, None if _PLAIN.fullmatch(text) else '"')
)


def parse(text: str, lines: dict[tuple[int, str], int] | None = None) -> Any:
    """The value of a piece of YAML; where its keys stand goes into `lines`.

    Raises:
        ValueError: it is no YAML, or has a tag, an anchor, an alias or a key that is no text.
    """
    try:
        loader = _Loader(text)
        loader.lines = {} if lines is None else lines
        return loader.get_single_data()
    except (yaml.YAMLError, RecursionError, ValueError, LookupError) as error:
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        problem = (isinstance(error, yaml.MarkedYAMLError) and error.problem) or str(error).partition("\n")[0]
        raise ValueError(problem + (f" (line {mark.line + 1}, column {mark.column + 1})" if mark else "")) from error


def read_tree(path: Path, lines: dict[tuple[int, str], int] | None = None) -> dict[str, Any]:
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
        value = parse(content.decode("utf-8"), lines)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path}: no valid YAML: {error}") from error
    if value is not None and not isinstance(value, dict):
        raise UserError(f"{path}: expected keys and values (key: value), not {type(value).__name__}")
    return value or {}


# ---- trees of plain values


def flatten(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf with its dotted key; an empty mapping is a leaf."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def unflattened(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The tree of some leaves, none of which has a key below another."""
    tree: dict[str, Any] = {}
    for key, value in leaves.items():
        *groups, last = key.split(".")
        node = tree
        for group in groups:
            node = node.setdefault(group, {})
        node[last] = value
    return tree


def laid(*trees: Mapping[str, Any]) -> dict[str, Any]:
    """Trees over each other, the last on top: mappings are merged, whatever else is above replaces what is below."""
    tree: dict[str, Any] = {}
    for above in trees:
        for key, value in above.items():
            inner = tree.get(key)
            tree[key] = laid(inner if isinstance(inner, dict) else {}, value) if isinstance(value, Mapping) else value
    return tree


def plain(value: object) -> Any:
    """Dataclasses and tuples as dicts and lists; other objects as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def completed(tree: Mapping[str, Any], catalogue: Catalogue) -> dict[str, Any]:
    """A tree with the defaults of the core and of the parts that it names."""
    core = plain(Config())
    for part in PARTS:
        named = tree[part].get("name") if isinstance(tree.get(part), Mapping) else core[part]["name"]
        cls = catalogue(part).get(named) if isinstance(named, str) else None
        if cls is not None:
            usual = ((field.name, plain(default(field))) for field in dataclasses.fields(cls))
            core[part] = {key: value for key, value in usual if value != MISSING}
    return laid(core, tree)


# ---- YAML out


def to_yaml(tree: Mapping[str, Any]) -> str:
    """A resolved tree as a run's `config.yaml`, without what is about the command only."""
    return _written(stored(tree), lambda key: "")


def printed(loaded: Loaded) -> str:
    """The resolved configuration, each line with where its value came from; a recipe in itself."""
    tree = {key: value for key, value in loaded.tree.items() if key not in ("recipe", "smoke", "trust")}
    return _written(_escaped(tree), lambda key: f"  # {loaded.sources.get(key, 'default')}")


def _written(tree: Mapping[str, Any], comment: Callable[[str], str], indent: str = "", above: str = "") -> str:
    text = ""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            text += f"{indent}{_inline(key)}:\n" + _written(value, comment, f"{indent}  ", f"{above}{key}.")
        else:
            text += f"{indent}{_inline(key)}: {_inline(value)}{comment(above + key)}\n"
    return text


def _inline(value: object) -> str:
    """A value on one line."""
    text: str = yaml.dump([value], Dumper=_Dumper, default_flow_style=True, width=float("inf"), sort_keys=False)
    return text.strip()[1:-1]


def _escaped(value: object) -> Any:
    """A tree in whose texts `${` is meant as it stands."""
    if isinstance(value, Mapping):
        return {key: _escaped(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_escaped(inner) for inner in value]
    return re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", value) if isinstance(value, str) else value


def stored(tree: Mapping[str, Any]) -> dict[str, Any]:
    """What `config.yaml` of a run keeps of a tree."""
    return {key: value for key, value in tree.items() if key not in NOT_STORED}


def path_of(key: str, text: str) -> Path:
    """A path as it was typed, with `~` expanded.

    Raises:
        UserError: there is no such user's home.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"{key}={text}: no path that can be read ({error})") from error
