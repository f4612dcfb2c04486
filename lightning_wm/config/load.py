"""From a command line to a checked configuration.

The core's keys are checked first, without torch; then the parts' fields, as far as their sources tell them, still
without; then the parts are imported, plugins before them, and everything is built. Each look reports all of its faults
at once. `${key}` is looked up by OmegaConf.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from lightning_wm import registry
from lightning_wm.config.compose import PARTS, TYPED, Composition, choices, laid, names, nest, read_line, typed_entries
from lightning_wm.config.ranges import RANGES, Range, across
from lightning_wm.config.schema import Config
from lightning_wm.config.smoke import shrink
from lightning_wm.config.store import flatten
from lightning_wm.config.walk import DEFAULT, MISSING, Walk, default, dotted, hints, plain
from lightning_wm.errors import ConfigError, UserError, hint

T = TypeVar("T")
_EXAMPLES = {"task.name": "dmc/cartpole_swingup", "env_steps": "100000"}
_SHARED = ("horizon", "iterations", "candidates", "elites", "execute", "replan", "warm_start")
RESOLVERS = ("oc.env", "oc.decode")
"""What `${name:...}` may be beside `${key}`: an environment variable as text, and the value of a text."""
_RESOLVER = re.compile(r"(?<!\\)(?:\\\\)*\$\{\s*([\w.]*)\s*[:$]")


@dataclass(frozen=True)
class Loaded:
    """A checked configuration and where it came from."""

    config: Config
    """Typed and frozen; parts are instances of their class's `Config`."""
    tree: dict[str, Any]
    """The same as plain containers, every default filled in."""
    sources: dict[str, str]
    """Dotted key to the file it came from, `command line`, `smoke=true` or `default`."""
    recipe: str
    """Name for the run directory: dense-cheetah_run."""
    overrides: list[str]
    """What was typed beside the recipe, `key=value`, each key once."""


def load(argv: Sequence[str]) -> Loaded:
    """Read a command line.

    Raises:
        ConfigError: faults of the core's keys, or else of the parts' fields; all of them.
        UserError: a plugin is not to be, or cannot be, imported.
    """
    line = read_line(argv, names(), texts(Config))
    composed = Composition(line)
    tree, sources = composed.layers.tree, dict(composed.layers.sources)
    tree["recipe"] = line.values.get("recipe")
    check = Check(sources, line.raw, composed.faults)
    core = check.core(tree, lacking=composed.path is None)
    plugins = trusted(core.plugins, core.trust, composed)
    if not registry.imported():
        check.early(tree, bool(plugins))
    load_plugins(plugins)
    config = check.whole(tree, parts)
    if config.smoke:
        smaller = shrink(plain(config), typed=set(line.values))
        sources.update(dict.fromkeys(smaller, "smoke=true"))
        config = check.whole(laid(tree, nest([(key, value, "") for key, value in smaller.items()], "", [])), parts)
    full = plain(config)
    origin = {key: sources.get(key, DEFAULT) for key, _ in flatten(full)}
    overrides = [token for token in line.tokens() if not token.startswith("recipe=")]
    return Loaded(config, full, origin, composed.run_name(), overrides)


def from_tree(tree: Mapping[str, Any], plugins: Sequence[str] = (), trust: bool = False) -> Config:
    """A run's stored configuration, checked as if it had been typed; `${...}` in it stays text.

    Args:
        tree: what `config.yaml` holds.
        plugins: modules the user typed; those that only the tree names are not imported.
        trust: the user typed `trust=true`: import the tree's as well.

    Raises:
        ConfigError: what is stored does not fit this version.
        UserError: a plugin is not to be, or cannot be, imported.
    """
    check = Check(interpolate=False)
    core = check.core(tree)
    if set(core.plugins) - set(plugins) and not trust:
        raise _untyped(core.plugins)
    load_plugins(list(dict.fromkeys([*plugins, *core.plugins])))
    return check.whole(tree, parts)


def trusted(plugins: list[str], trust: bool, composed: Composition) -> list[str]:
    """The plugins to import.

    Raises:
        UserError: only a run's own file names them.
    """
    if composed.from_run and plugins and composed.layers.sources.get("plugins") != TYPED and not trust:
        raise _untyped(plugins)
    return plugins


def load_plugins(modules: Sequence[str]) -> None:
    """Import the user's own modules, so that what they register can be named.

    Raises:
        UserError: a module cannot be imported.
    """
    for name in modules:
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:
            raise UserError(
                f"plugins: {name!r} cannot be imported ({type(error).__name__}: {error}); expected a module that "
                f"'python -c \"import {name}\"' finds here; install it or start from the folder it lies in"
            ) from error


def _untyped(modules: Sequence[str]) -> UserError:
    """The refusal to import what only a run's own file names."""
    return UserError(
        f"plugins: the run's configuration names {', '.join(modules)}, which is code; expected that you name it "
        f"yourself; if you trust it type plugins=[{','.join(modules)}] or trust=true"
    )


def texts(cls: type) -> list[str]:
    """Dotted keys whose values are text as typed."""
    return [key for key, kind in dotted(cls).items() if kind in (str, str | None)]


# ---- parts


@dataclass(frozen=True)
class Named:
    """The configuration of a part that brings no fields of its own."""

    name: str


@dataclass(frozen=True)
class Bare:
    """The configuration of a callback that brings no fields of its own."""


Catalogue = Callable[[str], Mapping[str, "type | None"]]
"""Kind of part to its names and the dataclasses of their fields."""


def fields(kind: str, name: str) -> type:
    """The dataclass of a registered class's fields."""
    own = getattr(registry.lookup(kind, name), "Config", None)
    return own if isinstance(own, type) else Bare if kind == "callback" else Named


def parts(kind: str) -> Mapping[str, type | None]:
    """The registered parts of a kind; imports torch."""
    return {name: fields(kind, name) for name in registry.names(kind)}


def unsaid(tree: Mapping[str, Any], catalogue: Catalogue = parts) -> dict[str, Any]:
    """The defaults of the parts that a tree names, for interpolations to find."""
    defaults = {}
    for part in PARTS:
        name = tree[part].get("name") if isinstance(tree.get(part), Mapping) else None
        cls = catalogue(part).get(name) if isinstance(name, str) else None
        if cls is not None:
            values = {one.name: plain(default(one)) for one in dataclasses.fields(cls)}
            defaults[part] = {key: value for key, value in values.items() if value != MISSING}
    return defaults


# ---- checking


@dataclass
class Check:
    """Builds dataclasses from trees, and words what does not fit."""

    sources: Mapping[str, str] = dataclasses.field(default_factory=dict)
    raw: Mapping[str, str] = dataclasses.field(default_factory=dict)
    faults: list[str] = dataclasses.field(default_factory=list)
    interpolate: bool = True
    """Look up `${...}`; otherwise it is text."""

    def core(self, tree: Mapping[str, Any], lacking: bool = False) -> Config:
        """Check the core's keys without torch; parts stay plain dicts.

        Args:
            tree: what was said.
            lacking: no recipe was read, so that nothing else can be missing.

        Raises:
            ConfigError: all faults, with those met before.
        """
        if self.interpolate:
            tree = self.resolved(tree, plain(Config()), postpone=True)
        for key, value in flatten(tree):
            if value == MISSING:
                self.faults.append(f"{self.said(key, value)}: expected a value; ??? marks one that is missing")
        walk = self._walk([])
        core: Config | None = walk.build(Config, tree)
        for part in PARTS:
            if not isinstance(tree.get(part, {}), Mapping):
                usual = getattr(Config(), part)["name"]
                self.faults.append(f"{part}: expected a name and fields; type e.g. {part}={usual}")
        if lacking:
            self.faults[:] = [fault for fault in self.faults if not fault.startswith("task.name: missing")]
        self.faults.extend(across(core) if core is not None else [])
        if self.faults or core is None:
            raise ConfigError(self.faults)
        return core

    def early(self, tree: Mapping[str, Any], plugins: bool) -> None:
        """Check the parts by their sources, which takes a second where importing them takes ten.

        Args:
            tree: what was said.
            plugins: there are plugins, which may bring the names that are not known.

        Raises:
            ConfigError: all faults. What cannot be told so is left to `whole`.
        """
        tree = laid({part: getattr(Config(), part) for part in PARTS}, tree)
        named = [(part, tree[part].get("name")) for part in PARTS]
        named += [("callback", name) for name in tree.get("callbacks") or {}]
        unknown = any(name not in registry.sketches(kind) for kind, name in named)
        if any(registry.sketches(kind).get(name, Named) is None for kind, name in named) or (plugins and unknown):
            return
        with suppress(NameError):  # a __post_init__ that needs what was not imported
            Check(self.sources, self.raw).whole(tree, registry.sketches)

    def whole(self, tree: Mapping[str, Any], catalogue: Catalogue) -> Config:
        """Check everything, parts included; plugins must have been imported.

        Raises:
            ConfigError: all faults.
        """
        tree = laid({**{part: getattr(Config(), part) for part in PARTS}, "callbacks": {}}, tree)
        if self.interpolate:
            tree = self.resolved(tree, laid(plain(Config()), unsaid(tree, catalogue)))
        own = {key: value for key, value in tree.items() if key not in (*PARTS, "callbacks")}
        core = self._walk([]).build(Config, own)
        built = {part: self._part(part, tree[part], catalogue(part)) for part in PARTS}
        callbacks = self._callbacks(tree["callbacks"], catalogue("callback"))
        if not self.faults:
            config: Config = replace(core, callbacks=callbacks, **built)
            self.faults.extend(across(config))
            if not self.faults:
                return config
        raise ConfigError(self.faults)

    def _part(self, kind: str, tree: Any, known: Mapping[str, type | None]) -> Any:
        """A part's configuration, or None where something does not fit."""
        name = tree.get("name") if isinstance(tree, Mapping) else None
        listed = ", ".join(sorted({*known, *choices(kind)}))
        if not isinstance(name, str):
            self.faults.append(f"{kind}: expected a name and fields; type {kind}=<one of {listed}>")
            return None
        cls = known.get(name)
        if cls is None:
            near = hint(name, {*known, *choices(kind)})
            self.faults.append(f"{kind}={name}: there is no {kind} {name!r}; known: {listed}{near}")
            return None

        def unknown(key: str) -> str:
            """Whose field it is, or the nearest one of the part's own."""
            others = [one for one, its in known.items() if its and one != name and key in dotted(its, f"{kind}.")]
            no = f"{kind} {name!r} has no such field"
            if others:
                return f"{no}, but {', '.join(others)} has; type {kind}={others[0]} beside it, or leave it out"
            own = dotted(cls, f"{kind}.")
            return f"{no}{hint(key, own) or '; it has ' + ', '.join(one.partition('.')[2] for one in own)}"

        return self._walk([f"{kind}."], unknown).build(cls, tree, f"{kind}.")

    def _callbacks(self, tree: Any, known: Mapping[str, type | None]) -> dict[str, Any] | None:
        """Every callback's configuration by name, or None where the mapping is none."""
        if not isinstance(tree, Mapping):
            self.faults.append("callbacks: expected names with their fields; write callbacks: {name: {field: value}}")
            return None
        built = {}
        for name, own in tree.items():
            cls, place = known.get(name), f"callbacks.{name}."
            if cls is None:
                listed = ", ".join(sorted(known)) + hint(name, known)
                self.faults.append(f"callbacks.{name}: there is no callback {name!r}; known: {listed}")
                continue
            said = {} if own is None else own
            if isinstance(said, Mapping) and "name" in hints(cls):
                said = {"name": name, **said}
            built[name] = self._walk(dotted(cls, place)).build(cls, said, place)
        return built

    def resolved(self, tree: Mapping[str, Any], defaults: Mapping[str, Any], postpone: bool = False) -> dict[str, Any]:
        """The tree with every `${key}` replaced by what it refers to.

        Args:
            tree: what was said; what cannot be read in it becomes a fault and is left out.
            defaults: what is referred to where nothing was said.
            postpone: leave a reference whose key is not there, since a part may bring it.
        """
        if "${" not in repr(tree):
            return dict(tree)
        tree = self._readable(tree, "")
        return self._looked_up(OmegaConf.create(laid(defaults, tree)), tree, "", postpone)

    def _readable(self, tree: Mapping[str, Any], above: str) -> dict[str, Any]:
        """The tree without references that are written wrongly, or that ask for more than a key."""
        kept: dict[str, Any] = {}
        for key, value in tree.items():
            if isinstance(value, Mapping):
                kept[key] = self._readable(value, f"{above}{key}.")
            elif "${" not in repr(value):
                kept[key] = value
            elif others := [one for one in _RESOLVER.findall(_text(value)) if one not in RESOLVERS]:
                why = f"'{others[0]}:' is not looked up, only a key, {' and '.join(f'{one}:' for one in RESOLVERS)}"
                self.faults.append(f"{self.said(above + key, value)}: {why}; expected e.g. ${{replay.length}}")
            else:
                try:
                    OmegaConf.create([value])
                    kept[key] = value
                except (OmegaConfBaseException, RecursionError) as error:
                    self._lost(above + key, value, error)
        return kept

    def _looked_up(self, node: Any, tree: Mapping[str, Any], above: str, postpone: bool) -> dict[str, Any]:
        """Every entry, looked up from its own place, so that relative references work."""
        values: dict[str, Any] = {}
        for key, value in tree.items():
            try:
                if "${" not in repr(value):
                    values[key] = value
                elif isinstance(value, Mapping):
                    values[key] = self._looked_up(node[key], value, f"{above}{key}.", postpone)
                else:
                    there = node[key]
                    values[key] = OmegaConf.to_container(there, resolve=True) if OmegaConf.is_config(there) else there
            except (OmegaConfBaseException, RecursionError, ValueError) as error:
                if not (postpone and isinstance(error, InterpolationKeyError)):
                    self._lost(above + key, value, error)
        return values

    def _lost(self, key: str, value: Any, error: BaseException) -> None:
        """The fault of a reference that leads nowhere."""
        why = "it refers to itself" if isinstance(error, RecursionError) else str(error).partition("\n")[0]
        self.faults.append(f"{self.said(key, value)}: {why}; expected a key that is there, e.g. ${{replay.length}}")

    def said(self, key: str, value: Any) -> str:
        """`key=value (in file)`, the value as typed where it was typed."""
        return self._walk()._said(key, value)

    def _walk(self, known: Sequence[str] = (), unknown: Callable[[str], str] | None = None) -> Walk:
        shared = [f"planner.{name}" for name in _SHARED]
        walk = Walk([*dotted(Config), *shared, *known], self.sources, self.raw, RANGES, _EXAMPLES, self.faults)
        if unknown is not None:
            walk.unknown = lambda key, value: f"{walk._said(key, value)}: {unknown(key)}"
        return walk


def options(
    argv: Sequence[str],
    cls: type[T],
    ranges: Mapping[str, Range] | None = None,
    examples: Mapping[str, str] | None = None,
) -> T:
    """An instance of `cls` from a command line: the same `key=value`, the same messages, over a flat dataclass.

    A field `<group>_fields: dict` takes every `<group>.name=value` beside a field `<group>`, unchecked:
    `planner=cem,grad_mpc planner.candidates=100`.

    Args:
        argv: the tokens.
        cls: a dataclass; a field without a default (or with OmegaConf's MISSING) has to be typed.
        ranges: dotted key to what its value may be.
        examples: dotted key to what to type, for a key that is missing.

    Raises:
        ConfigError: all faults.
    """
    line = read_line(argv, (), texts(cls))
    faults = list(line.faults)
    loose = [key.removesuffix("_fields") for key in dotted(cls) if key.endswith("_fields")]
    own = {key: value for key, value in line.values.items() if key.partition(".")[0] not in loose or "." not in key}
    known = [key for key in dotted(cls) if not key.endswith("_fields")]
    walk = Walk(known, dict.fromkeys(own, TYPED), line.raw, ranges or {}, examples or {}, faults)
    walk.faults.extend(walk.unknown(key, own.pop(key)) for key in list(own) if key.endswith("_fields"))
    tree = nest(typed_entries(line, own), "", faults)
    for group in loose:
        keys = [key for key in line.values if key.startswith(f"{group}.")]
        tree[f"{group}_fields"] = nest(typed_entries(line, keys), "", faults).get(group, {})
    result: T | None = walk.build(cls, tree)
    if walk.faults or result is None:
        raise ConfigError(walk.faults)
    return result


def _text(value: Any) -> str:
    return value if isinstance(value, str) else " ".join(map(_text, value)) if isinstance(value, list) else str(value)
