"""From a command line and recipe files to one tree of plain values, each leaf with where it came from.

Order, the later wins: the recipe's `defaults` (other recipes, groups), the recipe's own lines, the groups typed
(`planner=cem`, whatever their place), the keys typed (`planner.candidates=500`). Within one file, and within one
command line, order means nothing: what is there twice is a fault. Layers are laid by `store.laid`: OmegaConf's merge
skips `???`, raises for a list over a mapping, and takes 50 ms a layer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from lightning_wm.config.store import NOT_STORED, PARTS, Lines, flatten, laid, parse, path_of, read_tree, unflattened
from lightning_wm.errors import UserError, hint

GROUPS = (*PARTS, "observation", "trainer")
"""Top-level keys that `group=name` fills from `recipes/<group>/<name>.yaml`."""
SHARED = "base"
"""What a recipe is called that only holds what those beside it share: `defaults` name it, no list does."""
TYPED = "command line"
"""The source of what was typed."""
FLAGS = ("--help", "--print", "--debug", "--version")
Entry = tuple[str, Any, str]
"""A dotted key, its value, and the place where it stands."""
Names = tuple[str | None, ...]
"""What the parts are called so far."""
_KEY = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)*")


# ---- the shipped recipes


@cache
def root() -> Path:
    """The folder of the shipped recipes: in a checkout beside the package, in an installed one inside it.

    Raises:
        UserError: the installation is damaged.
    """
    package = Path(__file__).resolve().parent.parent
    if (package / "recipes").is_dir():
        return package / "recipes"
    if (package.parent / "pyproject.toml").is_file() and (package.parent / "recipes").is_dir():
        return package.parent / "recipes"
    raise UserError(f"no recipes in {package}; install again: pip install --force-reinstall lightning_wm")


@cache
def choices(group: str) -> list[str]:
    """Names of a group's files, sorted."""
    return sorted(path.stem for path in (root() / group).glob("*.yaml"))


def group_file(group: str, name: str) -> Path | None:
    """The file of `group=name`, or None where no file has the name."""
    return root() / group / f"{name}.yaml" if name in choices(group) else None


@cache
def _shipped() -> list[str]:
    """Names of the shipped recipes, sorted."""
    names = (path.relative_to(root()).with_suffix("") for path in root().rglob("*.yaml"))
    return sorted(name.as_posix() for name in names if name.parts[0] not in (*GROUPS, "study"))


@cache
def names() -> list[str]:
    """Names of the shipped experiments, sorted: quickstart, dense/cheetah_run, ...; not what they share."""
    return [name for name in _shipped() if name.rpartition("/")[2] != SHARED]


def recipe_names() -> list[tuple[str, str]]:
    """Each shipped experiment with the sentence in its file's first line."""
    first = ((name, (root() / f"{name}.yaml").read_text("utf-8").partition("\n")[0]) for name in names())
    return [(name, line.lstrip("# ").strip() if line.startswith("#") else "") for name, line in first]


def shown(path: Path) -> str:
    """How a file is called in messages: `recipes/...` for a shipped one."""
    whole = path.resolve()
    return f"recipes/{whole.relative_to(root()).as_posix()}" if whole.is_relative_to(root()) else str(path)


# ---- the command line


@dataclass(frozen=True)
class Line:
    """What was typed: `key=value`; of a key that was typed twice the last value counts."""

    values: dict[str, Any] = field(default_factory=dict)
    """Dotted key to its value."""
    raw: dict[str, str] = field(default_factory=dict)
    """Dotted key to the text as typed."""
    faults: tuple[str, ...] = ()
    """What could not be read."""

    def tokens(self) -> list[str]:
        """`key=value` again, each key once."""
        return [f"{key}={text}" for key, text in self.raw.items()]

    def entries(self, keys: Iterable[str]) -> Iterator[Entry]:
        """The leaves of what was typed for some keys, each with its token."""
        for typed in keys:
            value, token = self.values[typed], f"{typed}={self.raw[typed]}"
            inner = flatten(value, f"{typed}.") if isinstance(value, Mapping) and value else [(typed, value)]
            yield from ((key, leaf, token) for key, leaf in inner)


def read_line(argv: Sequence[str], words: Sequence[str] = (), texts: Sequence[str] = ()) -> Line:
    """Split the tokens of a command line; what cannot be read becomes a fault.

    Args:
        argv: the tokens.
        words: what a token without `=` may have been meant for, as `recipe=<word>`.
        texts: dotted keys whose values are text as typed; others are YAML.
    """
    values: dict[str, Any] = {}
    raw: dict[str, str] = {}
    faults: list[str] = []
    for token in argv:
        key, equals, text = token.partition("=")
        if not equals or not _KEY.fullmatch(key):
            faults += [] if token in FLAGS else [_unreadable(token, words)]
            continue
        try:
            value = _value(text, key.partition(".")[0] in (*PARTS, "callbacks"))
        except ValueError as error:
            if key not in texts:
                faults.append(f"{token}: the value is no valid YAML: {error}; put it in quotes: {key}=\"'...'\"")
                continue
            value = text
        raw.pop(key, None)
        values[key], raw[key] = (None if text in ("", "null") else text) if key in texts else value, text
    return Line(values, raw, tuple(faults))


def _value(text: str, loose: bool) -> Any:
    """A typed value: YAML's numbers, words, lists and maps, any other text in full, `#` and all.

    Args:
        text: as typed.
        loose: what is no YAML is a text too, as a part's field may be.

    Raises:
        ValueError: it is no YAML.
    """
    text = text.strip()
    try:
        value = parse(text)
    except ValueError:
        if loose:
            return text
        raise
    comment = value is None and text.startswith("#")
    return text if comment or (isinstance(value, str) and text[:1] not in ("'", '"', "|", ">")) else value


def _unreadable(token: str, words: Sequence[str]) -> str:
    """The fault of a token that is no `key=value`."""
    bare = token.lstrip("-+~")
    if "=" in bare and _KEY.fullmatch(bare.partition("=")[0]):
        return f"{token}: expected key=value; type {bare}"
    if token.startswith("-"):
        return f"{token}: there is no such flag; settings are typed as key=value{hint(token, FLAGS)}"
    return f"{token}: expected key=value{f'; type recipe={token}' if token in words else ', for example seed=1'}"


# ---- layers


def nest(entries: Iterable[Entry], where: str, faults: list[str], parts: Sequence[str] = PARTS) -> dict[str, Any]:
    """Dotted keys as a tree, in whatever order they come; a part given as text is its name.

    Args:
        entries: what one file or one command line says.
        where: ` (in <file>)`, or nothing.
        faults: keys that are there twice, or that have both a value and keys below them, are added here.
        parts: keys of parts.
    """
    name = {part: f"{part}.name" for part in parts}
    named = [(name.get(key, key) if isinstance(value, str) else key, value, at) for key, value, at in entries]
    below = {key[: dot.start()]: at for key, _, at in named for dot in re.finditer(r"\.", key)}
    leaves: dict[str, Any] = {}
    places: dict[str, str] = {}
    for key, value, at in named:
        if key in below or key in places:
            if value == {}:
                continue
            what = f"{key}={'null' if value is None else value}{where}: expected keys and values ({{key: value}}), as"
            twice = f"{key}{where}: there twice, in {at} and"
            faults.append(f"{what if key in below else twice} in {below.get(key) or places[key]}; keep one of them")
            continue
        places[key], leaves[key] = at, value
    return unflattened(leaves)


def _leaves(tree: Mapping[str, Any], lines: Lines, above: tuple[str, ...] = ()) -> Iterator[Entry]:
    """The leaves of a file, each with its line and how it is written."""
    for key, value in tree.items():
        keys = (*above, key)
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, lines, keys)
        else:
            yield ".".join(keys), value, f"line {lines[id(tree), key]} ({': '.join(keys)})"


@dataclass(frozen=True)
class Layers:
    """Settings laid over each other, each leaf with the name of the file it came from."""

    tree: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    chosen: frozenset[str] = frozenset()
    """Parts of which nothing below counts."""

    @classmethod
    def of(cls, tree: dict[str, Any], source: str, before: Names, chosen: Sequence[str] = ()) -> Layers:
        """One layer, to be laid over parts with the names `before`: a part with another name replaces what is there."""
        layer = cls(tree, dict.fromkeys((key for key, _ in flatten(tree)), source))
        after = layer.names(before)
        changed = (part for part, old, new in zip(PARTS, before, after, strict=True) if old != new)
        return cls(tree, layer.sources, frozenset([*changed, *chosen]))

    def over(self, below: Layers) -> Layers:
        """These on top of others."""
        tree = laid({key: value for key, value in below.tree.items() if key not in self.chosen}, self.tree)
        sources = {key: self.sources.get(key) or below.sources[key] for key, _ in flatten(tree)}
        return Layers(tree, sources, self.chosen | below.chosen)

    def names(self, before: Names) -> Names:
        """The parts' names, laid over parts with the names `before`."""
        nodes = (self.tree.get(part) for part in PARTS)
        own = (node.get("name") if isinstance(node, Mapping) else None for node in nodes)
        old = (None if part in self.chosen else name for part, name in zip(PARTS, before, strict=True))
        return tuple(new if isinstance(new, str) else name for new, name in zip(own, old, strict=True))


_NOTHING: Names = (None,) * len(PARTS)


class Composition:
    """The tree, where each leaf came from, and the faults met on the way."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.faults = list(line.faults)
        self.path: Path | None = None
        self.from_run = False
        """Whether the recipe is a run's or a model folder's configuration: data that may come from elsewhere."""
        self._open: list[Path] = []
        self._trees: dict[Path, dict[str, Any]] = {}
        self._files: dict[tuple[Path, Names], Layers] = {}
        self.layers = self._typed(self._recipe())

    def _recipe(self) -> Layers:
        """The recipe's layers, or a fault that says what to type."""
        named = self.line.values.get("recipe")
        if named is None or named == "list":
            self.faults.append("recipe: none given; type recipe=quickstart, or recipe=list to see them all")
            return Layers()
        try:
            self.path = find(named)
            self.from_run = self.path.name == "config.yaml" or (self.path.parent / "meta.json").exists()
            return self._file(self.path.resolve(), _NOTHING)
        except UserError as error:
            self.faults.append(str(error))
            return Layers()

    def _file(self, path: Path, before: Names) -> Layers:
        """A recipe's own lines over its defaults, to be laid over parts with the names `before`."""
        if path in self._open:
            circle = " -> ".join(shown(one) for one in (*self._open[self._open.index(path) :], path))
            raise UserError(f"recipes that inherit from each other in a circle: {circle}; remove one of the defaults")
        if (path, before) in self._files:  # ten levels of two defaults each name the lowest file a thousand times
            return self._files[path, before]
        self._open.append(path)
        tree, layers = self._read(path), Layers()
        if self.from_run:
            _refuse_code(tree, path)
        if tree.pop("recipe", None) is not None:
            raise UserError(f"{shown(path)}: recipe is only typed; to inherit write 'defaults: [dense/cheetah_run]'")
        for item in _defaults(tree.pop("defaults", None), path):
            names = layers.names(before)
            if isinstance(item, str):
                layers = self._file(find(item, path).resolve(), names).over(layers)
            else:
                layers = self._group(*item, shown(path), names).over(layers)
        layers = Layers.of(tree, shown(path), layers.names(before)).over(layers)
        self._open.pop()
        self._files[path, before] = layers
        return layers

    def _read(self, path: Path, parts: Sequence[str] = PARTS) -> dict[str, Any]:
        """A file's tree, its dotted keys nested; each file is read once."""
        if path not in self._trees:
            lines: dict[tuple[int, str], int] = {}
            tree = read_tree(path, lines)
            self._trees[path] = nest(_leaves(tree, lines), f" (in {shown(path)})", self.faults, parts)
        return dict(self._trees[path])

    def _group(self, group: str, name: str, where: str, before: Names) -> Layers:
        """A group's file; a part's replaces the group, other groups keep what the file does not name.

        `with` in a part's file holds what else goes with it, in the recipe's own keys.
        """
        path = group_file(group, name)
        if path is None and group not in PARTS:
            raise UserError(
                f"{group}={name}{'' if where == TYPED else f' (in {where})'}: there is no such {group}; "
                f"known: {', '.join(choices(group))}{hint(name, choices(group))}"
            )
        own: dict[str, Any] = self._read(path, ()) if path else {"name": name}
        beside = own.pop("with", {}) if group in PARTS else {}
        if not isinstance(beside, Mapping) or group in beside:
            shows = f"its own {group}" if isinstance(beside, Mapping) else repr(beside)
            raise UserError(
                f"{group}={name}: with has {shows} (in {shown(path) if path else where}); expected keys of other "
                "groups; write with: {replay: {batch: 256}}"
            )
        tree = {**beside, group: own}
        return Layers.of(tree, shown(path) if path else where, before, [group] if group in PARTS else [])

    def _typed(self, layers: Layers) -> Layers:
        """What was typed on top: groups first, then keys."""
        keys = {key: value for key, value in self.line.values.items() if key != "recipe"}
        for group in GROUPS:
            name = self.line.raw[group] if isinstance(keys.get(group), bool | int | float) else keys.get(group)
            if not isinstance(name, str):
                continue
            del keys[group]
            if group in PARTS and keys.pop(f"{group}.name", name) != name:
                both = f"{group}={name} and in {group}.name={self.line.raw[f'{group}.name']}"
                self.faults.append(f"{group}.name: there twice, in {both}; keep one of them")
            try:
                layers = self._group(group, name, TYPED, layers.names(_NOTHING)).over(layers)
            except UserError as error:
                self.faults.append(str(error))
        tree = nest(self.line.entries(keys), "", self.faults)
        return Layers.of(tree, TYPED, layers.names(_NOTHING)).over(layers)

    @property
    def names_plugins(self) -> bool:
        """Whether it is the user, rather than a run's own file, who names the plugins."""
        return not self.from_run or self.layers.sources.get("plugins") == TYPED

    def run_name(self) -> str:
        """The recipe's name for a run directory: a file's stem, or for a run's configuration the run's and `-again`."""
        named, path = self.line.raw["recipe"], self.path or Path()
        if path.name == "config.yaml":
            return f"{path.resolve().parent.name}-again"
        return named.replace("/", "-") if named in names() else path.stem


def find(name: str, beside: Path | None = None) -> Path:
    """The file of a recipe: a shipped name, or a path (from a recipe's `defaults`, relative to it).

    Raises:
        UserError: there is no such recipe.
    """
    if name in _shipped():
        return root() / f"{name}.yaml"
    try:
        path = (beside.parent if beside else Path()) / path_of("recipe", name)
        if path.is_file():
            return path
        if (path / "config.yaml").is_file():
            raise UserError(f"recipe={name} is a folder; type recipe={path / 'config.yaml'}")
    except (OSError, ValueError) as error:  # too long, a null byte
        raise UserError(f"recipe={name}: no path that can be read ({error})") from error
    if name.endswith((".yaml", ".yml")):
        raise UserError(f"recipe={name}: there is no such file")
    raise UserError(f"recipe={name}: there is no such recipe; type recipe=list to see them all{hint(name, names())}")


def _refuse_code(tree: Mapping[str, Any], path: Path) -> None:
    """A run's configuration is resolved data: nothing in it is looked up or evaluated."""
    refused = ["${...}"] if "${" in repr(tree) else [key for key in ("defaults", *NOT_STORED) if key in tree]
    if refused:
        raise UserError(f"{path}: a run's configuration has no {', '.join(refused)}; copy the file under another name")


def _defaults(listed: object, path: Path) -> list[str | tuple[str, str]]:
    """The entries of a recipe's `defaults`, each a recipe's name or (group, name)."""
    items: list[str | tuple[str, str]] = []
    for item in [] if listed is None else listed if isinstance(listed, list) else [listed]:
        groups = item if isinstance(item, dict) else {}
        if isinstance(item, str):
            items.append(item)
        elif groups and all(key in GROUPS and isinstance(name, str) for key, name in groups.items()):
            items.extend(groups.items())
        else:
            wrong = next((key for key in groups if key not in GROUPS), "")
            raise UserError(
                f"{shown(path)}: defaults has {item!r}; expected a recipe (- dense/cheetah_run) or a group "
                f"(- planner: cem); groups: {', '.join(GROUPS)}{hint(wrong, GROUPS) if wrong else ''}"
            )
    return items
