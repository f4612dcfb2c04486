"""`${replay.length}` in a recipe: OmegaConf looks it up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException


def resolve(
    tree: Mapping[str, Any], context: Mapping[str, Any], faults: list[str], postpone: bool = False
) -> dict[str, Any]:
    """The tree with every interpolation replaced by what it refers to.

    Args:
        tree: nested plain dicts.
        context: the same with defaults filled in, where what is referred to is looked up.
        faults: what cannot be looked up is added here.
        postpone: leave an interpolation whose key is not there, since a part may bring it.
    """
    if "${" not in repr(tree):
        return dict(tree)
    try:
        config = OmegaConf.create(dict(context))
    except (OmegaConfBaseException, RecursionError) as error:
        faults.append(f"an interpolation cannot be read: {_first(error)}; expected e.g. ${{replay.length}}")
        return settled(tree)
    return {key: _value(config, key, value, key, faults, postpone) for key, value in tree.items()}


def settled(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The tree without what is still to be looked up."""
    return {
        key: settled(value) if isinstance(value, Mapping) else value
        for key, value in tree.items()
        if isinstance(value, Mapping) or "${" not in repr(value)
    }


def _value(config: Any, key: Any, value: Any, dotted: str, faults: list[str], postpone: bool) -> Any:
    """One entry, looked up from its own place so that relative interpolations work."""
    if "${" not in repr(value):
        return value
    try:
        node = config[key]
        if isinstance(value, Mapping):
            return {one: _value(node, one, inner, f"{dotted}.{one}", faults, postpone) for one, inner in value.items()}
        return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    except InterpolationKeyError as error:
        if not postpone:
            faults.append(f"{dotted}={value}: {_first(error)}; expected a key that is there, e.g. ${{replay.length}}")
    except (OmegaConfBaseException, RecursionError, ValueError) as error:
        faults.append(f"{dotted}={value}: {_first(error)}; expected e.g. ${{replay.length}}")
    return value


def _first(error: BaseException) -> str:
    return "it refers to itself" if isinstance(error, RecursionError) else str(error).splitlines()[0]
