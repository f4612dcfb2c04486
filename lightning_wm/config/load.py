"""From a command line to a checked configuration, in two walks.

The first checks the core's keys and imports no torch; the second imports the
parts and checks their fields. Each reports all of its faults at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lightning_wm.config.compose import Composition
from lightning_wm.config.layers import flatten, laid, nest
from lightning_wm.config.line import read_line
from lightning_wm.config.plugins import load_plugins
from lightning_wm.config.recipes import PARTS, names
from lightning_wm.config.resolve import resolve, settled
from lightning_wm.config.schema import Config
from lightning_wm.config.smoke import shrink
from lightning_wm.config.walk import DEFAULT, TYPED, Walk, dotted, plain
from lightning_wm.errors import ConfigError, UserError

_SHARED = ("horizon", "iterations", "candidates", "elites", "execute", "replan", "warm_start")


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
    line = read_line(argv, names())
    composed = Composition(line)
    tree, sources = composed.layers.tree, composed.layers.sources
    tree["recipe"] = line.raw.get("recipe")
    core = first_walk(tree, sources, line.raw, composed.faults, lacking=composed.path is None)
    if composed.from_run and core.plugins and sources.get("plugins") != TYPED and not line.values.get("trust"):
        raise _untyped(core.plugins)
    load_plugins(core.plugins)
    config = second_walk(tree, sources, line.raw)
    if config.smoke:
        smaller = shrink(plain(config), typed=set(line.values))
        for key in smaller:
            sources[key] = "smoke=true"
        config = second_walk(laid(tree, nest(smaller)), sources, line.raw)
    full = plain(config)
    origin = {key: sources.get(key, DEFAULT) for key, _ in flatten(full)}
    overrides = [token for token in line.tokens() if not token.startswith("recipe=")]
    return Loaded(config, full, origin, run_name(composed), overrides)


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
    core = first_walk(tree, {}, {}, [], interpolate=False)
    if set(core.plugins) - set(plugins) and not trust:
        raise _untyped(core.plugins)
    load_plugins(list(dict.fromkeys([*plugins, *core.plugins])))
    return second_walk(tree, {}, {}, interpolate=False)


def first_walk(
    tree: Mapping[str, Any],
    sources: Mapping[str, str],
    raw: Mapping[str, str],
    faults: list[str],
    lacking: bool = False,
    interpolate: bool = True,
) -> Config:
    """Check the core's keys without torch; parts stay plain dicts.

    Args:
        tree: what was said.
        sources: where each leaf came from.
        raw: dotted key to the text as typed.
        faults: met before; raised together with those found here.
        lacking: no recipe was read, so that nothing else can be missing.
        interpolate: look up `${...}`; otherwise it is text.

    Raises:
        ConfigError: all faults.
    """
    if interpolate:
        tree = settled(resolve(tree, laid(plain(Config()), tree), faults, postpone=True))
    walk = _core_walk(sources, raw)
    core: Config | None = walk.build(Config, tree)
    for part in PARTS:
        if not isinstance(tree.get(part, {}), Mapping):
            usual = getattr(Config(), part)["name"]
            walk.faults.append(f"{part}: expected a name and fields; type e.g. {part}={usual}")
    faults.extend(fault for fault in walk.faults if not (lacking and fault.startswith("task.name: missing")))
    if faults or core is None:
        raise ConfigError(faults)
    return core


def second_walk(
    tree: Mapping[str, Any], sources: Mapping[str, str], raw: Mapping[str, str], interpolate: bool = True
) -> Config:
    """Check everything, parts included; plugins must have been imported.

    Raises:
        ConfigError: all faults.
    """
    from lightning_wm.config.parts import build_callbacks, build_part, unsaid

    walk = _core_walk(sources, raw)
    tree = laid({part: getattr(Config(), part) for part in PARTS}, {"callbacks": {}}, tree)
    if interpolate:
        tree = resolve(tree, laid(plain(Config()), unsaid(tree), tree), walk.faults)
    core = walk.build(Config, {key: value for key, value in tree.items() if key not in (*PARTS, "callbacks")})
    built = {part: build_part(walk, part, tree[part]) for part in PARTS}
    callbacks = build_callbacks(walk, tree["callbacks"])
    if not walk.faults and core is not None:
        config: Config = replace(core, callbacks=callbacks, **built)
        return config
    raise ConfigError(walk.faults)


def run_name(composed: Composition) -> str:
    """The recipe's name for a run directory: a file's stem, or for a run's configuration the run's and `-again`."""
    named, path = composed.line.raw["recipe"], composed.path
    assert path is not None  # the first walk raised otherwise
    if path.name == "config.yaml":
        return f"{path.resolve().parent.name}-again"
    return named.replace("/", "-") if named in names() else path.stem


def _core_walk(sources: Mapping[str, str], raw: Mapping[str, str]) -> Walk:
    shared = [f"planner.{name}" for name in _SHARED]
    return Walk([*dotted(Config), *shared], sources, raw)


def _untyped(modules: Sequence[str]) -> UserError:
    """The refusal to import what only a run's own file names."""
    return UserError(
        f"plugins: the run's configuration names {', '.join(modules)}, which is code; expected that you name it "
        f"yourself; if you trust it type plugins=[{','.join(modules)}] or trust=true"
    )
