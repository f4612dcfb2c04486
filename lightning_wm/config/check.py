"""Settings built from trees: the core's keys, the parts and the callbacks, every fault in one go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from lightning_wm import registry
from lightning_wm.config.fields import build, kinds_of
from lightning_wm.config.keys import dotted
from lightning_wm.config.line import TYPED
from lightning_wm.config.references import resolved
from lightning_wm.config.schema import Config
from lightning_wm.config.shipped import choices
from lightning_wm.config.store import PARTS, completed, laid, plain
from lightning_wm.config.wording import Part, Wording
from lightning_wm.config.words import FieldFaults
from lightning_wm.errors import ConfigError, hint
from lightning_wm.registry import Catalogue

T = TypeVar("T")
_SHARED = [f"planner.{name}" for name in ("horizon", "iterations", "candidates", "elites", "execute", "replan")]


@dataclass
class Check(Wording):
    """Builds settings from trees, and words what does not fit."""

    interpolate: bool = True
    """Look up `${...}`; otherwise it is text."""

    def core(self, tree: Mapping[str, Any]) -> Config:
        """Check the core's keys without torch; parts stay plain dicts.

        Raises:
            ConfigError: all faults, with those met before.
        """
        usual = plain(Config())
        if self.interpolate:
            tree = resolved(tree, usual, self, postpone=True)
        for part in PARTS:
            if not isinstance(tree.get(part, {}), Mapping):
                self.faults.append(f"{part}: expected a name and fields; type e.g. {part}={usual[part]['name']}")
        return self._config(tree)

    def early(self, tree: Mapping[str, Any], plugins: bool) -> bool:
        """Check the parts by their sources, which takes a second where importing them takes ten; whether it could.

        Args:
            tree: what was said.
            plugins: there are plugins, which may bring the names that are not known.

        Raises:
            ConfigError: all faults. What cannot be told so is left to `whole`.
        """
        whole = laid(plain(Config()), tree)
        parts = [(part, str(whole[part].get("name"))) for part in PARTS]
        parts += [("callback", name) for name in whole["callbacks"] or {}]
        readable = [registry.sketches(kind).get(name, str) is not None for kind, name in parts]
        known = [name in registry.sketches(kind) for kind, name in parts]
        if not (all(readable) and (all(known) or not plugins)):
            return False
        with suppress(NameError):  # a __post_init__ that needs what was not imported
            Check(self.sources, self.raw).whole(tree, registry.sketches)
            return True
        return False

    def whole(self, tree: Mapping[str, Any], catalogue: Catalogue) -> Config:
        """Check everything, parts included; plugins must have been imported.

        Raises:
            ConfigError: all faults.
        """
        usual = plain(Config())
        tree = laid({key: usual[key] for key in (*PARTS, "callbacks")}, tree)
        if self.interpolate:
            tree = resolved(tree, completed(tree, catalogue), self)
        built = {part: self._part(part, tree.get(part), catalogue(part)) for part in PARTS}
        built["callbacks"] = self._callbacks(tree.get("callbacks"), catalogue("callback"))
        return self._config({**tree, **built})

    def _config(self, tree: Mapping[str, Any]) -> Config:
        config = self.build(Config, tree, "", [*dotted(Config), *_SHARED])
        if self.faults or config is None:
            raise ConfigError(self.faults)
        return config

    def strategy(self, name: str) -> None:
        """Lightning knows the names, its own and those that plugins have registered."""
        from lightning.pytorch.strategies import StrategyRegistry

        known = ["auto", *StrategyRegistry.available_strategies()]
        if name not in known:
            said = self.said("trainer.strategy", name)
            self.faults.append(f"{said}: expected one of {', '.join(known)}{hint(name, known)}")

    def _part(self, kind: str, tree: object, known: Mapping[str, type | None]) -> Any:
        """A part's configuration, or None where something does not fit."""
        name = tree.get("name") if isinstance(tree, Mapping) else None
        listed = ", ".join(sorted({*known, *choices(kind)}))
        if not isinstance(name, str):
            self.faults.append(f"{kind}: expected a name and fields; type {kind}=<one of {listed}>")
        elif (cls := known.get(name)) is None:
            near = hint(name, {*known, *choices(kind)})
            self.faults.append(f"{kind}={name}: there is no {kind} {name!r}; known: {listed}{near}")
        else:
            return self.build(cls, tree, kind, list(dotted(cls, f"{kind}.")), Part(name, known))
        return None

    def _callbacks(self, tree: object, known: Mapping[str, type | None]) -> dict[str, Any]:
        """Every callback's configuration by name."""
        if not isinstance(tree, Mapping):
            self.faults.append("callbacks: expected names with their fields; write callbacks: {name: {field: value}}")
            return {}
        built: dict[str, Any] = {}
        for name, own in tree.items():
            if (cls := known.get(name)) is None:
                listed = ", ".join(sorted(known)) + hint(name, known)
                self.faults.append(f"callbacks.{name}: there is no callback {name!r}; known: {listed}")
                continue
            given = {} if own is None else own
            if isinstance(given, Mapping) and "name" in kinds_of(cls):
                given = {"name": name, **given}
            place = f"callbacks.{name}"
            built[name] = self.build(cls, given, place, [*dotted(Config), *dotted(cls, f"{place}.")])
        return built

    def build(self, cls: type[T], tree: object, place: str, known: Sequence[str], of: Part | None = None) -> T | None:
        """An instance of `cls`, or None where something does not fit.

        Args:
            cls: a dataclass.
            tree: what was said for its fields.
            place: dotted key of the tree, empty for the root.
            known: every right dotted key, for nearest names.
            of: what has the fields; None for the core.
        """
        typed = {key: text for key, text in self.raw.items() if self.sources.get(key) == TYPED}
        try:
            return build(cls, tree, place, typed)
        except FieldFaults as error:
            self.faults.extend(self.worded(fault, place, known, of) for fault in error.fields)
            return None
