"""YAML, values and tokens: what is read as what, and that nothing but a UserError ever comes out."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_wm.config.check import Check
from lightning_wm.config.compose import Composition
from lightning_wm.config.fields import build
from lightning_wm.config.fields import settings as settings_class
from lightning_wm.config.keys import texts
from lightning_wm.config.line import read_line
from lightning_wm.config.options import options
from lightning_wm.config.schema import Config, ReplayConfig
from lightning_wm.config.store import parse, read_tree
from lightning_wm.errors import ConfigError, UserError, nearest


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12:30", "12:30"),
        ("on", "on"),
        ("no", "no"),
        ("010", 10),
        ("1_000", 1000),
        ("0x10", 16),
        ("1e3", 1000.0),
        ("-.5", -0.5),
        ("1e-5", 1e-5),
        (".inf", float("inf")),
        ("true", True),
        ("~", None),
        ("", None),
        ("2026-01-01", "2026-01-01"),
        ("[1, a, null]", [1, "a", None]),
        ("{a: {b: 1.5}}", {"a": {"b": 1.5}}),
        ("'5'", "5"),
        ("32-true", "32-true"),
        ("<<", "<<"),
    ],
)
def test_plain_scalars_follow_yaml_1_2(text: str, value: Any) -> None:
    found = parse(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.mkdir [planted]",
        "!!python/name:os.mkdir",
        "!!binary aGk=",
        "!!set {a, b}",
        "!!timestamp 2026-01-01",
        "&a [*a]",
        "[&a x, *a]",
        "{a: 1, a: 2}",
        "{1: a}",
        "? [1]\n: 2",
        "!!int abc",
        "0x" + "f" * 5000,
        "9" * 5000,
        "!!map abc",
        "!!seq abc",
        "[" * 5000,
        "'",
        "\x00",
        "a: b: c",
    ],
)
def test_what_is_no_plain_yaml_is_refused_and_builds_nothing(text: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"."):
        parse(text)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.yaml: cannot be read"):
        read_tree(tmp_path / "missing.yaml")
    for content in (b"- a\n- b\n", b"\xff\xfe\x00", b"a: [1"):
        (tmp_path / "bad.yaml").write_bytes(content)
        with pytest.raises(UserError, match=r"bad\.yaml"):
            read_tree(tmp_path / "bad.yaml")


def convert(value: Any, kind: Any, typed: str | None = None) -> Any:
    """A value as a field of this annotation takes it."""
    cls = settings_class("")(type("Field", (), {"__annotations__": {"value": kind}, "__module__": __name__}))
    return build(cls, {"value": value}, "", {"value": typed} if typed is not None else {}).value


@pytest.mark.parametrize(
    ("value", "kind", "result"),
    [
        (1000.0, int, 1000),
        (3, float, 3.0),
        ("on", bool, True),
        ("No", bool, False),
        (None, int | None, None),
        (3, str | int, 3),
        ("a, b", list[str], ["a", "b"]),
        ([1, 2.0], list[int], [1, 2]),
        ([1, 2], tuple[int, ...], (1, 2)),
        ([1, "a"], tuple[int, str], (1, "a")),
        ("adam", Literal["adam", "sgd"], "adam"),
        ({"a": 1}, dict[str, float], {"a": 1.0}),
    ],
)
def test_a_value_becomes_what_the_field_is(value: Any, kind: Any, result: Any) -> None:
    found = convert(value, kind)
    assert found == result
    assert type(found) is type(result)


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        (True, int, "a whole number"),
        (True, float, "a number"),
        (1.5, int, "a whole number"),
        (float("inf"), int, "a whole number"),
        (float("nan"), float, "a number"),
        ("12:30", int, "a whole number"),
        ("5", int, "a whole number"),
        (1, bool, "true or false"),
        ("maybe", bool, "true or false"),
        (5, str, "text"),
        (None, int, "a whole number"),
        ("x", int | None, "a whole number or null"),
        ("x", Literal["a", "b"], "one of a, b"),
        (3, list[int], "a list"),
        ([1, 2, 3], tuple[int, int], "a list of 2"),
        ([1], dict[str, int], "keys and values"),
    ],
)
def test_a_value_that_does_not_fit_says_what_was_expected(value: Any, kind: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        convert(value, kind)


def test_text_fields_keep_what_was_typed() -> None:
    line = read_line(["run=1e3", "recipe=010", "task.name=12:30"], texts=texts(Config))
    assert [convert(line.values[key], str, line.raw[key]) for key in line.values] == ["1e3", "010", "12:30"]


def test_tokens_are_split_once_and_the_last_of_a_key_counts() -> None:
    line = read_line(["run=a=b", "seed=1", "--print", "seed=2"])
    assert line.values == {"run": "a=b", "seed": 2}
    assert line.tokens() == ["run=a=b", "seed=2"]
    assert not line.faults


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("quickstart", "type recipe=quickstart"),
        ("--seed=1", "type seed=1"),
        ("+seed=1", "type seed=1"),
        ("--pritn", "did you mean '--print'"),
        ("seed", "expected key=value"),
        ("=3", "expected key=value"),
        ("seed=[", "no valid YAML"),
    ],
)
def test_a_token_that_cannot_be_read_says_what_to_type(token: str, words: str) -> None:
    (fault,) = read_line([token], ["quickstart"]).faults
    assert words in fault


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("planer", "planner"),
        ("replay.bacth", "replay.batch"),
        ("batch", "replay.batch"),
        ("observation.quality", "observation.render.quality"),
        ("zzz", None),
    ],
)
def test_the_nearest_name(name: str, found: str | None) -> None:
    assert nearest(name, ["planner", "replay.batch", "replay.length", "observation.render.quality"]) == found


_KEYS = st.sampled_from(["seed", "env_steps", "task.name", "task", "replay.batch", "planner", "planner.x", "callbacks"])
_TOKENS = st.one_of(st.text(max_size=30), st.builds(lambda key, text: f"{key}={text}", _KEYS, st.text(max_size=20)))


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_TOKENS, max_size=4))
def test_no_command_line_raises_anything_but_a_user_error(argv: list[str]) -> None:
    composed = Composition(read_line([*argv, "recipe=quickstart"], texts=texts(Config)))
    with suppress(ConfigError):
        check = Check(composed.layers.sources, composed.line.raw, composed.faults)
        core = check.core(composed.layers.tree)
        assert isinstance(core, Config)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(max_size=40))
def test_no_text_raises_anything_but_a_value_error(text: str) -> None:
    with suppress(ValueError):
        parse(text)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(_TOKENS, max_size=3))
def test_no_options_raise_anything_but_a_user_error(argv: list[str]) -> None:
    with suppress(ConfigError):
        assert isinstance(options(argv, ReplayConfig), ReplayConfig)
