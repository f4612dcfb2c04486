"""Names in YAML become objects here, and only here.

`@register("planner", "mine")` on a class in `lightning_wm/planners/` or in a
user's plugin is all it takes. A class brings its own fields as the frozen
dataclass `Config` (a class attribute) and is built as `cls(config, ...)`.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import importlib
import pkgutil
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.abc import InspectLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, TypeVar

from lightning_wm.errors import UserError, hint

Catalogue = Callable[[str], Mapping[str, "type | None"]]
"""A kind of part to its names and the dataclasses of their fields."""
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
        known = names(kind)
        raise UserError(f"there is no {kind} {name!r}{hint(name, known) or '.'} Known: {', '.join(known)}")
    return _classes[kind][name]


def build(kind: str, config: Any, *args: Any, **kwargs: Any) -> Any:
    """Build what `config.name` names as `cls(config, *args, **kwargs)`."""
    return lookup(kind, config.name)(config, *args, **kwargs)


@dataclass(frozen=True)
class Named:
    """The configuration of a part that brings no fields of its own."""

    name: str


@dataclass(frozen=True)
class Bare:
    """The configuration of a callback that brings no fields of its own."""


def config_class(kind: str, name: str) -> type:
    """The dataclass of a registered class's fields."""
    own = getattr(lookup(kind, name), "Config", None)
    return own if isinstance(own, type) else Bare if kind == "callback" else Named


def configs(kind: str) -> Mapping[str, type | None]:
    """Every name of a kind with the dataclass of its fields; imports the parts, and torch with them."""
    return {name: config_class(kind, name) for name in names(kind)}


def load_plugins(modules: Sequence[str]) -> None:
    """Import the user's own modules, so that what they register can be named.

    Raises:
        UserError: a module cannot be imported, or ends the process when it is.
    """
    for name in modules:
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:
            raise UserError(
                f"plugins: {name!r} cannot be imported ({type(error).__name__}: {error}); expected a module that "
                f"'python -c \"import {name}\"' finds here; install it or start from the folder it lies in"
            ) from error


def imported() -> bool:
    """Whether the package's parts have been imported, so that looking into the registry costs nothing more."""
    return {"planner", "model", "agent", "callback"} <= _discovered


# ---- the same without importing: what the source of a part says about its fields


_SKETCH = "sketch of "
_LIGHT = (f"{__package__}.config", f"{__package__}.errors", f"{__package__}.registry")


class UnreadableError(Exception):
    """A name whose value cannot be had without importing more than the standard library and pydantic."""


@cache
def sketches(kind: str) -> Mapping[str, type | None]:
    """Name to `Config` class of the package's own parts, in a second instead of torch's ten.

    The class statement is imported alone, with the names that it needs, out of the source of each module. None stands
    for a class that cannot be read so. Only good for looking: what is built comes from the imported modules.
    """
    classes: dict[str, type | None] = {}
    folder = KINDS[kind]
    for module in pkgutil.iter_modules([str(_file(folder).parent)]):
        for node in _statements(f"{folder}.{module.name}").values():
            for decorator in node.decorator_list if isinstance(node, ast.ClassDef) else []:
                named = re.fullmatch(rf"register\('{kind}', '(.+)'\)", ast.unparse(decorator))
                if named:
                    classes[named[1]] = _config(f"{folder}.{module.name}", node)
    return classes


def _config(module: str, node: ast.AST) -> type | None:
    """The class that a part's `Config = ...` names."""
    for line in node.body if isinstance(node, ast.ClassDef) else []:
        if isinstance(line, ast.Assign | ast.AnnAssign) and line.value is not None and "Config" in _targets(line):
            with suppress(UnreadableError):
                value = _value(module, ast.unparse(line.value))
                return value if isinstance(value, type) else None
    return None


def _file(module: str) -> Path:
    path = Path(__file__).parent.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _statements(module: str) -> dict[str, ast.stmt]:
    """Each name that a module has, with the statement that binds it."""
    bound: dict[str, ast.stmt] = {}
    for node in ast.parse(_file(module).read_text("utf-8")).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            bound.update({alias.asname or alias.name: node for alias in node.names})
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            bound[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            bound.update(dict.fromkeys(_targets(node), node))
    return bound


def _targets(node: ast.Assign | ast.AnnAssign) -> list[str]:
    """The names that an assignment binds."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]


class _Statement(InspectLoader):
    """Imports a single statement of a module of this package: what importing the whole would do, and less."""

    def __init__(self, module: str, node: ast.stmt) -> None:
        self.module, self.node = module, node

    def get_source(self, fullname: str) -> str:
        """The statement."""
        return ast.unparse(self.node)

    def get_code(self, fullname: str) -> CodeType:
        """The statement with its own lines, so that its source can be found."""
        tree, flag = ast.Module([self.node], []), __future__.annotations.compiler_flag
        code: CodeType = compile(tree, str(_file(self.module)), "exec", flag)
        return code


@cache
def _namespace(module: str) -> dict[str, Any]:
    """Where the statements of a module are run; in `sys.modules`, where annotations are looked up."""
    shadow = ModuleType(_SKETCH + module)
    shadow.__file__ = str(_file(module))
    sys.modules[shadow.__name__] = shadow
    return shadow.__dict__


def _value(module: str, name: str) -> Any:
    """The value of a module's name, from as few of its statements as it takes.

    Raises:
        UnreadableError: it needs a library that is slow to import.
    """
    library = module.partition(".")[0]
    if library != __package__ or module.startswith(_LIGHT):
        if library not in {*sys.stdlib_module_names, "pydantic", "annotated_types", __package__}:
            raise UnreadableError(f"{module}.{name}")
        if name not in vars(importlib.import_module(module)):
            raise UnreadableError(f"{module}.{name}")
        return vars(importlib.import_module(module))[name]
    space, node = _namespace(module), _statements(module).get(name)
    if name in space:
        return space[name]
    if node is None or isinstance(node, ast.Import):
        if node is None or name.partition(".")[0] not in sys.stdlib_module_names:
            raise UnreadableError(f"{module}.{name}")
        space[name] = importlib.import_module(name)
    elif isinstance(node, ast.ImportFrom):
        original = next(alias.name for alias in node.names if name in (alias.asname, alias.name))
        space[name] = _value(node.module or "", original)
    else:
        space[name] = None  # for one that names itself
        needed = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)} - set(dir(builtins))
        for other in sorted(needed & set(_statements(module)) - {name}):
            with suppress(UnreadableError):  # a method may name what no field needs
                _value(module, other)
        del space[name]
        try:
            _Statement(module, node).exec_module(sys.modules[_SKETCH + module])
        except Exception as error:
            raise UnreadableError(f"{module}.{name}: {error}") from error
    return space[name]
