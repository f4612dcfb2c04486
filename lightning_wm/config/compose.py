"""From a command line and recipe files to one tree of settings.

Order, the later wins: the recipe's `defaults` (other recipes, groups), the
recipe's own lines, the groups typed (`planner=cem`, whatever their place), the
keys typed (`planner.candidates=500`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_wm.config.layers import Layers, expand
from lightning_wm.config.line import Line
from lightning_wm.config.names import hint
from lightning_wm.config.recipes import GROUPS, NOT_STORED, PARTS, choices, group_file, names, recipe_file, shown
from lightning_wm.config.text import read
from lightning_wm.config.walk import TYPED
from lightning_wm.errors import UserError


class Composition:
    """The tree, where each leaf came from, and the faults met on the way."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.layers = Layers()
        self.faults = list(line.faults)
        self.path: Path | None = None
        self.from_run = False
        self._recipe()
        self._typed()

    def _recipe(self) -> None:
        """The recipe's layers, or a fault that says what to type."""
        named = self.line.values.get("recipe")
        if named is None or named == "list":
            self.faults.append("recipe: none given; type recipe=quickstart, or recipe=list to see them all")
            return
        try:
            self.path = _find(self.line.raw["recipe"] if not isinstance(named, str) else named)
            self.from_run = is_run(self.path)
            self._file(self.path, ())
        except UserError as error:
            self.faults.append(str(error))

    def _file(self, path: Path, above: tuple[Path, ...]) -> None:
        """Lay a recipe file's defaults and then its own lines."""
        path = path.resolve()
        if path in above:
            circle = " -> ".join(shown(one) for one in (*above[above.index(path) :], path))
            raise UserError(f"recipes that inherit from each other in a circle: {circle}; remove one of the defaults")
        tree = expand(read(path))
        if self.from_run:
            _refuse_code(tree, path)
        for item in _defaults(tree.pop("defaults", None), path):
            if isinstance(item, str):
                self._file(_find(item, path), (*above, path))
            else:
                self._group(*item, shown(path))
        if tree.pop("recipe", None) is not None:
            raise UserError(f"{shown(path)}: recipe is only typed; to inherit write 'defaults: [dense/cheetah_run]'")
        self.layers.add(tree, shown(path))

    def _group(self, group: str, name: str, where: str) -> None:
        """Lay a group's file; a part's replaces the group, other groups keep what the file does not name."""
        path = group_file(group, name)
        if path is None and group not in PARTS:
            raise UserError(
                f"{group}={name}{'' if where == TYPED else f' (in {where})'}: there is no such {group}; "
                f"known: {', '.join(choices(group))}{hint(name, choices(group))}"
            )
        if group in PARTS:
            self.layers.drop(group)
        self.layers.add({group: read(path) if path else {"name": name}}, shown(path) if path else where)

    def _typed(self) -> None:
        """Lay what was typed: groups first, then keys."""
        keys = dict(self.line.values)
        for group in GROUPS:
            value = keys.get(group)
            if isinstance(value, bool | int | float):
                value = self.line.raw[group]
            if isinstance(value, str):
                del keys[group]
                try:
                    self._group(group, value, TYPED)
                except UserError as error:
                    self.faults.append(str(error))
        keys.pop("recipe", None)
        self.layers.add(expand(keys), TYPED)


def is_run(path: Path) -> bool:
    """Whether a file is a run's or a model folder's configuration: data that may come from elsewhere."""
    return path.name == "config.yaml" or (path.parent / "meta.json").exists()


def _find(name: str, beside: Path | None = None) -> Path:
    """The file of a recipe: a shipped name, or a path (from a recipe's `defaults`, relative to it)."""
    shipped = recipe_file(name)
    if shipped is not None:
        return shipped
    try:
        path = (beside.parent if beside else Path()) / Path(name).expanduser()
        if path.is_file():
            return path
        if (path / "config.yaml").is_file():
            raise UserError(f"recipe={name} is a folder; type recipe={path / 'config.yaml'}")
    except (OSError, RuntimeError, ValueError) as error:  # too long, no such user's home, a null byte
        raise UserError(f"recipe={name}: no path that can be read ({error})") from error
    if name.endswith((".yaml", ".yml")):
        raise UserError(f"recipe={name}: there is no such file")
    raise UserError(f"recipe={name}: there is no such recipe; type recipe=list to see them all{hint(name, names())}")


def _refuse_code(tree: dict[str, Any], path: Path) -> None:
    """A run's configuration is resolved data: nothing in it is looked up or evaluated."""
    if "${" in repr(tree):
        raise UserError(f"{path}: a run's configuration has no need of ${{...}}; copy the file under another name")
    found = [key for key in ("defaults", *NOT_STORED) if key in tree]
    if found:
        raise UserError(f"{path}: a run's configuration has no {', '.join(found)}; copy the file under another name")


def _defaults(listed: Any, path: Path) -> list[str | tuple[str, str]]:
    """The entries of a recipe's `defaults`, each a recipe's name or (group, name)."""
    entries: list[str | tuple[str, str]] = []
    for item in [] if listed is None else listed if isinstance(listed, list) else [listed]:
        if isinstance(item, str):
            entries.append(item)
        elif isinstance(item, dict) and all(key in GROUPS and isinstance(one, str) for key, one in item.items()):
            entries.extend(item.items())
        else:
            wrong = next((key for key in item if key not in GROUPS), "") if isinstance(item, dict) else ""
            raise UserError(
                f"{shown(path)}: defaults has {item!r}; expected a recipe (- dense/cheetah_run) or a group "
                f"(- planner: cem); groups: {', '.join(GROUPS)}{hint(wrong, GROUPS) if wrong else ''}"
            )
    return entries
