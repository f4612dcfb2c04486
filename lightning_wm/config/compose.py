"""From a command line and recipe files to one tree of plain values, each leaf with where it came from.

Order, the later wins: the recipe's `defaults` (other recipes, groups), the recipe's own lines, the groups typed
(`planner=cem`, whatever their place), the keys typed (`planner.candidates=500`). Within one file, and within one
command line, order means nothing: what is there twice is a fault.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_wm.config.layers import NOTHING, Layers, Names, leaves, nest
from lightning_wm.config.line import TYPED, Line
from lightning_wm.config.shipped import GROUPS, choices, find, group_file, names, shown
from lightning_wm.config.store import NOT_STORED, PARTS, read_tree
from lightning_wm.errors import UserError, hint


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
            return self._file(self.path.resolve(), NOTHING)
        except UserError as error:
            self.path = None
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
            self._trees[path] = nest(leaves(tree, lines), f" (in {shown(path)})", self.faults, parts)
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
                layers = self._group(group, name, TYPED, layers.names(NOTHING)).over(layers)
            except UserError as error:
                self.faults.append(str(error))
        tree = nest(self.line.entries(keys), "", self.faults)
        return Layers.of(tree, TYPED, layers.names(NOTHING)).over(layers)

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
