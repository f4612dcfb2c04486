"""Forty configurations with something wrong: all faults at once, the right name, nothing but exit 2."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from lightning_wm.config import load
from lightning_wm.config.check import Check
from lightning_wm.config.keys import dotted
from lightning_wm.config.schema import Config
from lightning_wm.errors import ConfigError, UserError

RECIPE = "recipe=quickstart"


def _twice(word: str) -> str:
    return word[:1] + word


def _without(word: str) -> str:
    return word[:-2] + word[-1:]


def _swapped(word: str) -> str:
    return word[:-2] + word[-1] + word[-2]


def _mistyped() -> list[tuple[str, str]]:
    """(wrong key, right key): every third key of the core and of a planner, each mistyped in one of three ways."""
    right = [key for key in dotted(Config) if len(key.rpartition(".")[2]) > 3][::3]
    right += [f"planner.{name}" for name in ("horizon", "iterations", "candidates", "elites", "execute")]
    mistakes: list[Callable[[str], str]] = [_twice, _without, _swapped]
    pairs = []
    for index, key in enumerate(right):
        group, dot, last = key.rpartition(".")
        wrong = f"{group}{dot}{mistakes[index % 3](last)}"
        pairs.append((wrong, key))
    return [(wrong, key) for wrong, key in pairs if wrong != key]


VALUES = [
    ("env_steps=-5", "env_steps=-5: expected a positive number of env steps; type e.g. env_steps=100000"),
    ("env_steps=0", "expected a positive number"),
    ("env_steps=1.5", "env_steps=1.5: expected a whole number; type e.g. env_steps=100000"),
    ("env_steps=12:30", "env_steps=12:30: expected a whole number"),
    ("env_steps=true", "env_steps=true: expected a whole number"),
    ("env_steps=null", "env_steps=null: expected a whole number"),
    ("seed=-1", "0 or more"),
    ("task=dmc/x", "task=dmc/x: expected keys and values"),
    ("task.name=cheetah_run", "type e.g. task.name=dmc/cheetah_run"),
    ("task.action_repeat=0", "expected a positive number of env steps per action"),
    ("task.max_decisions=0", "expected a positive number of decisions"),
    ("observation=pixel", "did you mean 'pixels'"),
    ("observation.kind=vector", "expected one of state, pixels, both"),
    ("observation.render.quality=fats", "did you mean 'fast'"),
    ("trainer=cpus", "did you mean 'cpu'"),
    ("trainer.accelerator=tpu", "expected one of auto, cpu, gpu, cuda"),
    ("trainer.devices=0", "expected a positive number of ranks"),
    ("trainer.precision=bf16-mix", "did you mean 'bf16-mixed'"),
    ("trainer.compile=3", "expected true or false"),
    ("rollout.noise=.nan", "expected a number"),
    ("rollout.noise=.inf", "expected 0 or more"),
    ("replay.length=1", "expected 2 or more agent steps"),
    ("replay.capacity=10", "longer than replay.capacity=10"),
    ("evaluation.episodes=0", "expected a positive number of episodes"),
    ("resume=maybe", "expected one of auto, never"),
    ("plugins=3.5.1: x", "expected a list"),
    ("callbacks=mine", "callbacks"),
    ("planner=cme", "did you mean 'cem'"),
    ("planner=", "planner: expected a name and fields"),
    ("model=smal", "did you mean 'small'"),
    ("planner.horizon=0", "planner.horizon=0"),
    ("planner.candidates=2.5", "expected a whole number"),
    ("agent.learning_rate=fast", "expected a number; type e.g. agent.learning_rate="),
    ("callbacks.vidoe.every=3", "did you mean 'video'"),
    ("callbacks.video.evry=3", "did you mean 'callbacks.video.every'"),
]


@pytest.mark.parametrize(("wrong", "right"), _mistyped())
def test_a_mistyped_key_is_answered_with_the_right_one(wrong: str, right: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load([RECIPE, f"{wrong}=1"])
    (fault,) = caught.value.faults
    assert fault.startswith(f"{wrong}=1: ")
    assert f"did you mean {right!r}" in fault
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("token", "words"), VALUES)
def test_a_wrong_value_says_what_was_expected(token: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load([RECIPE, token])
    (fault,) = caught.value.faults
    assert words in fault


def test_there_are_forty_of_them() -> None:
    assert len(_mistyped()) + len(VALUES) >= 40


def test_more_elites_than_candidates() -> None:
    with pytest.raises(UserError, match="elites"):
        load([RECIPE, "planner=cem", "planner.candidates=10", "planner.elites=20"])


def test_another_planners_field_says_whose_it_is() -> None:
    with pytest.raises(ConfigError, match=r"planner 'random' has no such field, but .*cem.* has; type planner="):
        load([RECIPE, "planner=random", "planner.elites=5"])


def test_all_core_faults_come_at_once_and_before_the_parts() -> None:
    argv = ["planer=cem", "env_steps=-5", "replay.bach=3", "--pritn", "observation.kind=pixel", "planner.horizn=3"]
    with pytest.raises(ConfigError) as caught:
        load([RECIPE, *argv])
    assert len(caught.value.faults) == 5
    assert "horizn" not in str(caught.value)


def test_all_faults_of_the_parts_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load([RECIPE, "planner.horizn=3", "model.detr=3", "agent.clip=x", "callbacks.none.every=1"])
    assert len(caught.value.faults) == 4


@pytest.mark.parametrize("argv", [[], ["recipe=list"], ["seed=1"]])
def test_no_recipe_says_what_to_type(argv: list[str]) -> None:
    with pytest.raises(ConfigError, match="type recipe=quickstart, or recipe=list") as caught:
        load(argv)
    assert len(caught.value.faults) == 1


def test_a_misspelled_recipe_is_answered_together_with_the_rest() -> None:
    with pytest.raises(ConfigError) as caught:
        load(["recipe=quikstart", "seeed=1"])
    assert ["'quickstart'" in caught.value.faults[0], "'seed'" in caught.value.faults[1]] == [True, True]
    assert len(caught.value.faults) == 2


def test_a_missing_task_says_what_to_type() -> None:
    with pytest.raises(ConfigError, match=r"task.name: missing; type e.g. task.name=dmc/cartpole_swingup"):
        load(["recipe=dense/base"])
    with pytest.raises(ConfigError, match=r"task.name: missing"):
        Check().core({})


def test_parts_without_fields_of_their_own_take_a_name_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_wm import registry

    class Plain:
        """A planner without settings."""

    load([RECIPE])  # the registry is filled before it is patched
    monkeypatch.setitem(registry._classes["planner"], "plain_one", Plain)
    expected = registry.config_class("planner", "plain_one")(name="plain_one")
    assert load([RECIPE, "planner=plain_one"]).config.planner == expected
    with pytest.raises(ConfigError, match="no such field"):
        load([RECIPE, "planner=plain_one", "planner.horizon=3"])


def test_core_faults_and_help_need_no_torch() -> None:
    code = """
import sys
from lightning_wm.config import help_text, load, recipe_names
from lightning_wm.errors import ConfigError
help_text(["--help"]); recipe_names()
try:
    load(["recipe=quickstart", "env_stps=3"])
except ConfigError as error:
    print(error)
print(sorted({"torch", "lightning", "torchrl", "tensordict", "numpy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["env_stps=3: there is no such key; did you mean 'env_steps'?", "[]"]
