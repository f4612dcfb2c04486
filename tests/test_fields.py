"""Settings that check themselves: what fits, what is refused and how that is said, in Python and from plain trees."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, Field

from lightning_wm import registry
from lightning_wm.config.fields import (
    Count,
    Factor,
    Natural,
    Positive,
    Seed,
    Share,
    Weight,
    build,
    members,
    nested,
    settings,
)
from lightning_wm.config.schema import Config
from lightning_wm.config.words import FieldFaults, expected
from lightning_wm.errors import ConfigError
from lightning_wm.registry import config_class as fields_of


def _even(number: int) -> int:
    if number % 2:
        raise ValueError("it is odd")
    return number


@settings("part.inner")
class Inner:
    """Nested settings."""

    low: float = 0.0
    """Lower end."""
    high: float = 1.0
    """Upper end."""

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"part.inner: low {self.low:g} is above high {self.high:g}")


@settings("part")
class Base:
    """Settings with a field of every kind."""

    name: str = "base"
    count: Count = 3
    least: Annotated[int, Field(ge=2, le=8, description="2 to 8")] = 2
    even: Annotated[int, AfterValidator(_even)] = 2
    rate: Positive = 0.5
    share: Share = 0.5
    factor: Factor = 1.0
    weight: Weight = 0.0
    natural: Natural | None = None
    seed: Seed = 0
    mode: Literal["best", "mean", "sample"] = "best"
    side: Literal["left", "right"] = "left"
    flag: bool = True
    words: list[str] = field(default_factory=list)
    pair: tuple[int, float] = (1, 2.0)
    loose: dict[str, Any] = field(default_factory=dict)
    unlimited: Annotated[float, Field(allow_inf_nan=True)] = math.inf
    inner: Inner = field(default_factory=lambda: Inner(low=0.25))


@settings("part")
class Below(Base):
    """Inherits, and changes a default and a bound."""

    count: Annotated[int, Field(ge=5)] = 5
    more: int = 1


@dataclass(frozen=True)
class Plain:
    """A user's own dataclass."""

    horizon: int = 6
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.horizon < 1:
            raise ValueError(f"horizon is {self.horizon}")


@dataclass
class Thawed:
    """Neither frozen nor of `settings`, below a class that is none."""

    rate: float = 0.1
    needed: int = field(kw_only=True)


def faults(cls: Any, tree: Any, **more: Any) -> list[tuple[str, str]]:
    """Kinds and texts of everything that is wrong with a tree."""
    with pytest.raises(FieldFaults) as caught:
        build(cls, tree, "part", **more)
    return [(fault.kind, str(fault)) for fault in caught.value.fields]


@pytest.mark.parametrize(
    ("tree", "kind", "text"),
    [
        ({"count": 0}, "bound", "part.count=0: expected at least 1"),
        ({"least": 9}, "bound", "part.least=9: expected 2 to 8"),
        ({"even": 3}, "bound", "part.even=3: it is odd"),
        ({"rate": 0}, "bound", "part.rate=0: expected a positive number"),
        ({"rate": math.nan}, "bound", "part.rate=nan: expected a number"),
        ({"rate": math.inf}, "bound", "part.rate=inf: expected a finite number"),
        ({"weight": float("1e400")}, "bound", "part.weight=inf: expected a finite number"),
        ({"weight": -0.5}, "bound", "part.weight=-0.5: expected at least 0"),
        ({"share": 1.5}, "bound", "part.share=1.5: expected a share between 0 and 1"),
        ({"factor": 0.0}, "bound", "part.factor=0.0: expected a factor in (0, 1]"),
        ({"natural": -1}, "bound", "part.natural=-1: expected at least 0"),
        ({"seed": -1}, "bound", "part.seed=-1: expected a seed of 0 or more"),
        ({"count": 10**18 * 10}, "bound", f"part.count={10**19}: expected a whole number of 18 digits at most"),
        ({"mode": "bset"}, "bound", "part.mode=bset: expected one of best, mean, sample; did you mean 'best'?"),
        ({"mode": 3}, "bound", "part.mode=3: expected one of best, mean, sample"),
        ({"side": "up"}, "bound", "part.side=up: expected one of left, right"),
        ({"count": 1.5}, "type", "part.count=1.5: expected a whole number"),
        ({"count": True}, "type", "part.count=True: expected a whole number"),
        ({"count": "5"}, "type", "part.count=5: expected a whole number"),
        ({"count": None}, "type", "part.count=None: expected a whole number"),
        ({"natural": "x"}, "type", "part.natural=x: expected a whole number or null"),
        ({"rate": True}, "type", "part.rate=True: expected a number"),
        ({"rate": "1"}, "type", "part.rate=1: expected a number"),
        ({"flag": 1}, "type", "part.flag=1: expected true or false"),
        ({"name": 5}, "type", "part.name=5: expected text (put it in quotes)"),
        ({"name": None}, "type", "part.name=None: expected text"),
        ({"words": [1]}, "type", "part.words=[1]: expected a list, each text"),
        ({"pair": [1, 2, 3]}, "type", "part.pair=(1, 2, 3): expected a list of 2"),
        ({"loose": 3}, "type", "part.loose=3: expected keys and values ({key: value})"),
        ({"inner": 3}, "type", "part.inner=3: expected keys and values ({key: value})"),
        ({"inner": {"low": "a"}}, "type", "part.inner.low=a: expected a number"),
        ({"inner": {"lo": 1}}, "unknown", "part.inner.lo=1: there is no such field; did you mean 'low'?"),
        ({"inner": {"low": 2}}, "rule", "part.inner: low 2 is above high 1"),
        ({"cuont": 1}, "unknown", "part.cuont=1: there is no such field; did you mean 'count'?"),
        ({"count": "???"}, "missing", "part.count: missing"),
        (3, "type", "part=3: expected keys and values ({key: value})"),
    ],
)
def test_what_does_not_fit_is_said_in_words(tree: Any, kind: str, text: str) -> None:
    assert faults(Base, tree) == [(kind, text)]


@pytest.mark.parametrize(
    ("name", "value", "result"),
    [
        ("count", 1e3, 1000),
        ("rate", 3, 3.0),
        ("natural", None, None),
        ("natural", 2.0, 2),
        ("flag", "off", False),
        ("flag", "Yes", True),
        ("words", "a, b", ["a", "b"]),
        ("words", ["a"], ["a"]),
        ("pair", [3.0, 1], (3, 1.0)),
        ("loose", {"a": {"b": 1e3}}, {"a": {"b": 1e3}}),
        ("unlimited", math.inf, math.inf),
        ("inner", {"high": 4}, Inner(0.25, 4.0)),
        ("inner", Inner(), Inner()),
        ("mode", "mean", "mean"),
    ],
)
def test_what_yaml_gives_becomes_what_the_field_is(name: str, value: Any, result: Any) -> None:
    value = getattr(build(Base, {name: value}, "part"), name)
    assert value == result
    assert type(value) is type(result)


def test_text_fields_take_what_was_typed() -> None:
    built = build(Base, {"name": 1e3, "words": 10, "count": 5}, "part", {"part.name": "1e3", "part.words": "010"})
    assert (built.name, built.words, built.count) == ("1e3", ["010"], 5)


def test_every_fault_of_a_tree_comes_at_once_and_rules_wait_for_the_fields() -> None:
    tree = {"count": 0, "rate": "x", "moed": 1, "inner": {"low": 3, "hihg": 2}, "name": "???"}
    assert {text.partition(":")[0] for _, text in faults(Base, tree)} == {
        "part.count=0", "part.rate=x", "part.moed=1", "part.inner.hihg=2", "part.name",
    }  # fmt: skip


def test_construction_in_python_says_the_same() -> None:
    with pytest.raises(ValueError, match="part") as caught:
        Base("x", 0, mode="none", rate=-1.0)  # type: ignore[arg-type]
    assert str(caught.value).splitlines() == [
        "part.count=0: expected at least 1",
        "part.rate=-1.0: expected a positive number",
        "part.mode=none: expected one of best, mean, sample",
    ]
    assert isinstance(caught.value, ConfigError)
    with pytest.raises(FieldFaults, match=r"part\.cuont=1: there is no such field; did you mean 'count'\?"):
        Base(cuont=1)  # type: ignore[call-arg]
    with pytest.raises(FieldFaults, match=r"part\.inner: low 2 is above high 1"):
        dataclasses.replace(Inner(), low=2.0)


def test_a_class_below_has_its_own_bounds_and_those_above() -> None:
    assert Below().count == 5
    assert faults(Below, {"count": 4, "rate": 0, "more": "x"}) == [
        ("bound", "part.count=4: expected at least 5"),
        ("bound", "part.rate=0: expected a positive number"),
        ("type", "part.more=x: expected a whole number"),
    ]


def test_settings_are_frozen_dataclasses() -> None:
    value = Base()
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.count = 2  # type: ignore[misc]
    assert [one.name for one in dataclasses.fields(Inner)] == ["low", "high"]
    assert dataclasses.asdict(Inner()) == {"low": 0.0, "high": 1.0}
    assert pickle.loads(pickle.dumps(value)) == copy.deepcopy(value) == Base()
    assert hash(Inner()) == hash(Inner(0.0, 1.0))


def test_another_instance_may_be_the_defaults() -> None:
    base = Base(count=7, inner=Inner(0.5, 2.0))
    built = build(Base, {"inner": {"high": 3}}, "part", base=base)
    assert built == dataclasses.replace(base, inner=Inner(0.5, 3.0))


def test_a_plain_dataclass_is_checked_as_strictly() -> None:
    built = build(Plain, {"horizon": 1e1, "inner": {"high": 2}}, "part")
    assert built == Plain(10, Inner(high=2.0))
    assert type(built) is Plain
    assert faults(Plain, {"horizon": "3", "inner": {"low": True}, "x": 1}) == [
        ("unknown", "part.x=1: there is no such field"),
        ("type", "part.inner.low=True: expected a number"),
        ("type", "part.horizon=3: expected a whole number"),
    ]
    assert faults(Plain, {"horizon": 0}) == [("rule", "horizon is 0")]
    assert build(Thawed, {"needed": 2.0}, "") == Thawed(needed=2)
    assert faults(Thawed, {"rate": math.inf}) == [
        ("missing", "part.needed: missing"),
        ("bound", "part.rate=inf: expected a finite number"),
    ]


def test_a_plain_dataclass_below_settings_keeps_their_bounds() -> None:
    @dataclass(frozen=True)
    class Mine(Below):
        own: int = 0

    assert build(Mine, {"own": 4.0}, "part") == Mine(own=4)
    assert faults(Mine, {"count": 4, "own": 0.5}) == [
        ("bound", "part.count=4: expected at least 5"),
        ("type", "part.own=0.5: expected a whole number"),
    ]


def test_examples_are_the_fields_own_or_its_default() -> None:
    @settings("")
    class Options:
        run: Annotated[str, Field(examples=["runs/x"])]
        limit: Annotated[Count, Field(examples=[10])] | None = None
        steps: Count = 4

    with pytest.raises(FieldFaults) as caught:
        build(Options, {"limit": 0, "steps": 0}, "")
    assert {fault.key: fault.example for fault in caught.value.fields} == {"run": "runs/x", "limit": 10, "steps": 4}


def test_annotations_in_words() -> None:
    assert expected(Count | None) == "a whole number or null"
    assert (list(members(Count | None)), list(members(Share))) == ([int, type(None)], [float])
    assert (nested(Inner | None), nested(Count)) == (Inner, None)


def registered() -> list[type]:
    """Every class of settings of the package."""
    kinds = ("model", "agent", "planner", "callback")
    return [Config, *(fields_of(kind, name) for kind in kinds for name in registry.names(kind))]


def numbers(cls: type, prefix: str = "") -> list[str]:
    """Dotted names of every number, nested ones included."""
    listed: list[str] = []
    for one in dataclasses.fields(cls):
        usual = one.default if one.default_factory is dataclasses.MISSING else one.default_factory()
        if dataclasses.is_dataclass(usual):
            listed += numbers(type(usual), f"{prefix}{one.name}.")
        elif isinstance(usual, float):
            listed.append(prefix + one.name)
    return listed


@pytest.mark.parametrize("cls", registered(), ids=lambda cls: cls.__name__)
def test_no_number_of_the_package_is_infinite(cls: type) -> None:
    for name in numbers(cls):
        tree: Any = math.inf
        for part in reversed(name.split(".")):
            tree = {part: tree}
        with pytest.raises(FieldFaults) as caught:
            build(cls, tree, "")
        assert name in [fault.key for fault in caught.value.fields]


def test_bounds_need_no_torch() -> None:
    code = "import lightning_wm.config.fields, sys; print({'torch', 'numpy', 'lightning'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
