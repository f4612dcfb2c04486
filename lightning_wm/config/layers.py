"""Trees of settings: laying one over another, and who said what.

A tree is nested plain dicts with text keys; everything else is a leaf, lists too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lightning_wm.config.recipes import PARTS


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf with its dotted key; an empty mapping is a leaf."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as a tree; a later key wins over an earlier one."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *groups, last = key.split(".")
        node = tree
        for group in groups:
            if not isinstance(node.get(group), dict):
                node[group] = {}
            node = node[group]
        node[last] = value
    return tree


def expand(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A tree in which `planner.candidates: 500` was written as one key, nested."""
    return nest(dict(flatten(tree)))


def laid(*trees: Mapping[str, Any]) -> dict[str, Any]:
    """Trees laid over each other, the last on top; none of them is changed."""
    layers = Layers()
    for tree in trees:
        layers.add(tree, "")
    return layers.tree


class Layers:
    """Settings laid over each other, each leaf with the name of the layer it came from."""

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {}
        self.sources: dict[str, str] = {}

    def add(self, tree: Mapping[str, Any], source: str) -> None:
        """Lay `tree` on top.

        A part given as text is its name, and another name drops the fields of the part before it.
        """
        for key, value in tree.items():
            if key in PARTS:
                named = {"name": value} if isinstance(value, str) else value
                if isinstance(named, Mapping) and named.get("name", self._name(key)) != self._name(key):
                    self.drop(key)
                self._lay(self.tree, key, named, source, key)
            else:
                self._lay(self.tree, key, value, source, key)

    def drop(self, key: str) -> None:
        """Forget a top-level key and where it came from."""
        self.tree.pop(key, None)
        self._forget(key)

    def _name(self, part: str) -> Any:
        node = self.tree.get(part)
        return node.get("name") if isinstance(node, dict) else None

    def _lay(self, node: dict[str, Any], key: str, value: Any, source: str, dotted: str) -> None:
        if isinstance(value, Mapping):
            if not isinstance(node.get(key), dict):
                node[key] = {}
                self._forget(dotted)
            for name, inner in value.items():
                self._lay(node[key], name, inner, source, f"{dotted}.{name}")
        else:
            self._forget(dotted)
            node[key] = value
        if not isinstance(node[key], dict) or not node[key]:
            self.sources[dotted] = source

    def _forget(self, dotted: str) -> None:
        for key in [one for one in self.sources if one == dotted or one.startswith(f"{dotted}.")]:
            del self.sources[key]
