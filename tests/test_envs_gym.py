"""Gymnasium's environments: contract, termination, bounds, pixels, refusals."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torchrl.envs.utils import check_env_specs

from lightning_wm.config.schema import ObservationConfig, TaskConfig
from lightning_wm.envs import make_env, rendering_problem, spaces
from lightning_wm.errors import UserError
from lightning_wm.protocols import Spaces

gymnasium = pytest.importorskip("gymnasium")


def gym_env(name="gym/Pendulum-v1", repeat=1, environments=1, kind="state", **task):
    return make_env(TaskConfig(name, repeat, **task), ObservationConfig(kind), environments)


def test_specs_and_keys():
    env = gym_env(environments=2, repeat=2)
    check_env_specs(env)
    assert spaces(env) == Spaces(action=1, observation=3)
    assert env.rollout(20)["next", "observation"].shape == (2, 20, 3)


def test_an_episode_is_gymnasiums_with_its_own_bounds():
    env, raw = gym_env(repeat=2), gymnasium.make("Pendulum-v1")
    assert float(raw.action_space.high[0]) == 2.0
    current = env.reset(seeds=[11])
    expected, _ = raw.reset(seed=11)
    np.testing.assert_array_equal(current["observation"][0].numpy(), expected)
    for value in (-1.0, -0.5, 0.0, 0.75, 1.0):
        current = env.step(current.set("action", torch.tensor([[value]])))["next"]
        rewards = []
        for _ in range(2):
            expected, reward, *_ = raw.step(np.array([2 * value], np.float32))
            rewards.append(reward)
        np.testing.assert_array_equal(current["observation"][0].numpy(), expected)
        assert current["reward"].item() == np.float32(sum(rewards))


def test_the_time_limit_truncates():
    whole = gym_env(repeat=3).rollout(100)
    last = whole["next"][0, -1]
    assert whole.shape == (1, 67)
    assert last["truncated"].item()
    assert not last["terminated"].item()
    assert whole["next", "env_steps"].sum() == 200


def test_a_fall_terminates():
    pytest.importorskip("mujoco")
    env = gym_env("gym/InvertedPendulum-v5", repeat=2, environments=2)
    current = env.reset(seeds=[0, 0])
    action = torch.tensor([[1.0], [-1.0]])
    while not current["done"].all():
        current = env.step(current.set("action", action))["next"]
    assert current["terminated"].all()
    assert not current["truncated"].any()
    idle = env.step(current.clone().set("action", action))["next"]
    assert torch.equal(idle["observation"], current["observation"])
    assert idle["terminated"].all()
    assert (idle["env_steps"] == 0).all()


def test_seeds_repeat_the_following_episodes_too():
    env = gym_env(environments=2)
    firsts = []
    for seed in (1, 1, 2):
        env.set_seed(seed)
        firsts.append(torch.stack([env.reset()["observation"] for _ in range(2)]))
    assert torch.equal(firsts[0], firsts[1])
    assert not torch.equal(firsts[0], firsts[2])
    assert not torch.equal(firsts[0][0], firsts[0][1])


@pytest.mark.skipif(rendering_problem() is not None, reason=f"this machine cannot draw: {rendering_problem()}")
def test_pixels():
    env = gym_env("gym/InvertedPendulum-v5", kind="both")
    check_env_specs(env)
    assert spaces(env) == Spaces(action=1, observation=4, pixels=(3, 64, 64))
    current = env.reset(seeds=[0])
    assert current["pixels"].float().std() > 1
    later = env.step(current.clone().set("action", torch.ones(1, 1)))["next"]
    assert env.frame(size=80).shape == (80, 80, 3)
    assert (later["pixels"].float() - current["pixels"].float()).abs().max() > 5
    env.close()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gym/CartPole-v1", r"gym/CartPole-v1 takes actions of Discrete\(2\), expected a Box"),
        ("gym/Pendulumm-v1", r"no environment 'Pendulumm-v1'; did you mean Pendulum-v1"),
        ("gym/Pendulum-v99", r"no environment 'Pendulum-v99'; did you mean Pendulum-v1"),
        ("gym/os:Pendulum-v1", r"names a module to import; put the module under `plugins`"),
    ],
)
def test_tasks_that_are_refused(name, message):
    with pytest.raises(UserError, match=message):
        gym_env(name)


class Unbounded(gymnasium.Env):
    """Actions without bounds, observations that are no vector of fixed length."""

    observation_space = gymnasium.spaces.Sequence(gymnasium.spaces.Box(-1, 1, (2,)))

    def __init__(self, bound):
        self.action_space = gymnasium.spaces.Box(-bound, bound, (1,))


@pytest.mark.parametrize(
    ("bound", "message"),
    [
        (np.inf, r"gym/Unbounded-v0 has action bounds of ±inf, expected at most ±1e\+06"),
        (1e7, r"gym/Unbounded-v0 has action bounds of ±1e\+07"),
        (1.0, r"gym/Unbounded-v0 observes Sequence"),
    ],
)
def test_spaces_that_are_refused(bound, message):
    gymnasium.register("Unbounded-v0", entry_point=Unbounded, kwargs={"bound": bound})
    try:
        with pytest.raises(UserError, match=message):
            gym_env("gym/Unbounded-v0")
    finally:
        del gymnasium.registry["Unbounded-v0"]


def test_a_constructor_that_fails():
    gymnasium.register("Unbounded-v0", entry_point=Unbounded)
    try:
        with pytest.raises(UserError, match=r"gym/Unbounded-v0 cannot be made: TypeError: .*'bound'"):
            gym_env("gym/Unbounded-v0")
    finally:
        del gymnasium.registry["Unbounded-v0"]


def test_a_task_without_a_picture():
    class Blind(gymnasium.Env):
        observation_space = gymnasium.spaces.Dict(a=gymnasium.spaces.Box(0, 1, (2, 2)), b=gymnasium.spaces.Box(0, 1))
        action_space = gymnasium.spaces.Box(-1, 1, (2, 3))

        def reset(self, *, seed=None, options=None):
            return {"a": np.arange(4, dtype=np.float32).reshape(2, 2), "b": np.full(1, 9, np.float32)}, {}

        def step(self, action):
            assert action.shape == (2, 3)
            return *self.reset()[:1], float(action[1, 0]), False, False, {}

    gymnasium.register("Blind-v0", entry_point=Blind)
    try:
        env = gym_env("gym/Blind-v0")
        current = env.reset()
        assert current["observation"].tolist() == [[0, 1, 2, 3, 9]]
        assert env.step(current.set("action", torch.arange(6)[None] / 8))["next", "reward"].item() == 3 / 8
        with pytest.raises(UserError, match=r"gym/Blind-v0 has no rgb_array picture"):
            env.frame()
        with pytest.raises(UserError, match=r"gym/Blind-v0 has no rgb_array picture"):
            gym_env("gym/Blind-v0", kind="pixels")
    finally:
        del gymnasium.registry["Blind-v0"]


def test_gymnasium_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(UserError, match=r"pip install 'lightning_wm\[gym\]'"):
        gym_env()
