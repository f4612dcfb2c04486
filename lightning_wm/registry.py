"""Names in YAML become objects here, and only here.

`@register("planner", "mine")` on a class in `lightning_wm/planners/` or in a
user's plugin is all it takes. A class brings its own fields as the frozen
dataclass `Config` (a class attribute) and is built as `cls(config, ...)`.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable
from typing import Any, TypeVar

from lightning_wm.errors import UserError

KINDS = {
    "planner": "lightning_wm.planners",
    "model": "lightning_wm.models",
    "agent": "lightning_wm.agents",
    "callback": "lightning_wm.training",
    "environment": "lightning_wm.envs",
}

_classes: dict[str, dict[str, type]] = {kind: {} for kind in KINDS}
_discovered: set[str] = set()
Cls = TypeVar("Cls", bound=type)


def register(kind: str, name: str) -> Callable[[Cls], Cls]:
    """Class decorator: make `name` a choice for `kind`.

    Raises:
        ValueError: the kind is unknown or another class has the name.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; expected one of {', '.join(KINDS)}")

    def add(cls: Cls) -> Cls:
        known = _classes[kind].get(name)
        if known is not None and known.__qualname__ != cls.__qualname__:
            raise ValueError(f"{kind} {name!r} is already {known.__module__}.{known.__qualname__}; choose another name")
        _classes[kind][name] = cls
        return cls

    return add


def _discover(kind: str) -> None:
    if kind in _discovered:
        return
    package = importlib.import_module(KINDS[kind])
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    _discovered.add(kind)


def names(kind: str) -> list[str]:
    """Every registered name of a kind, sorted."""
    _discover(kind)
    return sorted(_classes[kind])


def lookup(kind: str, name: str) -> Any:
    """The class behind a name.

    Raises:
        UserError: no such name; the message has the nearest one.
    """
    _discover(kind)
    if name not in _classes[kind]:
        near = difflib.get_close_matches(name, _classes[kind], n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"there is no {kind} {name!r}{hint} Known: {', '.join(names(kind))}")
    return _classes[kind][name]


def build(kind: str, config: Any, *args: Any, **kwargs: Any) -> Any:
    """Build what `config.name` names as `cls(config, *args, **kwargs)`."""
    return lookup(kind, config.name)(config, *args, **kwargs)
