"""The second walk: the fields of model, agent, planner and callbacks, from the registry. Imports torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning_wm import registry
from lightning_wm.config.names import hint
from lightning_wm.config.recipes import PARTS, choices
from lightning_wm.config.walk import MISSING, Walk, default, dotted, hints, plain


@dataclass(frozen=True)
class Named:
    """The configuration of a part that brings no fields of its own."""

    name: str


@dataclass(frozen=True)
class Bare:
    """The configuration of a callback that brings no fields of its own."""


def fields(kind: str, name: str) -> type:
    """The dataclass of a registered class's fields."""
    own = getattr(registry.lookup(kind, name), "Config", None)
    return own if isinstance(own, type) else Bare if kind == "callback" else Named


def unsaid(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of the parts that a tree names, for interpolations to find."""
    found = {}
    for part in PARTS:
        name = tree[part].get("name") if isinstance(tree[part], dict) else None
        if isinstance(name, str) and name in registry.names(part):
            values = {one.name: plain(default(one)) for one in dataclasses.fields(fields(part, name))}
            found[part] = {key: value for key, value in values.items() if value != MISSING}
    return found


def build_part(walk: Walk, kind: str, tree: Any) -> Any:
    """A part's configuration, or None where something does not fit."""
    name = tree.get("name") if isinstance(tree, dict) else None
    if not isinstance(name, str):
        walk.faults.append(f"{kind}: expected a name and fields; type {kind}=<one of {_listed(kind)}>")
        return None
    if name not in registry.names(kind):
        near = hint(name, {*registry.names(kind), *choices(kind)})
        walk.faults.append(f"{kind}={name}: there is no {kind} {name!r}; known: {_listed(kind)}{near}")
        return None
    return _Part(kind, name, walk).build(fields(kind, name), tree, f"{kind}.")


def build_callbacks(walk: Walk, tree: Any) -> dict[str, Any] | None:
    """Every callback's configuration by name, or None where the mapping is none."""
    if not isinstance(tree, dict):
        walk.faults.append("callbacks: expected names with their fields; write callbacks: {name: {field: value}}")
        return None
    built = {}
    for name, own in tree.items():
        if name not in registry.names("callback"):
            near = hint(name, registry.names("callback"))
            known = ", ".join(registry.names("callback"))
            walk.faults.append(f"callbacks.{name}: there is no callback {name!r}; known: {known}{near}")
            continue
        cls = fields("callback", name)
        tree_of = {} if own is None else own
        if isinstance(tree_of, dict) and "name" in hints(cls):
            tree_of = {"name": name, **tree_of}
        built[name] = Walk([*walk.known, *dotted(cls, f"callbacks.{name}.")], **_shared(walk)).build(
            cls, tree_of, f"callbacks.{name}."
        )
    return built


class _Part(Walk):
    """A walk over one part's fields, that knows who else has a field."""

    def __init__(self, kind: str, name: str, walk: Walk) -> None:
        own = dotted(fields(kind, name), f"{kind}.")
        super().__init__([*walk.known, *own], **_shared(walk))
        self.kind, self.name, self.own = kind, name, own

    def unknown(self, key: str, value: Any) -> str:
        """The fault of a field that the part lacks: its nearest own field, or whose field it is."""
        others = [
            one
            for one in registry.names(self.kind)
            if one != self.name and key in dotted(fields(self.kind, one), f"{self.kind}.")
        ]
        said = f"{self._said(key, value)}: {self.kind} {self.name!r} has no such field"
        if others:
            return f"{said}, but {', '.join(others)} has; type {self.kind}={others[0]} beside it, or leave it out"
        has = ", ".join(one.partition(".")[2] for one in self.own)
        return f"{said}{hint(key, self.own) or f'; it has {has}'}"


def _shared(walk: Walk) -> dict[str, Any]:
    return {"sources": walk.sources, "raw": walk.raw, "faults": walk.faults}


def _listed(kind: str) -> str:
    known = [*registry.names(kind), *choices(kind)] if kind in PARTS else registry.names(kind)
    return ", ".join(sorted(set(known)))
