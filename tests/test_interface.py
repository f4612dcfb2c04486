"""What a task's own simulator shows is what a loaded model acts on, in the order that it was trained in."""

from __future__ import annotations

import json
import re
import shutil
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_wm import load_actor
from lightning_wm.config.schema import ObservationConfig, TaskConfig
from lightning_wm.envs import make_env, observation_layout, spaces
from lightning_wm.envs.dmc import suite
from lightning_wm.envs.layout import ObservationLayout, Part
from lightning_wm.errors import UserError
from lightning_wm.evaluate import main as evaluate
from lightning_wm.export import main as export
from lightning_wm.fit import main as fit
from lightning_wm.playing.observation import ObservationIntake
from lightning_wm.protocols import Spaces
from lightning_wm.runs.interface import Interface, read_interface, write_interface
from lightning_wm.runs.sources import ZOO, zoo
from tests.conftest import TINY

gymnasium = pytest.importorskip("gymnasium")

OF_VECTORS = [name for name in zoo() if not name.endswith("_pixels")]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ZOO / "ball_in_cup_catch", tmp_path / "model"))


@pytest.mark.parametrize("name", OF_VECTORS)
def test_dm_controls_own_loop(name: str) -> None:
    """A real episode's beginning, by the dictionary, the dictionary the other way round, and the vector."""
    raw = suite().load(*read_task(name), task_kwargs={"random": 3})
    actors = [load_actor(f"zoo:{name}", planner="policy" if name != "cartpole_swingup" else None) for _ in range(3)]
    step = raw.reset()
    for _ in range(3):
        shown = step.observation
        vector = np.concatenate([np.ravel(value) for value in shown.values()]).astype(np.float32)
        forms = (shown, OrderedDict(reversed(shown.items())), vector)
        actions = [actor.act(form) for actor, form in zip(actors, forms, strict=True)]
        np.testing.assert_array_equal(actions[0], actions[1])
        np.testing.assert_array_equal(actions[0], actions[2])
        step = raw.step(actions[0])


def read_task(name: str) -> tuple[str, str]:
    (task,) = re.findall(r"name: dmc/(\w+)", (ZOO / name / "config.yaml").read_text())
    domain, _, word = task.rpartition("_")
    return domain, word


class Reach(gymnasium.Env):
    """Gymnasium's form for tasks with goals, whose first part is called like our vector."""

    observation_space = gymnasium.spaces.Dict(
        OrderedDict(
            observation=gymnasium.spaces.Box(-9, 9, (2,)),
            achieved_goal=gymnasium.spaces.Box(-9, 9, (1,)),
            desired_goal=gymnasium.spaces.Discrete(3),
        )
    )
    action_space = gymnasium.spaces.Box(-2, 2, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


@pytest.mark.filterwarnings("ignore:.*not within the observation space", "ignore::UserWarning:gymnasium")
def test_a_gymnasium_run_takes_its_dictionary(tmp_path: Path) -> None:
    gymnasium.register("Reach-v0", entry_point=Reach, max_episode_steps=20)
    try:
        line = [*TINY, "evaluation.video=false", "task.name=gym/Reach-v0", f"run={tmp_path}/run"]
        assert fit([*line, "evaluation.final_episodes=1", "task.action_repeat=1"]) == 0
        assert export([f"run={tmp_path}/run", f"out={tmp_path}/model"]) == 0
        shown, _ = gymnasium.make("Reach-v0").reset(seed=0)
        interface = read_interface(tmp_path / "model")
        assert interface is not None
        assert interface.described() == "observation (2), achieved_goal (1), desired_goal (3) and actions of 1"
    finally:
        del gymnasium.registry["Reach-v0"]
    hot = np.eye(3)[shown["desired_goal"]]
    vector = np.concatenate([shown["observation"], shown["achieved_goal"], hot]).astype(np.float32)
    own, flat = load_actor(tmp_path / "model"), load_actor(tmp_path / "model")  # without the environment
    np.testing.assert_array_equal(own.act(shown), flat.act(vector))
    with pytest.raises(UserError, match=r"desired_goal is missing.*achieved_goal \(1\), desired_goal \(3\)"):
        own.act({name: shown[name] for name in ("observation", "achieved_goal")} | {"more": 1})


def test_a_picture_beside_the_parts_comes_as_simulators_draw_it() -> None:
    layout = ObservationLayout({"position": Part((2,)), "velocity": Part()})
    intake = ObservationIntake(Spaces(1, 3, (3, 8, 8)), layout)
    picture = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    taken = intake.take({"pixels": picture, "velocity": 3.0, "position": np.array([1.0, 2.0])})
    assert taken.rows["observation"].tolist() == [[1, 2, 3]]
    np.testing.assert_array_equal(taken.rows["pixels"][0].permute(1, 2, 0), picture)
    with pytest.raises(UserError, match=r"position \[2\]; expected .*pixels \[3, 8, 8\]"):
        intake.take({"position": np.zeros(2)})


def test_other_keys_and_sizes_are_named() -> None:
    actor = load_actor("zoo:ball_in_cup_catch")
    with pytest.raises(UserError, match=r"position has shape \[3\], expected \[4\].*position \(4\), velocity \(4\)"):
        actor.act({"position": np.zeros(3), "velocity": np.zeros(4)})
    with pytest.raises(UserError, match=r"observation has shape \[7\]; expected .*position \(4\), velocity \(4\)"):
        actor.act(np.zeros(7))


def test_every_model_that_ships_says_what_it_sees() -> None:
    for name in OF_VECTORS:
        stored = read_interface(ZOO / name)
        assert stored is not None
        env = make_env(TaskConfig("dmc/" + "_".join(read_task(name))), ObservationConfig())
        assert stored.as_json() == Interface(spaces(env), observation_layout(env)).as_json()


def test_a_simulator_of_another_order_is_refused(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((model / "spaces.json").read_text())
    content["parts"].reverse()
    (model / "spaces.json").write_text(json.dumps(content))
    load_actor(model)
    assert evaluate([f"run={model}", "episodes=1"]) == 2
    message = capsys.readouterr().err
    assert "it has position (4), velocity (4) and actions of 2" in message
    assert "expected velocity (4), position (4) and actions of 2" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observation": 9}, "parts of 8 numbers for a vector of 9"),
        ({"observation": None, "parts": None}, "neither a vector nor pixels"),
        ({"action": -1}, "action is -1"),
        ({"parts": [{"path": [], "shape": [4]}, {"path": ["a"], "shape": [4]}]}, "a single array with parts"),
        ({"parts": [{"path": ["a"], "shape": [4]}] * 2}, "there twice"),
        ({"parts": [{"path": ["a"], "shape": [4]}, {"path": ["a", "b"], "shape": [4]}]}, "is a part and has parts"),
        ({"parts": [{"path": ["a"], "shape": [3], "levels": [[0, 8]]}]}, "levels that do not fit"),
        ({"action": 2**40}, "much larger model|cannot be built"),
    ],
)
def test_a_file_from_elsewhere_is_not_believed(model: Path, change: dict[str, object], message: str) -> None:
    content = json.loads((model / "spaces.json").read_text())
    (model / "spaces.json").write_text(json.dumps(content | change))
    with pytest.raises(UserError, match=message):
        load_actor(model)


def test_nested_parts_come_back(tmp_path: Path) -> None:
    tree = {"b": {"y": Part((1, 2)), "x": Part(left_out=True)}, "a": Part((2,), ((0, 2), (1, 3)))}
    written = Interface(Spaces(1, 7), ObservationLayout(tree))
    write_interface(tmp_path, written)
    read = read_interface(tmp_path)
    assert read is not None
    assert read.layout is not None
    assert read.layout.leaves() == written.layout.leaves()
    shown = {"a": [1, 2], "b": {"x": 9.0, "y": torch.tensor([[4.0, 5.0]])}}
    assert read.layout.flatten(shown).tolist() == [4, 5, 0, 1, 0, 1, 0]
