"""Trees as YAML that `recipe=` and other YAML readers take alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]

from lightning_wm.config.load import Loaded
from lightning_wm.config.runs import stored

_PLAIN = re.compile(r"[A-Za-z][\w./-]*")
_WORDS = {"true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan", "inf"}


def to_yaml(tree: Mapping[str, Any]) -> str:
    """A resolved tree as a run's `config.yaml`, without what is about the command only."""
    return "\n".join(_lines(stored(tree), "", "", lambda key: "", _quoted)) + "\n"


def printed(loaded: Loaded) -> str:
    """The resolved configuration, each line with where its value came from; a recipe in itself."""

    def comment(key: str) -> str:
        return f"  # {loaded.sources.get(key, 'default')}"

    tree = {key: value for key, value in loaded.tree.items() if key not in ("recipe", "smoke", "trust")}
    return "\n".join(_lines(tree, "", "", comment, _escaped)) + "\n"


def _lines(
    tree: Mapping[str, Any], indent: str, prefix: str, comment: Callable[[str], str], text: Callable[[str], str]
) -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield f"{indent}{_quoted(key)}:"
            yield from _lines(value, f"{indent}  ", f"{prefix}{key}.", comment, text)
        else:
            yield f"{indent}{_quoted(key)}: {_leaf(value, text)}{comment(prefix + key)}"


def _leaf(value: Any, text: Callable[[str], str]) -> str:
    """A value on one line."""
    if isinstance(value, str):
        return text(value)
    if isinstance(value, list):
        return "[" + ", ".join(_leaf(one, text) for one in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_quoted(key)}: {_leaf(one, text)}" for key, one in value.items()) + "}"
    return str(yaml.safe_dump([value], default_flow_style=True).strip()[1:-1])


def _quoted(value: str) -> str:
    """Text, in quotes where some YAML reader could take it for something else."""
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    dumped = yaml.safe_dump([value], default_style='"', default_flow_style=True, width=float("inf"))
    return str(dumped).strip()[1:-1]


def _escaped(value: str) -> str:
    """Text in which `${` is meant as it stands."""
    return _quoted(re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", value))
