"""Composition: what wins over what, groups, inheritance, interpolations, plugins."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lightning_wm
from lightning_wm import registry
from lightning_wm.config import from_tree, load, printed, read_tree, recipe_names, shipped, to_yaml
from lightning_wm.errors import ConfigError, UserError

EXAMPLE = Path(__file__).parent / "plugins_example"
BODY = "task: {name: dmc/reacher_easy, action_repeat: 4}\n"


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A user's package on the path, forgotten afterwards."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    yield
    for kind in registry.KINDS:
        registry._classes[kind].pop("my_shooting", None)
        registry._classes[kind].pop("my_notes", None)
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
        del sys.modules[name]


def recipe(folder: Path, text: str, name: str = "mine.yaml") -> str:
    """A user's recipe as a token."""
    (folder / name).write_text(text)
    return f"recipe={folder / name}"


@pytest.mark.parametrize("name", [name for name, _ in recipe_names()])
@pytest.mark.parametrize("smoke", ["false", "true"])
def test_every_shipped_recipe_loads(name: str, smoke: str) -> None:
    loaded = load([f"recipe={name}", f"smoke={smoke}"])
    assert loaded.config.task.name.startswith("dmc/")
    assert loaded.recipe == name.replace("/", "-")


@pytest.mark.parametrize("token", [f"{group}={one}" for group in shipped.GROUPS for one in shipped.choices(group)])
@pytest.mark.parametrize("smoke", ["false", "true"])
def test_every_group_file_loads(token: str, smoke: str) -> None:
    loaded = load(["recipe=quickstart", token, f"smoke={smoke}"])
    assert f"recipes/{token.replace('=', '/')}.yaml" in loaded.sources.values()


def test_recipes_say_what_they_are() -> None:
    names = dict(recipe_names())
    assert {"quickstart", "dense/cheetah_run", "dense/walker_walk"} <= set(names)
    shared = {f"{path.parent.name}/base" for path in shipped.root().glob("*/base.yaml")}
    assert {"dense/base", "state/base"} <= shared
    assert not shared & set(names)
    assert all(shipped.find(name) == shipped.root() / f"{name}.yaml" for name in shared)
    assert all(len(about) > 20 for about in names.values())


@pytest.mark.parametrize(
    ("task", "repeat"),
    [
        ("cartpole_swingup", 8),
        ("reacher_easy", 4),
        ("cheetah_run", 4),
        ("finger_spin", 2),
        ("ball_in_cup_catch", 4),
        ("walker_walk", 2),
    ],
)
def test_dense_recipes_have_planets_settings(task: str, repeat: int) -> None:
    """Action repeats and batches of arXiv:1811.04551, App. A."""
    config = load([f"recipe=dense/{task}"]).config
    assert (config.task.name, config.task.action_repeat, config.env_steps) == (f"dmc/{task}", repeat, 100_000)
    assert (config.observation.kind, config.replay.batch, config.replay.length) == ("pixels", 50, 50)
    assert (config.rollout.seed_episodes, config.rollout.noise, config.trainer.updates_per_turn) == (5, 0.3, 100)


def test_a_group_is_applied_first_whatever_its_place() -> None:
    before = load(["recipe=quickstart", "planner=cem", "planner.candidates=500"]).config.planner
    after = load(["recipe=quickstart", "planner.candidates=500", "planner=cem"]).config.planner
    assert before == after
    assert (before.name, before.candidates) == ("cem", 500)


def test_typed_over_body_over_defaults(tmp_path: Path) -> None:
    token = recipe(tmp_path, "defaults: [dense/base]\nreplay: {batch: 7, length: 9}\n" + BODY)
    loaded = load([token, "replay.length=11"])
    assert (loaded.config.replay.batch, loaded.config.replay.length, loaded.config.env_steps) == (7, 11, 100_000)
    assert loaded.sources["replay.length"] == "command line"
    assert loaded.sources["replay.batch"] == str(tmp_path / "mine.yaml")
    assert loaded.sources["env_steps"] == "recipes/dense/base.yaml"
    assert loaded.sources["seed"] == "default"
    assert loaded.recipe == "mine"
    assert loaded.overrides == ["replay.length=11"]


def test_a_typed_part_replaces_the_recipes_fields(tmp_path: Path) -> None:
    token = recipe(tmp_path, "defaults: [{planner: cem}]\nplanner: {candidates: 60, elites: 6}\n" + BODY)
    assert load([token]).config.planner.candidates == 60
    random = load([token, "planner=random"]).config.planner
    assert random == registry.lookup("planner", "random").Config()


def test_another_name_in_a_recipe_drops_the_inherited_fields(tmp_path: Path) -> None:
    recipe(tmp_path, "planner: {name: cem, candidates: 60, elites: 6}\n" + BODY, "base.yaml")
    token = recipe(tmp_path, "defaults: [base.yaml]\nplanner: random\n")
    assert load([token]).config.planner.name == "random"


def test_other_groups_keep_what_their_file_does_not_name() -> None:
    config = load(["recipe=quickstart", "trainer=ddp_cpu", "observation=both", "trainer.threads=2"]).config
    assert (config.trainer.devices, config.trainer.strategy, config.trainer.threads) == (2, "ddp", 2)
    assert config.trainer.pretrain_updates == load(["recipe=quickstart"]).config.trainer.pretrain_updates > 0
    assert config.observation.kind == "both"


def test_inheritance_in_a_circle_is_shown(tmp_path: Path) -> None:
    recipe(tmp_path, "defaults: [c.yaml]\n", "b.yaml")
    recipe(tmp_path, "defaults: [mine.yaml]\n", "c.yaml")
    with pytest.raises(ConfigError, match=r"circle: .*mine\.yaml -> .*b\.yaml -> .*c\.yaml -> .*mine\.yaml"):
        load([recipe(tmp_path, "defaults: [b.yaml]\n" + BODY)])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("defaults: [{planer: cem}]\n", "did you mean 'planner'"),
        ("defaults: [3]\n", "expected a recipe"),
        ("defaults: [dense/cheeta_run]\n", "did you mean 'dense/cheetah_run'"),
        ("defaults: [{trainer: gpus}]\n", "did you mean 'gpu'"),
        ("recipe: quickstart\n", "only typed"),
        ("replay: 3\n", r"replay=3 \(in .*mine\.yaml\): expected keys and values"),
        ("replay: {bach: 3}\n", r"replay.bach=3 \(in .*mine\.yaml\).*did you mean 'replay.batch'"),
        ("replay: {batch: on}\n", "replay.batch=on .*a whole number"),
        ("run: 1e3\n", "put it in quotes"),
        ("planner: [a]\n", "planner: expected a name"),
    ],
)
def test_a_fault_in_a_file_names_the_file_and_the_right_name(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        load([recipe(tmp_path, text + BODY)])


def test_dotted_keys_in_a_file_are_nested(tmp_path: Path) -> None:
    loaded = load([recipe(tmp_path, "planner.candidates: 9\nreplay: {batch: 3}\nreplay.length: 5\n" + BODY)])
    assert (loaded.config.planner.candidates, loaded.config.replay.batch, loaded.config.replay.length) == (9, 3, 5)


def test_interpolations_find_defaults_and_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SEED", "7")
    text = (
        "replay: {length: '${planner.horizon}', batch: '${.length}', capacity: '${env_steps}'}\n"
        "planner: {name: cem, elites: '${evaluation.episodes}'}\nseed: '${oc.decode:${oc.env:MY_SEED}}'\n"
    )
    config = load([recipe(tmp_path, text + BODY), "planner.horizon=6"]).config
    assert (config.replay.length, config.replay.batch, config.replay.capacity) == (6, 6, 100_000)
    assert (config.planner.elites, config.seed) == (5, 7)


@pytest.mark.parametrize("value", ["${replay.lenth}", "${seed}", "${", "${nothing:x}", "${oc.env:NOT_THERE_AT_ALL}"])
def test_an_interpolation_that_finds_nothing_is_a_fault(value: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected"):
        load([recipe(tmp_path, f"seed: '{value}'\n" + BODY)])


def test_core_values_are_typed_and_frozen() -> None:
    config = load(["recipe=quickstart", "env_steps=2e4", "run=1e3", "logging.progress=off"]).config
    assert (config.env_steps, config.run, config.logging.progress) == (20_000, "1e3", False)
    assert type(config.env_steps) is int
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 3  # type: ignore[misc]


def test_printed_is_a_recipe_with_the_same_values(tmp_path: Path) -> None:
    loaded = load(["recipe=dense/finger_spin", "planner=cem", "planner.candidates=500", r"run='a b: \${x} 12:30 #c é'"])
    text = printed(loaded)
    assert "  candidates: 500  # command line" in text.splitlines()
    assert "  action_repeat: 2  # recipes/dense/finger_spin.yaml" in text.splitlines()
    again = load([recipe(tmp_path, text)])
    assert {**again.tree, "recipe": None} == {**loaded.tree, "recipe": None}


def test_stored_configuration_starts_a_run_with_the_same_numbers(tmp_path: Path) -> None:
    loaded = load(["recipe=quickstart", "smoke=true", "planner.candidates=11", "run=runs/x", "seed=3"])
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.yaml").write_text(to_yaml(loaded.tree))
    (folder / "meta.json").write_text("{}")
    stored = read_tree(folder / "config.yaml")
    assert not {"recipe", "run", "resume", "smoke", "trust"} & set(stored)
    again = load([f"recipe={folder / 'config.yaml'}"])
    expected = dataclasses.replace(loaded.config, recipe=again.config.recipe, run=None, smoke=False)
    assert again.config == expected
    assert again.recipe == "mine-again"
    assert from_tree(stored) == dataclasses.replace(expected, recipe=None)


def test_recipes_of_an_installed_package_are_inside_it(tmp_path: Path) -> None:
    """Beside the package only in a checkout: a folder `recipes` of site-packages is somebody else's."""
    package = Path(lightning_wm.__file__).parent
    copy = tmp_path / "lightning_wm"
    copy.mkdir()
    for name in ("__init__.py", "errors.py", "registry.py"):
        shutil.copy(package / name, copy)
    for name in ("config", "envs"):
        shutil.copytree(package / name, copy / name)
    code = "from lightning_wm.config import recipe_names; print(recipe_names())"

    def installed() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code]
        return subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)

    shutil.copytree(shipped.root(), tmp_path / "recipes")
    assert "UserError: no recipes in" in installed().stderr
    (tmp_path / "recipes").rename(copy / "recipes")
    assert installed().stdout.strip() == str(recipe_names())


def test_a_folder_says_which_file_to_type(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(BODY)
    with pytest.raises(ConfigError, match=r"type recipe=.*config\.yaml"):
        load([f"recipe={tmp_path}"])


# ---- plugins


@pytest.mark.usefixtures("plugin")
def test_a_users_package_brings_a_planner_and_a_callback(tmp_path: Path) -> None:
    text = "plugins: [my_package]\nplanner: {name: my_shooting, candidates: 3}\ncallbacks: {my_notes: {every: 2}}\n"
    config = load([recipe(tmp_path, text + BODY), "planner.horizon=4"]).config
    planner, callback = registry.lookup("planner", "my_shooting"), registry.lookup("callback", "my_notes")
    assert config.planner == planner.Config(horizon=4, candidates=3)
    assert config.callbacks == {"my_notes": callback.Config(every=2)}
    assert isinstance(registry.build("planner", config.planner), planner)


@pytest.mark.usefixtures("plugin")
def test_faults_of_a_users_part_are_collected_with_the_others() -> None:
    argv = ["recipe=quickstart", "plugins=my_package", "planner=my_shooting", "planner.candidates=0"]
    with pytest.raises(ConfigError) as caught:
        load([*argv, "callbacks.my_nots.every=1", "callbacks.my_notes.evry=1", "agent.clp=1"])
    faults = "\n".join(caught.value.faults)
    assert len(caught.value.faults) == 4
    for words in ("planner: candidates is 0", "'my_notes'", "'callbacks.my_notes.every'", "'agent.clip'"):
        assert words in faults


def test_a_plugin_that_cannot_be_imported_is_named() -> None:
    with pytest.raises(UserError, match="plugins: 'no_such_package' cannot be imported"):
        load(["recipe=quickstart", "plugins=[no_such_package]"])


@pytest.mark.usefixtures("plugin")
def test_a_runs_own_plugins_load_only_if_typed(tmp_path: Path) -> None:
    tree = {"plugins": ["my_package"], "planner": {"name": "my_shooting"}, "task": {"name": "dmc/reacher_easy"}}
    token = recipe(tmp_path, to_yaml(tree), "config.yaml")
    for attempt in (lambda: load([token]), lambda: from_tree(tree)):
        with pytest.raises(UserError, match=r"type plugins=\[my_package\] or trust=true"):
            attempt()
    assert "my_package" not in sys.modules
    assert load([token, "plugins=my_package"]).config.planner.name == "my_shooting"
    assert load([token, "trust=true"]).config.planner.name == "my_shooting"
    assert from_tree(tree, plugins=["my_package"]).planner.name == "my_shooting"
    assert from_tree(tree, trust=True).planner.name == "my_shooting"


@pytest.mark.parametrize("line", ["seed: '${oc.env:HOME}'", "trust: true", "defaults: [quickstart]", "run: /elsewhere"])
def test_a_runs_configuration_is_data(line: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a run's configuration has"):
        load([recipe(tmp_path, f"{line}\n{BODY}", "config.yaml")])


def test_stored_text_is_not_interpolated() -> None:
    tree: dict[str, Any] = {"task": {"name": "dmc/${oc.env:HOME}"}}
    assert from_tree(tree).task.name == "dmc/${oc.env:HOME}"
