"""Settings: frozen dataclasses whose bounds stand at their fields. Imports no torch.

    @settings("planner")
    class MineConfig:
        candidates: Count = 64
        mode: Literal["best", "mean"] = "best"

Both `MineConfig(candidates=0)` and `build(MineConfig, {"candidates": 0}, "planner")` say
`planner.candidates=0: expected at least 1`. Rules across fields are a `__post_init__` that raises ValueError.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, cast, dataclass_transform, get_args, get_origin, get_type_hints

import pydantic
from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import rebuild_dataclass
from pydantic_core import ArgsKwargs

from lightning_wm.config.words import LARGEST, MAPPING, MISSING, Fault, FieldFaults, choices, example, of_field
from lightning_wm.errors import UserError, hint

T = TypeVar("T")
Cls = TypeVar("Cls", bound=type)
_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)
_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, description="a seed of 0 or more")]
Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1, description="a share between 0 and 1")]
Factor = Annotated[float, Field(gt=0, le=1, description="a factor in (0, 1]")]


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, Field))
def settings(place: str) -> Callable[[Cls], Cls]:
    """Class decorator: a frozen dataclass that checks itself, strictly: nothing is rounded, no text is a number.

    Args:
        place: dotted key of the part in a configuration, `planner` or `agent.actor`; empty for the whole of it.
    """

    def make(cls: Cls) -> Cls:
        made: Any = pydantic.dataclasses.dataclass(cls, config=_STRICT, frozen=True)
        rebuild_dataclass(made)  # what an annotation lacks is said here, not at the first use
        construct = made.__init__

        @functools.wraps(construct)
        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
            try:
                construct(self, *args, **kwargs)
            except ValidationError as error:
                given = {**dict(zip(kinds_of(made), args, strict=False)), **kwargs}
                raise FieldFaults(_faults(error, made, place, given)) from None

        made.__init__, made.__place__ = __init__, place
        return cast(Cls, made)

    return make


@functools.cache
def kinds_of(cls: Any) -> dict[str, Any]:
    """A dataclass's fields and what they are annotated with, bounds included.

    Raises:
        UserError: an annotation names what cannot be found.
    """
    try:
        kinds = get_type_hints(cls, include_extras=True)
    except Exception as error:
        raise UserError(f"{cls.__module__}.{cls.__qualname__}: its annotations cannot be read ({error})") from error
    return {field.name: kinds[field.name] for field in dataclasses.fields(cls) if field.init}


def members(kind: object) -> Iterator[Any]:
    """The alternatives of an annotation (`int | None`), bounds left out."""
    origin = get_origin(kind)
    if origin is Annotated:
        yield from members(get_args(kind)[0])
    elif origin is None or origin in (list, tuple, dict, Sequence, Mapping, Literal):
        yield kind
    else:
        for member in get_args(kind):
            yield from members(member)


def nested(kind: object) -> type | None:
    """The dataclass of a field that is one (or may be null), else None."""
    return next(
        (member for member in members(kind) if isinstance(member, type) and dataclasses.is_dataclass(member)), None
    )


def default(field: dataclasses.Field[Any]) -> Any:
    """A field's default, `MISSING` where it has none."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return MISSING if field.default is dataclasses.MISSING else field.default


def build(cls: type[T], tree: Any, place: str, typed: Mapping[str, str] | None = None, base: T | None = None) -> T:
    """An instance of `cls` from plain containers, nested settings included.

    `1e3` is a whole number here, `on` and `no` are true and false, and `a,b` is a list of text.

    Args:
        cls: a class of `settings`, or any other dataclass.
        tree: field to value; fields it lacks have their defaults.
        place: dotted key of the tree, empty for the root.
        typed: dotted key to the text that was typed, which a text field takes even where YAML sees a number.
        base: an instance whose values are the defaults instead of the class's.

    Raises:
        FieldFaults: everything that does not fit.
    """
    faults: list[Fault] = []
    made = _build(cls, tree, place, typed or {}, base, faults)
    if faults:
        raise FieldFaults(faults)
    return cast(T, made)


def _build(cls: Any, tree: Any, place: str, typed: Mapping[str, str], base: Any, faults: list[Fault]) -> Any:
    if not isinstance(tree, Mapping):
        faults.append(Fault(place, tree, f"expected {MAPPING}", "type"))
        return None
    kinds, prefix, before = kinds_of(cls), f"{place}." if place else "", len(faults)
    faults.extend(_unknown(prefix + name, tree[name], kinds) for name in tree if name not in kinds)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        name, key = field.name, prefix + field.name
        if name not in kinds:
            continue
        usual = default(field) if base is None else getattr(base, name)
        value, inner = tree.get(name, usual), nested(kinds[name])
        if isinstance(value, str) and value == MISSING:
            faults.append(Fault(key, None, "missing", "missing", example(kinds[name], usual)))
        elif (
            inner is not None
            and not (name in tree and isinstance(value, inner))
            and not (value is None and type(None) in members(kinds[name]))
        ):
            own = usual if isinstance(usual, inner) else None
            made = _build(inner, tree.get(name, {}), key, typed, own, faults)
            if made is not None:
                values[name] = made
        elif name in tree or base is not None:
            values[name] = fitted(value, kinds[name], typed.get(key))
            if isinstance(values[name], int) and abs(values[name]) >= LARGEST:
                faults.append(Fault(key, value, "expected a whole number of 18 digits at most", "bound"))
    return _checked(cls, values, place, faults, before)


def _checked(cls: Any, values: dict[str, Any], place: str, faults: list[Fault], before: int) -> Any:
    """The instance, or None; where fields already have faults the rules across fields are left out."""
    strict, broken = _strict(cls), len(faults) > before
    try:
        made = object.__new__(strict)
        strict.__pydantic_validator__.validate_python(ArgsKwargs((), values), self_instance=made)
        if broken or strict is cls:
            return None if broken else made
        return cls(**{name: getattr(made, name) for name in kinds_of(cls)})
    except ValidationError as error:
        known = {fault.key for fault in faults[before:]}
        further = [fault for fault in _faults(error, cls, place, values) if fault.key not in known]
        faults.extend(fault for fault in further if not (broken and fault.kind in ("rule", "missing")))
    except (ValueError, UserError) as error:
        if not broken:
            faults.append(Fault(place, values, str(error), "rule"))
    return None


@functools.cache
def _strict(cls: Any) -> Any:
    """The class that checks: itself, or for a dataclass of another kind one below it."""
    if "__place__" in vars(cls):
        return cls
    below = type(cls.__name__, (cls,), {"__module__": cls.__module__, "__annotations__": {}})
    made = pydantic.dataclasses.dataclass(below, config=_STRICT, frozen=cls.__dataclass_params__.frozen)
    rebuild_dataclass(made)
    return made


def _faults(error: ValidationError, cls: Any, place: str, values: Mapping[str, Any]) -> list[Fault]:
    """Pydantic's errors about an object, one for each field."""
    kinds, prefix = kinds_of(cls), f"{place}." if place else ""
    faults: dict[str, Fault] = {}
    usual = {field.name: default(field) for field in dataclasses.fields(cls)}
    for entry in error.errors(include_url=False):
        where = entry["loc"][0] if entry["loc"] else None
        name = list(kinds)[where] if isinstance(where, int) and where < len(kinds) else str(where)
        if where is None:
            told = Fault(place, values, str(entry.get("ctx", {}).get("error", entry["msg"])), "rule")
        elif name not in kinds:
            told = _unknown(f"{prefix}{name}", entry["input"], kinds)
        elif entry["type"] in ("missing", "missing_argument"):
            told = Fault(f"{prefix}{name}", None, "missing", "missing", example(kinds[name], MISSING))
        else:
            told = of_field(entry, f"{prefix}{name}", kinds[name], values.get(name), usual[name])
        faults.setdefault(told.key, told)
    return list(faults.values())


def _unknown(key: str, value: object, kinds: Mapping[str, Any]) -> Fault:
    return Fault(key, value, f"there is no such field{hint(key.rpartition('.')[2], kinds)}", "unknown")


def fitted(value: Any, kind: object, typed: str | None = None) -> Any:
    """What YAML gives, as a strict field takes it; what does not fit is left for the check to refuse."""
    kinds = list(members(kind))
    if type(value) in kinds:
        return value
    if isinstance(value, float) and int in kinds and float not in kinds and value.is_integer() and abs(value) <= 2**53:
        return int(value)  # 1e3 is a whole number too, as far as floating point counts
    if isinstance(value, str) and bool in kinds and value.lower() in _TRUTH:
        return _TRUTH[value.lower()]
    if typed is not None and isinstance(value, bool | int | float) and (str in kinds or typed in choices(kind)):
        return typed
    for member in kinds:
        origin, arguments = get_origin(member) or member, get_args(member) or (Any,)
        if origin in (list, tuple, Sequence):
            value = _items(value, origin, arguments, typed)
        elif origin in (dict, Mapping) and isinstance(value, Mapping):
            return {key: fitted(item, arguments[-1]) for key, item in value.items()}
    return value


def _items(value: Any, origin: Any, arguments: tuple[Any, ...], typed: str | None) -> Any:
    """A list, or for text `a,b` as it is typed on a command line."""
    text = value if isinstance(value, str) else typed if isinstance(value, int | float) else None
    kinds = set(members(arguments[0]))
    if text is not None and kinds & {str, int, float}:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        value = parts if str in kinds else [_number(part) for part in parts]
    if not isinstance(value, list | tuple):
        return value
    each = arguments if origin is tuple and Ellipsis not in arguments else arguments[:1] * len(value)
    items = [fitted(item, kind) for item, kind in zip(value, each, strict=False)] + list(value[len(each) :])
    return tuple(items) if origin is tuple else items


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
