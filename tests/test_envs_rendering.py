"""Pixels and frames: contract, quality, action repeat below the renderer, memory."""

from __future__ import annotations

import gc
import os

import numpy as np
import pytest
import torch
from torchrl.envs.utils import check_env_specs

from lightning_wm.config.schema import ObservationConfig, RenderConfig, TaskConfig
from lightning_wm.envs import make_env, rendering_problem, spaces
from lightning_wm.errors import UserError
from lightning_wm.protocols import Spaces

PROBLEM = rendering_problem()
pytestmark = pytest.mark.skipif(PROBLEM is not None, reason=f"this machine cannot draw: {PROBLEM}")


def pixel_env(name="dmc/cartpole_swingup", repeat=1, environments=1, kind="pixels", **render):
    return make_env(TaskConfig(name, repeat), ObservationConfig(kind, RenderConfig(**render)), environments)


@pytest.mark.parametrize("kind", ["pixels", "both"])
def test_specs_and_keys(kind):
    env = pixel_env(environments=2, repeat=2, kind=kind)
    check_env_specs(env)
    assert spaces(env) == Spaces(action=1, observation=5 if kind == "both" else None, pixels=(3, 64, 64))
    rollout = env.rollout(20)
    assert rollout["next", "pixels"].shape == (2, 20, 3, 64, 64)
    assert rollout["next", "pixels"].dtype == torch.uint8
    assert ("observation" in rollout.keys()) is (kind == "both")  # noqa: SIM118


def test_pixels_are_dm_controls_picture_of_the_state_after_the_repeat():
    env = pixel_env("dmc/reacher_easy", repeat=3, kind="both", quality="standard", size=48)
    current = env.reset(seeds=[1])
    for _ in range(2):
        current = env.step(current.set("action", torch.full((1, 2), 0.7)))["next"]
        physics = env.simulators[0]._env.physics
        expected = physics.render(height=48, width=48, camera_id=0).transpose(2, 0, 1)
        np.testing.assert_array_equal(current["pixels"][0].numpy(), expected)


def test_one_picture_per_decision():
    env = pixel_env(repeat=5)
    current = env.reset()
    simulator, drawn = env.simulators[0], []
    render = simulator.render
    simulator.render = lambda size: (drawn.append(size), render(size))[1]
    env.step(current.set("action", torch.zeros(1, 1)))
    assert drawn == [64]


def test_pixels_do_not_change_the_episode():
    shown = []
    for kind in ("state", "both"):
        env = pixel_env("dmc/walker_walk", kind=kind)
        current = env.reset(seeds=[2])
        for _ in range(3):
            current = env.step(current.set("action", torch.full((1, 6), 0.4)))["next"]
        shown.append(current["observation"])
    assert torch.equal(*shown)


def test_environments_draw_their_own_episode():
    env = pixel_env(environments=3)
    current = env.reset(seeds=[1, 1, 2])
    current = env.step(current.set("action", torch.tensor([[1.0], [1.0], [-1.0]])))["next"]
    pixels = current["pixels"]
    assert torch.equal(pixels[0], pixels[1])
    assert not torch.equal(pixels[0], pixels[2])


@pytest.mark.parametrize("name", ["dmc/cartpole_swingup", "dmc/cheetah_run"])
def test_fast_quality_is_close_to_the_standard_one(name):
    fast, standard = (pixel_env(name, quality=quality).reset(seeds=[3])["pixels"] for quality in ("fast", "standard"))
    difference = (fast.float() - standard.float()).abs().mean().item()
    assert 0 < difference < 8


def test_camera_and_size():
    pictures = [pixel_env("dmc/cheetah_run", camera=camera, size=32).reset(seeds=[0])["pixels"] for camera in (0, 1)]
    assert pictures[0].shape == (1, 3, 32, 32)
    assert not torch.equal(*pictures)


def test_larger_than_the_shipped_framebuffer():
    assert pixel_env(size=700).reset()["pixels"].shape == (1, 3, 700, 700)


def test_a_camera_that_the_task_does_not_have():
    with pytest.raises(UserError, match=r"dmc/cheetah_run cannot be drawn with size 64, camera 9"):
        pixel_env("dmc/cheetah_run", camera=9)


def test_frames_of_a_state_environment():
    env = pixel_env(kind="state", environments=2)
    env.reset(seeds=[0, 1])
    first, second = env.frame(0), env.frame(1, size=96)
    assert first.shape == (64, 64, 3)
    assert second.shape == (96, 96, 3)
    assert first.dtype == np.uint8
    assert first.std() > 1
    kept = first.copy()
    env.step(env.full_action_spec.rand())
    env.frame(0)
    np.testing.assert_array_equal(first, kept)
    pixels = pixel_env().reset(seeds=[0])["pixels"][0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(first, pixels)


def test_a_finished_row_keeps_its_picture():
    env = make_env(TaskConfig("dmc/cartpole_swingup", max_decisions=1), ObservationConfig("pixels"), 1)
    current = env.step(env.reset().set("action", torch.ones(1, 1)))["next"]
    again = env.step(current.clone().set("action", -torch.ones(1, 1)))["next"]
    assert torch.equal(again["pixels"], current["pixels"])


def resident():
    """Resident memory of this process in MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads resident memory from /proc")
def test_drawing_does_not_leak():
    env = pixel_env(repeat=2, environments=2)
    current = env.reset()
    size = []
    for step in range(450):
        current = env.step(current.set("action", env.full_action_spec.rand()["action"]))["next"]
        if current["done"].all():
            current = env.reset()
        if step in (100, 449):
            gc.collect()
            size.append(resident())
    # 700 pictures: keeping each of them (12 KiB), or the scene it was drawn from (some 100 KiB), would show.
    assert size[1] - size[0] < 6
