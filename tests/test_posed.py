"""State vectors drawn: the simulator stands where the vector has it, and films show what was imagined."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

from lightning_wm.config.schema import ObservationConfig, RenderConfig, TaskConfig
from lightning_wm.envs import can_pose, make_env, poses, rendering_problem
from lightning_wm.envs.layout import ObservationLayout, Part
from lightning_wm.fit import main as fit
from lightning_wm.protocols import Spaces
from lightning_wm.training.open_loop import frames, predict
from lightning_wm.training.posed import SIZE, Posed
from tests.conftest import TINY
from tests.worlds import experience, model_of

CARTPOLE = "cartpole_swingup"
TASKS = {
    **dict.fromkeys(("acrobot_swingup", "ball_in_cup_catch", CARTPOLE, "cartpole_three_poles"), None),
    **dict.fromkeys(("finger_spin", "finger_turn_easy", "pendulum_swingup", "point_mass_easy", "reacher_easy"), None),
    **{"cheetah_run": 0, "hopper_hop": 0, "walker_walk": 1},
}
"""Tasks of every domain, and which number of `qpos` their observations leave out."""

draws = pytest.mark.skipif(rendering_problem() is not None, reason="nothing renders here")


def env_of(task: str, **render: Any):
    return make_env(TaskConfig(f"dmc/{task}"), ObservationConfig("state", RenderConfig(**render)))


def seen(env: Any) -> np.ndarray:
    own = env.simulators[0]._env
    return env.layout.flatten(own.task.get_observation(own.physics))


def lines(run: Path) -> list[str]:
    return (run / "metrics.jsonl").read_text().splitlines()


def test_every_domain_is_tried() -> None:
    assert all(any(task.startswith(domain) for task in TASKS) for domain in poses.QPOS)


@pytest.mark.parametrize("task", TASKS)
def test_qpos_is_that_of_the_observation(task: str) -> None:
    true, posed = env_of(task), env_of(task)
    assert can_pose(true)
    draw = np.random.default_rng(0)
    for seed in range(20):
        true.reset(seeds=[seed])
        posed.reset(seeds=[seed + 100])  # other targets
        theirs, ours = (env.simulators[0]._env.physics for env in (true, posed))
        with theirs.reset_context():
            theirs.data.qpos[:] = draw.uniform(-3, 3, len(theirs.data.qpos))
        posed.simulators[0].pose(seen(true))
        error = (ours.data.qpos - theirs.data.qpos + np.pi) % (2 * np.pi) - np.pi
        unseen = TASKS[task]
        if unseen is None:
            for name in ("geom_xpos", "site_xpos"):  # targets included
                np.testing.assert_allclose(getattr(ours.data, name), getattr(theirs.data, name), atol=1e-5)
        else:
            assert ours.data.qpos[unseen] == 0
            error[unseen] = 0
        np.testing.assert_allclose(error, 0, atol=2e-6)


@draws
@pytest.mark.parametrize("task", [task for task, unseen in TASKS.items() if unseen is None])
def test_a_posed_picture_is_the_environment_s_own(task: str) -> None:
    with torch.no_grad():
        env, posed = env_of(task), Posed(lambda: env_of(task))
        td = env.reset(seeds=[3])
        for action in (0.7, -0.4, 0.9):
            td = env.step(td.set("action", torch.full(env.action_spec.shape, action)))["next"]
    (picture,) = posed.pictures(td["observation"].numpy())
    assert picture.shape == (SIZE, SIZE, 3)
    assert picture.std() > 5
    assert np.abs(picture.astype(int) - env.frame(0, SIZE)).mean() < 0.1
    posed.close()


@draws
def test_a_run_films_the_simulator_and_learns_the_same(tmp_path: Path, trained: Path) -> None:
    run = tmp_path / "run"
    assert fit([*TINY, f"run={run}", "agent.open_loop_observed=2"]) == 0
    names = ["final-480.mp4", "open-loop-160.mp4", "open-loop-320.mp4", "open-loop-480.mp4"]
    assert sorted(path.name for path in (run / "videos").iterdir()) == names
    film = imageio.imread(run / "videos" / names[-1])
    assert film.shape == (8, 32 + SIZE + 16, 2 * SIZE + 16, 3)  # replay.length, head and gap, both sides
    kept = ("train/loss/total", "rollout/return", "evaluation/return")
    with_film, without = (
        [[line.get(name) for name in kept] for line in map(json.loads, lines(path))] for path in (run, trained)
    )
    assert with_film == without
    assert all(any(line[index] for line in without) for index in range(3))


@draws
def test_left_is_the_truth_and_right_is_imagined() -> None:
    spaces = Spaces(action=1, observation=5)
    batch = experience(spaces, 1, 6)
    env = env_of(CARTPOLE)
    td = env.reset(seeds=[5])
    shown = [env.frame(0, SIZE)]
    batch["observation"][0, 0] = td["observation"][0]
    for step in range(1, 6):
        td = env.step(td.set("action", batch["action"][:, step]))["next"]
        batch["observation"][0, step] = td["observation"][0]
        shown.append(env.frame(0, SIZE))
    prediction = predict(model_of("rssm", spaces), batch, seen=2)
    assert prediction is not None
    posed = Posed(lambda: env_of(CARTPOLE))
    imagined = posed.pictures(prediction.imagined["observation"][0].numpy())
    for step, frame in enumerate(frames(prediction, env.layout, posed)):
        assert np.abs(frame[32 : 32 + SIZE, :SIZE].astype(int) - shown[step]).mean() < 0.1
        np.testing.assert_array_equal(frame[32 : 32 + SIZE, SIZE + 16 : 2 * SIZE + 16], imagined[step])


@pytest.mark.parametrize("task", ["dmc/fish_swim", "dmc/humanoid_walk", "gym/Pendulum-v1"])
def test_other_tasks_are_not_posed(task: str) -> None:
    env = make_env(TaskConfig(task), ObservationConfig("state"))
    assert not can_pose(env)
    env.close()


def test_what_cannot_be_drawn_has_curves() -> None:
    spaces, made = Spaces(action=1, observation=5), []
    prediction = predict(model_of("rssm", spaces), experience(spaces, 1, 6), seen=2)
    blind = Posed(lambda: made.append(env_of(CARTPOLE, camera=99)) or made[-1])  # there is no such camera
    curves = frames(prediction, None)
    for _ in range(2):
        np.testing.assert_array_equal(frames(prediction, None, blind), curves)
    assert [env.is_closed for env in made] == [True]  # and is not tried again


def test_a_vector_is_split_into_its_parts() -> None:
    layout = ObservationLayout({"position": Part((2, 1)), "height": Part()})
    parts = layout.split(np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], np.float32))
    assert {name: part.tolist() for name, part in parts.items()} == {
        "position": [[1, 2], [4, 5]],
        "height": [[3], [6]],
    }
    with pytest.raises(ValueError, match="4 numbers, expected 3"):
        layout.split(np.zeros(4, np.float32))
