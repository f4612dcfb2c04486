"""`${key}` in settings, looked up by OmegaConf."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import reduce
from operator import getitem
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from lightning_wm.config.store import flatten, laid, unflattened
from lightning_wm.config.wording import Wording

RESOLVERS = ("oc.env", "oc.decode")
"""What `${name:...}` may be beside `${key}`: an environment variable as text, and the value of a text."""
_RESOLVER = re.compile(r"(?<!\\)(?:\\\\)*\$\{\s*([\w.]*)\s*[:$]")


def resolved(
    tree: Mapping[str, Any], usual: Mapping[str, Any], wording: Wording, postpone: bool = False
) -> dict[str, Any]:
    """The tree with every `${key}` replaced by what it refers to; what cannot be is a fault, and left out.

    Args:
        tree: what was said.
        usual: what is referred to where nothing was said.
        wording: takes the faults.
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
                    _lost(key, references[key], error, wording)

    each(_readable)
    if references:
        whole = OmegaConf.create(laid(usual, unflattened(leaves)))
        each(lambda key, _: _looked_up(whole, key))
    return unflattened(leaves)


def _lost(key: str, value: object, error: BaseException, wording: Wording) -> None:
    """The fault of a reference that leads nowhere."""
    why = "it refers to itself" if isinstance(error, RecursionError) else str(error).partition("\n")[0]
    wording.faults.append(f"{wording.said(key, value)}: {why}; expected a key that is there, e.g. ${{replay.length}}")


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
