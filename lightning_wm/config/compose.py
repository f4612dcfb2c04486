"""From a command line and recipe files to one tree of plain values, each leaf with where it came from.

Order, the later wins: the recipe's `defaults` (other recipes, groups), the recipe's own lines, the groups typed
(`planner=cem`, whatever their place), the keys typed (`planner.candidates=500`). Within one file, and within one
command line, order means nothing: what is said twice there is a fault. Layers are laid by four lines of our own:
OmegaConf's merge skips `???`, raises for a list over a mapping, and takes tens of milliseconds a layer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from lightning_wm.config.store import NOT_STORED, Lines, flatten, parse, path_of, read_lines
from lightning_wm.errors import UserError, hint

PARTS = ("model", "agent", "planner")
"""Groups whose class comes from the registry; another name drops all fields of the one before."""
GROUPS = (*PARTS, "observation", "trainer")
"""Top-level keys that `group=name` fills from `recipes/<group>/<name>.yaml`."""
Entry = tuple[str, Any, str]
"""A dotted key, its value, and the place where it is said."""
TYPED = "command line"
"""The source of what was typed."""
FLAGS = ("--help", "--print", "--debug", "--version")
_KEY = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)*")
_NO_RECIPES = (*GROUPS, "study")


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
def names() -> list[str]:
    """Names of the shipped experiments, sorted: quickstart, dense/cheetah_run, ...; not `base`, which others share."""
    shipped = (path.relative_to(root()).with_suffix("") for path in root().rglob("*.yaml"))
    return sorted(name.as_posix() for name in shipped if name.parts[0] not in _NO_RECIPES and name.name != "base")


def recipe_names() -> list[tuple[str, str]]:
    """Each shipped experiment with the sentence in its file's first line."""
    first = ((name, (root() / f"{name}.yaml").read_text("utf-8").partition("\n")[0]) for name in names())
    return [(name, line.lstrip("# ").strip() if line.startswith("#") else "") for name, line in first]


def shown(path: Path) -> str:
    """How a file is called in messages: `recipes/...` for a shipped one."""
    inside = path.resolve().is_relative_to(root())
    return (Path("recipes") / path.resolve().relative_to(root())).as_posix() if inside else str(path)


# ---- the command line


@dataclass(frozen=True)
class Line:
    """What was typed: `key=value` tokens and flags; of a key that was typed twice the last value counts."""

    values: dict[str, Any] = field(default_factory=dict)
    """Dotted key to its value."""
    raw: dict[str, str] = field(default_factory=dict)
    """Dotted key to the text as typed."""
    flags: frozenset[str] = frozenset()
    """Those of `FLAGS` that were typed."""
    faults: tuple[str, ...] = ()
    """What could not be read."""

    def tokens(self) -> list[str]:
        """`key=value` again, each key once."""
        return [f"{key}={text}" for key, text in self.raw.items()]


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
        if token in FLAGS:
            continue
        if not equals or not _KEY.fullmatch(key):
            faults.append(_unreadable(token, words))
            continue
        try:
            value = (text or None) if key in texts else typed_value(text, loose=key.partition(".")[0] in _LOOSE)
        except ValueError as error:
            faults.append(f"{token}: the value is no valid YAML: {error}; put it in quotes: {key}=\"'...'\"")
            continue
        raw.pop(key, None)
        values[key], raw[key] = value, text
    return Line(values, raw, frozenset(token for token in argv if token in FLAGS), tuple(faults))


_LOOSE = (*PARTS, "callbacks")


def typed_value(text: str, loose: bool = False) -> Any:
    """A value as it was typed: YAML's numbers, words, lists and maps; any other text in full, `#` and all.

    Args:
        text: as typed.
        loose: take what is no YAML as text too, since the field may be a text.

    Raises:
        ValueError: it is no YAML.
    """
    try:
        value = parse(text)
    except ValueError:
        if not loose:
            raise
        return text
    text = text.strip()
    bare = text[:1] not in ("'", '"', "|", ">")
    comment = value is None and text.startswith("#")
    return text if comment or (isinstance(value, str) and bare) else value


def _unreadable(token: str, words: Sequence[str]) -> str:
    """The fault of a token that is no `key=value`."""
    bare = token.lstrip("-+~")
    if "=" in bare and _KEY.fullmatch(bare.partition("=")[0]):
        return f"{token}: expected key=value; type {bare}"
    if token.startswith("-"):
        return f"{token}: there is no such flag; settings are typed as key=value{hint(token, FLAGS)}"
    if token in words:
        return f"{token}: expected key=value; type recipe={token}"
    return f"{token}: expected key=value, for example seed=1"


# ---- layers


def laid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """A tree over another: mappings are merged, whatever else is above replaces what is below."""
    tree = dict(below)
    for key, value in above.items():
        inner = tree.get(key)
        tree[key] = laid(inner if isinstance(inner, Mapping) else {}, value) if isinstance(value, Mapping) else value
    return tree


def nest(entries: Iterable[Entry], where: str, faults: list[str]) -> dict[str, Any]:
    """Dotted keys as a tree, in whatever order they come.

    Args:
        entries: what one file or one command line says.
        where: ` (in <file>)`, or nothing.
        faults: keys that are there twice, or that have both a value and keys below them, are added here.
    """
    tree: dict[str, Any] = {}
    named = list(entries)
    below = {key[: dot.start()]: at for key, _, at in named for dot in re.finditer(r"\.", key)}
    places: dict[str, str] = {}
    for key, value, at in named:
        if value == {} and (key in below or key in places):
            continue
        if key in below:
            shown = "null" if value is None else value
            faults.append(
                f"{key}={shown}{where}: expected keys and values ({{key: value}}), as in {below[key]}; keep one of them"
            )
        elif key in places:
            faults.append(f"{key}{where}: there twice, in {places[key]} and in {at}; keep one of them")
        else:
            places[key] = at
            *groups, last = key.split(".")
            node = tree
            for group in groups:
                node = node.setdefault(group, {})
            node[last] = value
    return tree


def _part_names(entries: Iterable[Entry]) -> Iterator[Entry]:
    """The same, a part given as text as its name: `planner: cem` is `planner.name: cem`."""
    for key, value, place in entries:
        yield f"{key}.name" if key in PARTS and isinstance(value, str) else key, value, place


def _file_entries(tree: Mapping[str, Any], lines: Lines, above: tuple[str, ...] = ()) -> Iterator[Entry]:
    """The leaves of a file, each with its line and spelling."""
    for key, value in tree.items():
        keys = (*above, key)
        if isinstance(value, Mapping) and value:
            yield from _file_entries(value, lines, keys)
        else:
            yield ".".join(keys), value, f"line {lines[id(tree), key]} ({': '.join(keys)})"


def typed_entries(line: Line, keys: Iterable[str]) -> Iterator[Entry]:
    """The leaves of what was typed for some keys, each with its token."""
    for typed in keys:
        value = line.values[typed]
        inner = flatten(value, f"{typed}.") if isinstance(value, Mapping) and value else [(typed, value)]
        for key, leaf in inner:
            yield key, leaf, f"{typed}={line.raw[typed]}"


@dataclass(frozen=True)
class Layers:
    """Settings laid over each other, each leaf with the name of the file it came from."""

    tree: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    chosen: frozenset[str] = frozenset()
    """Parts of which nothing below counts, since they have another name there or come from a group's file."""

    def over(self, below: Layers) -> Layers:
        """These on top of others."""
        kept = {key: value for key, value in below.tree.items() if key not in self.chosen}
        tree = laid(kept, self.tree)
        sources = {key: self.sources.get(key) or below.sources[key] for key, _ in flatten(tree)}
        return Layers(tree, sources, self.chosen | below.chosen)

    def named(self, before: Names) -> Names:
        """The parts' names where these are laid over settings with the names `before`."""
        nodes = [self.tree.get(part) for part in PARTS]
        own = [node.get("name") if isinstance(node, Mapping) else None for node in nodes]
        return tuple(
            name if isinstance(name, str) else None if part in self.chosen else old
            for part, name, old in zip(PARTS, own, before, strict=True)
        )


Names = tuple[str | None, ...]
"""The names of the parts so far, None for one without."""


def layer(tree: Mapping[str, Any], source: str, before: Names, chosen: Sequence[str] = ()) -> Layers:
    """One file's or command line's settings, to be laid over settings with the names `before`."""
    flat = dict.fromkeys((key for key, _ in flatten(tree)), source)
    own = Layers(dict(tree), flat)
    changed = [part for part, old, new in zip(PARTS, before, own.named(before), strict=True) if old != new]
    return Layers(own.tree, flat, frozenset([*changed, *chosen]))


# ---- recipes


class Composition:
    """The tree, where each leaf came from, and the faults met on the way."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.faults = list(line.faults)
        self.path: Path | None = None
        self.from_run = False
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
            self.from_run = is_run(self.path)
            return self._file(self.path.resolve(), (None,) * len(PARTS))
        except UserError as error:
            self.faults.append(str(error))
            return Layers()

    def _file(self, path: Path, before: Names) -> Layers:
        """A recipe's own lines over its defaults, as they are laid over parts with the names `before`."""
        if path in self._open:
            circle = " -> ".join(shown(one) for one in (*self._open[self._open.index(path) :], path))
            raise UserError(f"recipes that inherit from each other in a circle: {circle}; remove one of the defaults")
        if (path, before) in self._files:
            return self._files[path, before]
        tree = self._read(path)
        if self.from_run:
            _refuse_code(tree, path)
        if tree.pop("recipe", None) is not None:
            raise UserError(f"{shown(path)}: recipe is only typed; to inherit write 'defaults: [dense/cheetah_run]'")
        self._open.append(path)
        layers = Layers()
        for item in _defaults(tree.pop("defaults", None), path):
            now = layers.named(before)
            if isinstance(item, str):
                layers = self._file(find(item, path).resolve(), now).over(layers)
            else:
                layers = self._group(*item, shown(path), now).over(layers)
        self._open.pop()
        layers = layer(tree, shown(path), layers.named(before)).over(layers)
        self._files[path, before] = layers
        return layers

    def _read(self, path: Path) -> dict[str, Any]:
        """A file's tree, its dotted keys nested; each file is read once."""
        if path not in self._trees:
            tree, lines = read_lines(path)
            self._trees[path] = nest(_part_names(_file_entries(tree, lines)), f" (in {shown(path)})", self.faults)
        return dict(self._trees[path])

    def _group(self, group: str, name: str, where: str, before: Names) -> Layers:
        """A group's file; a part's replaces the group, other groups keep what the file does not name."""
        path = group_file(group, name)
        if path is None and group not in PARTS:
            raise UserError(
                f"{group}={name}{'' if where == TYPED else f' (in {where})'}: there is no such {group}; "
                f"known: {', '.join(choices(group))}{hint(name, choices(group))}"
            )
        tree = {group: self._read(path) if path else {"name": name}}
        return layer(tree, shown(path) if path else where, before, [group] if group in PARTS else [])

    def _typed(self, layers: Layers) -> Layers:
        """What was typed on top: groups first, then keys."""
        keys = {key: value for key, value in self.line.values.items() if key != "recipe"}
        before: Names = (None,) * len(PARTS)
        for group in GROUPS:
            name = keys.get(group)
            name = self.line.raw[group] if isinstance(name, bool | int | float) else name
            if not isinstance(name, str):
                continue
            del keys[group]
            if group in PARTS and f"{group}.name" in keys:
                typed = f"{group}={name} and in {group}.name={keys.pop(f'{group}.name')}"
                self.faults.append(f"{group}.name: there twice, in {typed}; keep one of them")
            try:
                layers = self._group(group, name, TYPED, layers.named(before)).over(layers)
            except UserError as error:
                self.faults.append(str(error))
        tree = nest(_part_names(typed_entries(self.line, keys)), "", self.faults)
        return layer(tree, TYPED, layers.named(before)).over(layers)


    def run_name(self) -> str:
        """The recipe's name for a run directory: a file's stem, or for a run's configuration the run's and `-again`."""
        named, path = self.line.raw["recipe"], self.path
        if path is None:
            raise UserError("recipe: none given; type recipe=quickstart")
        if path.name == "config.yaml":
            return f"{path.resolve().parent.name}-again"
        return named.replace("/", "-") if named in names() else path.stem


def is_run(path: Path) -> bool:
    """Whether a file is a run's or a model folder's configuration: data that may come from elsewhere."""
    return path.name == "config.yaml" or (path.parent / "meta.json").exists()


def find(name: str, beside: Path | None = None) -> Path:
    """The file of a recipe: a shipped name, or a path (from a recipe's `defaults`, relative to it).

    Raises:
        UserError: there is no such recipe.
    """
    if name in names() or re.fullmatch(r"(dense|sparse|state)/base", name):
        return root() / f"{name}.yaml"
    path = path_of("recipe", name)
    try:
        path = (beside.parent if beside else Path()) / path
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
    if "${" in repr(tree):
        raise UserError(f"{path}: a run's configuration has no need of ${{...}}; copy the file under another name")
    refused = [key for key in ("defaults", *NOT_STORED) if key in tree]
    if refused:
        raise UserError(f"{path}: a run's configuration has no {', '.join(refused)}; copy the file under another name")


def _defaults(listed: Any, path: Path) -> list[str | tuple[str, str]]:
    """The entries of a recipe's `defaults`, each a recipe's name or (group, name)."""
    items: list[str | tuple[str, str]] = []
    for item in [] if listed is None else listed if isinstance(listed, list) else [listed]:
        if isinstance(item, str):
            items.append(item)
        elif isinstance(item, dict) and all(key in GROUPS and isinstance(one, str) for key, one in item.items()):
            items.extend(item.items())
        else:
            wrong = next((key for key in item if key not in GROUPS), "") if isinstance(item, dict) else ""
            raise UserError(
                f"{shown(path)}: defaults has {item!r}; expected a recipe (- dense/cheetah_run) or a group "
                f"(- planner: cem); groups: {', '.join(GROUPS)}{hint(wrong, GROUPS) if wrong else ''}"
            )
    return items
