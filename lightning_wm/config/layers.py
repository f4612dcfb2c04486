"""Settings laid over each other, each leaf with where it came from.

Layers are laid by `store.laid`: OmegaConf's merge skips `???`, raises for a list over a mapping, and takes 50 ms a
layer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_wm.config.line import Entry
from lightning_wm.config.store import PARTS, Lines, flatten, laid, unflattened

Names = tuple[str | None, ...]
"""What the parts are called so far."""
NOTHING: Names = (None,) * len(PARTS)


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
    tree: dict[str, Any] = {}
    places: dict[str, str] = {}
    for key, value, at in named:
        if key in below or key in places:
            if value == {}:
                continue
            what = f"{key}={'null' if value is None else value}{where}: expected keys and values ({{key: value}}), as"
            twice = f"{key}{where}: there twice, in {at} and"
            faults.append(f"{what if key in below else twice} in {below.get(key) or places[key]}; keep one of them")
            continue
        places[key], tree[key] = at, value
    return unflattened(tree)


def leaves(tree: Mapping[str, Any], lines: Lines, above: tuple[str, ...] = ()) -> Iterator[Entry]:
    """The leaves of a file, each with its line and how it is written."""
    for key, value in tree.items():
        keys = (*above, key)
        if isinstance(value, Mapping) and value:
            yield from leaves(value, lines, keys)
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
