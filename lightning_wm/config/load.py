"""From a command line to a checked configuration.

The core's keys are checked first; then the parts' fields, as far as the parts' sources tell them, still without torch;
then the parts are imported, plugins before them, and everything is built. Each look reports all of its faults at once.
`${key}` is looked up by OmegaConf, values are checked by pydantic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lightning_wm import registry
from lightning_wm.config.check import Check
from lightning_wm.config.compose import Composition
from lightning_wm.config.keys import texts
from lightning_wm.config.line import read_line
from lightning_wm.config.schema import Config
from lightning_wm.config.shipped import names
from lightning_wm.config.smoke import shrink
from lightning_wm.config.store import flatten, laid, plain, unflattened
from lightning_wm.errors import UserError
from lightning_wm.registry import Catalogue, load_plugins

_A_TASK = "dmc/cartpole_swingup"


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
