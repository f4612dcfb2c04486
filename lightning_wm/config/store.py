"""YAML in and out, the run directory, and what may differ when a run goes on.

PyYAML's rules, which OmegaConf's loader shares, read `12:30` as 750 and `on` as True. Here plain scalars follow
YAML 1.2 (plus `1_000`), so both stay text; no tag constructs an object and no anchor or alias is followed, so a file
from elsewhere can neither run code nor grow. What is written is quoted where any YAML reader could take text for
something else. OmegaConf writes nothing here: a stored text may look like `${key}`, which it cannot hold as text.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped, unused-ignore]

from lightning_wm.errors import UserError

if TYPE_CHECKING:
    from lightning_wm.config.load import Loaded

LARGEST = 500_000
"""Bytes of a YAML file; a recipe with every key has 3,000."""
_DEEPEST, _DIGITS, _TAG = 50, 30, "tag:yaml.org,2002:"
_RULES = {
    "bool": (r"(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    "int": (r"[-+]?[0-9]+(?:_[0-9]+)*$|0x[0-9a-fA-F]+$", "-+0123456789"),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:_[0-9]+)*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$",
        "-+.0123456789",
    ),
    "null": (r"(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
}
Lines = Mapping[tuple[int, str], int]
"""(identity of a mapping in a file, key) to the line that the key stands in."""
NOT_STORED = ("recipe", "run", "resume", "trust", "smoke")
"""Keys that a run's `config.yaml` lacks: they are about the command, or (smoke) have had their effect."""
_FREE = ("env_steps", "run", "resume", "recipe", "trust", "plugins", "rollout.failures", "rollout.failure_window")
_FREE_GROUPS = ("evaluation", "logging", "callbacks")
_PLAIN = re.compile(r"(?!(?i:true|false|yes|no|on|off|y|n|null|nan|inf)$)[A-Za-z][\w./-]*", re.ASCII)


class _Loader(yaml.SafeLoader):  # type: ignore[misc, unused-ignore]
    """Text, numbers, booleans, null, lists and mappings, nothing else."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (PyYAML's own name and type)
    yaml_constructors: dict[Any, Any] = {}  # noqa: RUF012

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0
        self.lines: dict[tuple[int, str], int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """One node, not too deep, without an anchor and no alias: a few of them can describe gigabytes."""
        if self.check_event(yaml.AliasEvent) or self.peek_event().anchor is not None:
            raise yaml.YAMLError("anchors and aliases (&name, *name) are not read; use ${key} instead")
        self.depth += 1
        if self.depth > _DEEPEST:
            raise yaml.YAMLError("nested too deeply")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

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
            self.lines[id(result), key] = key_node.start_mark.line + 1
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
        return float(re.sub(r"\.(inf|nan)$", r"\1", self.construct_scalar(node).replace("_", "").lower()))

    def unknown(self, node: Any) -> Any:
        """Refuses every other tag (`!!python/object`, `!!binary`, `!!set`, ...)."""
        raise yaml.YAMLError(f"the tag {node.tag!r} is not read; only text, numbers, true, false, null, lists and maps")


for _name, (_pattern, _first) in _RULES.items():
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(_pattern), list(_first))
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


class _Dumper(yaml.SafeDumper):  # type: ignore[misc, unused-ignore]
    """PyYAML's, with text in quotes unless every reader takes it for text."""


_Dumper.add_representer(
    str, lambda self, text: self.represent_scalar(_TAG + "str", text, None if _PLAIN.fullmatch(text) else '"')
)


def parse(text: str) -> Any:
    """The value of a piece of YAML.

    Raises:
        ValueError: it is no YAML, or has a tag, an anchor, an alias or a key that is no text.
    """
    return _parse(text)[0]


def read_tree(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, as plain containers; interpolations stay text.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    return read_lines(path)[0]


def read_lines(path: Path) -> tuple[dict[str, Any], Lines]:
    """The same, and where its keys stand."""
    try:
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, "it is not there, or no plain file")
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ValueError(f"it has more than {LARGEST:,} bytes")
        value, lines = _parse(content.decode("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path}: no valid YAML: {error}") from error
    if value is not None and not isinstance(value, dict):
        raise UserError(f"{path}: expected keys and values (key: value), found {type(value).__name__}")
    return value or {}, lines


def _parse(text: str) -> tuple[Any, Lines]:
    try:
        loader = _Loader(text)
        return loader.get_single_data(), loader.lines
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""
        raise ValueError(problem + place) from error


def to_yaml(tree: Mapping[str, Any]) -> str:
    """A resolved tree as a run's `config.yaml`, without what is about the command only."""
    return "\n".join(_lines(stored(tree), "", "", lambda key: "")) + "\n"


def printed(loaded: Loaded) -> str:
    """The resolved configuration, each line with where its value came from; a recipe in itself."""
    tree = {key: value for key, value in loaded.tree.items() if key not in ("recipe", "smoke", "trust")}
    return "\n".join(_lines(_escaped(tree), "", "", lambda key: f"  # {loaded.sources.get(key, 'default')}")) + "\n"


def _lines(tree: Mapping[str, Any], indent: str, prefix: str, comment: Callable[[str], str]) -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield f"{indent}{_inline(key)}:"
            yield from _lines(value, f"{indent}  ", f"{prefix}{key}.", comment)
        else:
            yield f"{indent}{_inline(key)}: {_inline(value)}{comment(prefix + key)}"


def _inline(value: Any) -> str:
    """A value on one line."""
    text: str = yaml.dump([value], Dumper=_Dumper, default_flow_style=True, width=float("inf"), sort_keys=False)
    return text.strip()[1:-1]


def _escaped(value: Any) -> Any:
    """A tree in whose texts `${` is meant as it stands."""
    if isinstance(value, Mapping):
        return {key: _escaped(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_escaped(inner) for inner in value]
    return re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", value) if isinstance(value, str) else value


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf with its dotted key; an empty mapping is a leaf."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def stored(tree: Mapping[str, Any]) -> dict[str, Any]:
    """What `config.yaml` of a run keeps of a tree."""
    return {key: value for key, value in tree.items() if key not in NOT_STORED}


def path_of(key: str, text: str) -> Path:
    """A typed path, `~` expanded.

    Raises:
        UserError: there is no such user's home.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"{key}={text}: no path that can be read ({error})") from error


def run_directory(loaded: Loaded) -> Path:
    """`run=`, or `runs/<recipe>-s<seed>`, with a hash of the overrides that make it another run."""
    if loaded.config.run:
        return path_of("run", loaded.config.run)
    flat, kept = dict(flatten(loaded.tree)), {}
    for token in loaded.overrides:
        key, _, text = token.partition("=")
        if not may_differ(key) and key != "seed":
            kept[key] = flat[key] if key in flat else parse(text)  # 5e2 and 500 are one value in the tree
    name = f"{loaded.recipe}-s{loaded.config.seed}"
    if kept:
        name += f"-{hashlib.blake2b(json.dumps(kept, sort_keys=True).encode(), digest_size=4).hexdigest()}"
    return Path("runs") / name


def may_differ(key: str) -> bool:
    """Whether a dotted key may change when a run is continued; `env_steps` may only grow."""
    return key in _FREE or key.partition(".")[0] in _FREE_GROUPS


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What keeps a run with the stored tree `old` from going on as `new`; empty where nothing does."""
    before, after = dict(flatten(stored(old))), dict(flatten(stored(new)))
    messages = []
    for key in sorted({*before, *after}):
        if not may_differ(key) and before.get(key) != after.get(key):
            had, now = (json.dumps(flat[key]) if key in flat else "nothing" for flat in (before, after))
            messages.append(f"{key}: the run has {had}, now {now}")
    had, now = before.get("env_steps"), after.get("env_steps")
    if isinstance(had, int) and isinstance(now, int) and now < had:
        messages.append(f"env_steps: the run has {had}, now {now}; it can only grow; type env_steps={had} or more")
    return messages
