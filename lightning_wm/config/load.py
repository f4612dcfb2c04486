"""From a command line to a checked configuration.

The core's keys are checked first; then the parts' fields, as far as the parts' sources tell them, still without torch;
then the parts are imported, plugins before them, and everything is built. Each look reports all of its faults at once.
`${key}` is looked up by OmegaConf, values are checked by pydantic.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import reduce
from operator import getitem
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin

from omegaconf import OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from lightning_wm import registry
from lightning_wm.config.compose import TYPED, Composition, choices, names, nest, read_line
from lightning_wm.config.fields import build, kinds_of, members, nested
from lightning_wm.config.schema import Config
from lightning_wm.config.smoke import shrink
from lightning_wm.config.store import PARTS, completed, flatten, laid, path_of, plain, unflattened
from lightning_wm.config.words import Fault, FieldFaults
from lightning_wm.errors import ConfigError, UserError, hint
from lightning_wm.registry import Catalogue, load_plugins

T = TypeVar("T")
RESOLVERS = ("oc.env", "oc.decode")
"""What `${name:...}` may be beside `${key}`: an environment variable as text, and the value of a text."""
_RESOLVER = re.compile(r"(?<!\\)(?:\\\\)*\$\{\s*([\w.]*)\s*[:$]")
_SHARED = [f"planner.{name}" for name in ("horizon", "iterations", "candidates", "elites", "execute", "replan")]
_A_TASK = "dmc/cartpole_swingup"
_PATHS = ("run", "out", "json")
FEW = 6
"""Keys of a group that are all named where one is misspelled."""


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


def load(argv: Sequence[str], early: Callable[[Loaded], None] | None = None) -> Loaded:
    """Read a command line.

    Args:
        argv: the tokens.
        early: is told what will come, before anything heavy is imported; not where plugins have to be imported first.

    Raises:
        ConfigError: faults of the core's keys, or else of the parts' fields; all of them.
        UserError: a plugin is not to be, or cannot be, imported.
    """
    line = read_line(argv, names(), texts(Config))
    composed = Composition(line)
    tree = {**composed.layers.tree, "recipe": line.values.get("recipe")}
    check = Check(dict(composed.layers.sources), line.raw, composed.faults)
    if composed.path is None:  # that no recipe was read is one fault, not two
        tree = laid({"task": {"name": _A_TASK}}, tree)
    core = check.core(tree)
    plugins = trusted(core.plugins, composed.names_plugins, core.trust)
    if not registry.imported() and check.early(tree, bool(plugins)) and early is not None:
        with suppress(NameError):
            early(_loaded(check, tree, composed, registry.sketches))
    load_plugins(plugins)
    check.strategy(core.trainer.strategy)
    return _loaded(check, tree, composed, registry.configs)


def _loaded(check: Check, tree: Mapping[str, Any], composed: Composition, catalogue: Catalogue) -> Loaded:
    """The whole configuration, made small where `smoke` is set.

    Raises:
        ConfigError: all faults.
    """
    line, sources = composed.line, dict(check.sources)
    config = check.whole(tree, catalogue)
    if config.smoke:
        smaller = shrink(plain(config), typed=set(line.values))
        sources.update(dict.fromkeys(smaller, "smoke=true"))
        config = Check(sources, line.raw).whole(laid(tree, unflattened(smaller)), catalogue)
    full = plain(config)
    origin = {key: sources.get(key, "default") for key, _ in flatten(full)}
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
    own = check.core(tree).plugins
    load_plugins(list(dict.fromkeys([*plugins, *trusted(own, set(own) <= set(plugins), trust)])))
    return check.whole(tree, registry.configs)


def trusted(plugins: list[str], typed: bool, trust: bool) -> list[str]:
    """The plugins to import.

    Raises:
        UserError: only a run's own file names them, and that is code.
    """
    if plugins and not (typed or trust):
        raise UserError(
            f"plugins: the run's configuration names {', '.join(plugins)}, which is code; expected that you name it "
            f"yourself; if you trust it type plugins=[{','.join(plugins)}] or trust=true"
        )
    return plugins


def dotted(cls: type, above: str = "") -> dict[str, Any]:
    """Dotted keys of every field of a dataclass, groups included, and what they are annotated with."""
    keys = {}
    for name, kind in kinds_of(cls).items():
        keys[above + name], inner = kind, nested(kind)
        keys.update(dotted(inner, f"{above}{name}.") if inner is not None else {})
    return keys


def texts(cls: type) -> list[str]:
    """Dotted keys whose values are text as it was typed."""
    return [key for key, kind in dotted(cls).items() if all(_is_text(member) for member in members(kind))]


def _is_text(kind: object) -> bool:
    return kind in (str, type(None)) or (get_origin(kind) is Literal and {*map(type, get_args(kind))} == {str})


def options(argv: Sequence[str], cls: type[T], examples: Mapping[str, str] | None = None) -> T:
    """An instance of `cls` from a command line: the same `key=value`, the same messages, over a flat dataclass.

    A field `<group>_fields: dict` takes every `<group>.name=value` beside a field `<group>`, unchecked:
    `planner=cem,grad_mpc planner.candidates=100`.

    Args:
        argv: the tokens.
        cls: a dataclass; a field without a default has to be typed.
        examples: dotted key to what to type, for a key that is missing.

    Raises:
        ConfigError: all faults.
    """
    known = [key for key in dotted(cls) if not key.endswith("_fields")]
    line = read_line(argv, (), texts(cls))
    check = Check(dict.fromkeys(line.raw, TYPED), line.raw, list(line.faults), examples=examples or {})
    loose = {key: f"{key.removesuffix('_fields')}." for key in dotted(cls) if key.endswith("_fields")}
    own = [key for key in line.values if not key.startswith(tuple(loose.values()))]
    tree = nest(line.entries(own), "", check.faults, parts=())
    for key, group in loose.items():
        if key in tree:
            check.faults.append(f"{check.said(key, None)}: there is no such key{hint(key, known)}")
        inner = (typed for typed in line.values if typed.startswith(group))
        tree[key] = nest(line.entries(inner), "", check.faults).get(group[:-1], {})
    for key in _PATHS:
        if isinstance(tree.get(key), str):
            try:
                tree[key] = str(path_of(key, tree[key]))
            except UserError as error:
                check.faults.append(str(error))
    result: T | None = check.build(cls, tree, "", known)
    if check.faults or result is None:
        raise ConfigError(check.faults)
    return result


class Part(NamedTuple):
    """What has the fields that are checked."""

    name: str
    others: Mapping[str, type | None]
    """Parts of its kind by name, itself among them."""


@dataclass
class Check:
    """Builds settings from trees, and words what does not fit."""

    sources: Mapping[str, str] = field(default_factory=dict)
    raw: Mapping[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    interpolate: bool = True
    """Look up `${...}`; otherwise it is text."""
    examples: Mapping[str, str] = field(default_factory=dict)
    """What to type for a key that is missing."""

    def core(self, tree: Mapping[str, Any]) -> Config:
        """Check the core's keys without torch; parts stay plain dicts.

        Raises:
            ConfigError: all faults, with those met before.
        """
        usual = plain(Config())
        if self.interpolate:
            tree = self.resolved(tree, usual, postpone=True)
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
            tree = self.resolved(tree, completed(tree, catalogue))
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
            self.faults.extend(self._worded(fault, place, known, of) for fault in error.fields)
            return None

    def _worded(self, fault: Fault, place: str, known: Sequence[str], of: Part | None) -> str:
        """A fault with where its value came from and what to type."""
        key, said = fault.key, self.said(fault.key, fault.value)
        if fault.kind == "rule":
            part = key.partition(".")[0]
            whole = not part or fault.message.startswith((f"{part}.", f"{part}:"))
            return fault.message if whole else f"{part}: {fault.message}"
        if fault.kind == "missing":
            example = self.examples.get(key, fault.example)
            return f"{key}: missing; type e.g. {key}={'...' if example is None else example}"
        if fault.kind == "unknown" and of is None:
            return f"{said}: there is no such key{hint(key, known)}{_siblings(key, known)}"
        if fault.kind == "unknown" and of is not None:
            others = (name for name, cls in of.others.items() if cls and key in dotted(cls, f"{place}."))
            near = hint(key, known) or "; it has " + ", ".join(one.partition(".")[2] for one in known)
            if having := list(others):
                near = f", but {', '.join(having)} has; type {place}={having[0]} beside it, or leave it out"
            return f"{said}: {place} {of.name!r} has no such field{near}"
        below = next((inner for inner in known if inner.startswith(f"{key}.")), None)
        if below is not None:
            return f"{said}: {fault.message}; write {key}: {{{below.removeprefix(f'{key}.')}: ...}}, or leave it out"
        shown = str(fault.example).lower() if isinstance(fault.example, bool) else fault.example
        advice = "" if shown is None or "type e.g." in fault.message else f"; type e.g. {key}={shown}"
        return f"{said}: {fault.message}{advice}"

    def said(self, key: str, value: object) -> str:
        """`key=value (in file)`, the value as typed where it was typed."""
        near = (source for name, source in self.sources.items() if name.startswith(f"{key}."))
        source = self.sources.get(key) or next(near, TYPED)
        where = "" if source == TYPED else f" (in {source})"
        text = self.raw.get(key) if source == TYPED else None
        shown = text if text is not None else "null" if value is None else str(value)
        return f"{key}{where}" if isinstance(value, Mapping) else f"{key}={shown[:80]}{where}"

    def resolved(self, tree: Mapping[str, Any], usual: Mapping[str, Any], postpone: bool = False) -> dict[str, Any]:
        """The tree with every `${key}` replaced by what it refers to; what cannot be is a fault, and left out.

        Args:
            tree: what was said.
            usual: what is referred to where nothing was said.
            postpone: leave a reference out whose key is not there, since a part may bring it.
        """
        leaves = dict(flatten(tree))
        references = {key: value for key, value in leaves.items() if "${" in repr(value)}

        def each(look: Callable[[str, Any], Any]) -> None:
            for key in references.keys() & leaves.keys():
                try:
                    leaves[key] = look(key, references[key])
                except (OmegaConfBaseException, RecursionError, ValueError) as error:
                    del leaves[key]
                    if not (postpone and isinstance(error, InterpolationKeyError)):
                        self._lost(key, references[key], error)

        each(_readable)
        if references:
            whole = OmegaConf.create(laid(usual, unflattened(leaves)))
            each(lambda key, _: _looked_up(whole, key))
        return unflattened(leaves)

    def _lost(self, key: str, value: object, error: BaseException) -> None:
        """The fault of a reference that leads nowhere."""
        why = "it refers to itself" if isinstance(error, RecursionError) else str(error).partition("\n")[0]
        self.faults.append(f"{self.said(key, value)}: {why}; expected a key that is there, e.g. ${{replay.length}}")


def _readable(key: str, value: object) -> Any:
    """The value of a leaf as it stands, whose references are all `${key}` or of `RESOLVERS`.

    Raises:
        ValueError, OmegaConfBaseException: one is of another kind, or cannot be read.
    """
    other = next((name for name in _RESOLVER.findall(_text(value)) if name not in RESOLVERS), None)
    if other is not None:
        raise ValueError(f"'{other}:' is not looked up, only a key, oc.env: and oc.decode:")
    OmegaConf.create([value])
    return value


def _looked_up(tree: Any, key: str) -> Any:
    """What a leaf refers to, looked up from its own place, so that relative references work."""
    there = reduce(getitem, key.split("."), tree)
    return OmegaConf.to_container(there, resolve=True) if OmegaConf.is_config(there) else there


def _text(value: object) -> str:
    return " ".join(map(_text, value)) if isinstance(value, list) else str(value)


def _siblings(key: str, known: Sequence[str]) -> str:
    """The keys of the same small group."""
    group = key.rpartition(".")[0]
    names = [each.rpartition(".")[2] for each in known if group and each.rpartition(".")[0] == group]
    return f" Known there: {', '.join(names)}." if 0 < len(names) <= FEW else ""
