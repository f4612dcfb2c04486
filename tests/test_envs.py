"""dm_control tasks from their state vector: contract, seeds, repeats, ends, refusals."""

from __future__ import annotations

from importlib import metadata

import numpy as np
import pytest
import torch
from torchrl.envs.utils import check_env_specs

from lightning_wm.config.schema import ObservationConfig, RenderConfig, TaskConfig
from lightning_wm.envs import make_env, spaces, task_names
from lightning_wm.envs.dmc import suite
from lightning_wm.errors import EnvironmentFailure, UserError
from lightning_wm.protocols import Spaces

STATE = ObservationConfig("state")
TASKS = task_names()


def state_env(name="dmc/cartpole_swingup", repeat=1, environments=1, **task):
    return make_env(TaskConfig(name, repeat, **task), STATE, environments)


def actions(env, steps, seed=0):
    """`[steps, E, A]` uniform in [-1, 1]."""
    return torch.rand(steps, *env.action_spec.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def play(env, first, chosen):
    """Observations `[steps + 1, E, O]` and rewards `[steps, E, 1]` of a sequence of actions."""
    shown, rewards, current = [first["observation"]], [], first
    for action in chosen:
        current = env.step(current.set("action", action))["next"]
        shown.append(current["observation"])
        rewards.append(current["reward"])
    return torch.stack(shown), torch.stack(rewards)


def by_hand(name, seed, chosen, repeat):
    """The same episode with dm_control alone: observations and summed rewards in float64."""
    domain, _, task = name.partition("_")
    raw = suite().load(domain, task, task_kwargs={"random": seed})
    flat = lambda step: np.concatenate([np.ravel(value) for value in step.observation.values()])  # noqa: E731
    shown, rewards = [flat(raw.reset())], []
    for action in chosen.double().numpy():
        total = 0.0
        for _ in range(repeat):
            step = raw.step(action)
            total += step.reward
        shown.append(flat(step))
        rewards.append(total)
    return np.stack(shown), np.array(rewards)


def test_specs_and_keys():
    env = state_env("dmc/cheetah_run", repeat=4, environments=3)
    check_env_specs(env)
    assert spaces(env) == Spaces(action=6, observation=17, pixels=None)
    spec = env.action_spec
    assert spec.shape == (3, 6)
    assert spec.dtype == torch.float32
    assert (spec.space.low == -1).all()
    assert (spec.space.high == 1).all()
    rollout = env.rollout(20)
    assert rollout.shape == (3, 20)
    after = rollout["next"]
    assert {key: (after[key].dtype, tuple(after[key].shape[2:])) for key in after.keys()} == {  # noqa: SIM118
        "observation": (torch.float32, (17,)),
        "reward": (torch.float32, (1,)),
        "terminated": (torch.bool, (1,)),
        "truncated": (torch.bool, (1,)),
        "done": (torch.bool, (1,)),
        "is_init": (torch.bool, (1,)),
        "env_steps": (torch.int64, (1,)),
    }
    assert (after["env_steps"] == 4).all()
    assert rollout["is_init"][:, 0].all()
    assert not rollout["is_init"][:, 1:].any()
    assert not after["is_init"].any()


@pytest.mark.parametrize("name", TASKS)
def test_every_task_of_the_suite(name):
    env = state_env(name, repeat=2)
    first = env.reset(seeds=[3])
    chosen = actions(env, 2)
    shown, rewards = play(env, first, chosen)
    assert shown.shape == (3, 1, spaces(env).observation)
    assert (shown[1] != shown[0]).any()
    assert torch.isfinite(rewards).all()
    again, _ = play(env, env.reset(seeds=[3]), chosen)
    assert torch.equal(again, shown)
    env.close()


def test_the_list_of_tasks_leaves_out_the_unbounded_ones_only():
    missing = {f"dmc/{domain}_{task}" for domain, task in suite().ALL_TASKS} - set(TASKS)
    assert missing == {"dmc/lqr_lqr_2_1", "dmc/lqr_lqr_6_2"}


@pytest.mark.parametrize("repeat", [1, 3])
def test_an_episode_is_dm_controls(repeat):
    env = state_env("dmc/reacher_easy", repeat)
    chosen = actions(env, 12)
    shown, rewards = play(env, env.reset(seeds=[7]), chosen)
    expected, summed = by_hand("reacher_easy", 7, chosen[:, 0], repeat)
    np.testing.assert_array_equal(shown[:, 0].numpy(), expected.astype(np.float32))
    np.testing.assert_array_equal(rewards[:, 0, 0].numpy(), summed.astype(np.float32))


def test_seeds_belong_to_rows_and_wrap_at_32_bits():
    env = state_env("dmc/walker_walk", environments=3)
    first = env.reset(seeds=[5, 6, 5 + 2**32])["observation"]
    assert torch.equal(first[0], first[2])
    assert not torch.equal(first[0], first[1])
    play(env, env.reset(seeds=[1, 2, 3]), actions(env, 5))
    again = env.reset(seeds=[6, 5, 5])["observation"]
    assert torch.equal(again, first[[1, 0, 0]])


def test_a_row_without_a_seed_goes_on_from_its_own_stream():
    env = state_env(environments=2)
    firsts = []
    for _ in range(2):
        env.reset(seeds=[4, 4])
        firsts.append(env.reset(seeds=[None, 4])["observation"])
    assert torch.equal(firsts[0], firsts[1])
    assert not torch.equal(firsts[0][0], firsts[0][1])


def test_set_seed_repeats_all_following_episodes():
    env = state_env(environments=2)
    runs = []
    for seed in (3, 3, 4):
        env.set_seed(seed)
        chosen = actions(env, 4)
        runs.append(torch.stack([play(env, env.reset(), chosen)[0] for _ in range(3)]))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert not torch.equal(runs[0][0], runs[0][1])
    assert not torch.equal(runs[0][:, :, 0], runs[0][:, :, 1])


def test_wrong_number_of_seeds():
    with pytest.raises(ValueError, match="3 seeds for 2 environments"):
        state_env(environments=2).reset(seeds=[1, 2, 3])


def test_partial_reset_leaves_the_others_alone():
    env = state_env(environments=3)
    current = env.reset(seeds=[0, 1, 2])
    for action in actions(env, 5):
        current = env.step(current.set("action", action))["next"]
    before = current["observation"].clone()
    mask = torch.tensor([[False], [True], [False]])
    current = env.reset(current.set("_reset", mask), seeds=[None, 9, None])
    assert current["is_init"].flatten().tolist() == [False, True, False]
    assert torch.equal(current["observation"][[0, 2]], before[[0, 2]])
    assert torch.equal(current["observation"][1], env_first(9))
    chosen = actions(env, 1, seed=1)
    shown, _ = play(env, current, chosen)
    alone = state_env(environments=3)
    expected, _ = play(alone, alone.reset(seeds=[0, 1, 2]), torch.cat([actions(env, 5), chosen]))
    assert torch.equal(shown[1][[0, 2]], expected[-1][[0, 2]])


def env_first(seed):
    return state_env().reset(seeds=[seed])["observation"][0]


def test_an_episode_is_truncated_after_1000_env_steps_whatever_the_repeat():
    env = state_env("dmc/pendulum_swingup", repeat=7)
    whole = env.rollout(200)
    last = whole["next"][0, -1]
    assert whole.shape == (1, 143)
    assert last["truncated"].item()
    assert not last["terminated"].item()
    assert last["done"].item()
    assert last["env_steps"].item() == 1000 - 142 * 7
    assert whole["next", "env_steps"].sum() == 1000
    assert not whole["next", "done"][0, :-1].any()


def test_discount_zero_terminates():
    env = state_env(repeat=4)
    env.reset(seeds=[0])
    inner = env.simulators[0]._env
    inner.task.get_termination = lambda physics: 0.0 if physics.time() > 0.055 else None
    steps = [env.step(env.full_action_spec.zero())["next"] for _ in range(3)]
    assert [step["env_steps"].item() for step in steps] == [4, 2, 0]
    assert [step["terminated"].item() for step in steps] == [False, True, True]
    assert not any(step["truncated"].item() for step in steps)


def test_max_decisions_truncates():
    env = state_env(repeat=2, environments=2, max_decisions=5)
    whole = env.rollout(20)
    assert whole.shape == (2, 5)
    assert whole["next", "truncated"][:, -1].all()
    assert not whole["next", "terminated"].any()
    assert env.rollout(20).shape == (2, 5)


def test_finished_rows_idle_beside_the_others():
    env = state_env(environments=2, max_decisions=3)
    current = env.reset(seeds=[0, 1])
    for action in actions(env, 3):
        current = env.step(current.set("action", action))["next"]
    mask = torch.tensor([[False], [True]])
    current = env.reset(current.set("_reset", mask), seeds=[None, 2])
    last = current["observation"][0].clone()
    action = torch.tensor([[float("nan")], [0.5]])
    for _ in range(2):
        current = env.step(current.set("action", action))["next"]
        assert torch.equal(current["observation"][0], last)
        assert current["reward"][0] == 0
        assert current["env_steps"].flatten().tolist() == [0, 1]
        assert current["done"].flatten().tolist() == [True, False]
    played, alone = env_first(2), state_env()
    expected, _ = play(alone, alone.reset(seeds=[2]), torch.full((2, 1, 1), 0.5))
    assert torch.equal(expected[0, 0], played)
    assert torch.equal(current["observation"][1], expected[2, 0])


def test_rollout_until_all_rows_are_done():
    env = state_env(environments=2, max_decisions=4)
    current = env.reset()
    current = env.step(current.set("action", env.full_action_spec.zero()["action"]))["next"]
    current = env.reset(current.set("_reset", torch.tensor([[True], [False]])))
    whole = env.rollout(10, tensordict=current, auto_reset=False, break_when_any_done=False, break_when_all_done=True)
    # TorchRL pads the shorter row with its last transition.
    assert whole["next", "done"][..., 0].tolist() == [[False, False, False, True], [False, False, True, True]]
    assert whole["next", "observation"][1, 3].equal(whole["next", "observation"][1, 2])


def test_what_was_returned_does_not_change_later():
    env = state_env()
    first = env.reset(seeds=[0])
    kept = first["observation"].clone()
    env.step(first.clone().set("action", torch.ones(1, 1)))
    assert torch.equal(first["observation"], kept)


def test_actions_beyond_the_bounds_are_clipped():
    env = state_env()
    beyond, _ = play(env, env.reset(seeds=[0]), torch.full((3, 1, 1), 1.5))
    within, _ = play(env, env.reset(seeds=[0]), torch.ones(3, 1, 1))
    assert torch.equal(beyond, within)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_action_that_is_not_finite(value):
    env = state_env(environments=3)
    current = env.reset()
    current["action"] = torch.tensor([[0.0], [value], [0.0]])
    with pytest.raises(ValueError, match="action of environment 1 is not finite"):
        env.step(current)


def test_an_action_of_the_wrong_shape():
    env = state_env("dmc/cheetah_run", environments=2)
    with pytest.raises(ValueError, match=r"shape \[2, 1\], expected \[2, 6\]"):
        env.step(env.reset().set("action", torch.zeros(2, 1)))


def broken(**methods):
    """An environment whose second row's simulator fails at its third env step."""
    env = state_env(environments=2)
    current = env.reset()
    current["action"] = torch.zeros(2, 1)
    env.step(current)
    env.step(current)
    simulator = env.simulators[1]
    for name, method in methods.items():
        setattr(simulator, name, method)
    return env, current


def test_a_reward_that_is_not_finite():
    env, current = broken(step=lambda action: (float("nan"), False, False))
    with pytest.raises(EnvironmentFailure, match=r"dmc/cartpole_swingup.*environment 1 at env step 3.*reward is nan"):
        env.step(current)


def test_an_observation_that_is_not_finite():
    env, current = broken(observe=lambda out: out.fill(float("inf")))
    with pytest.raises(EnvironmentFailure, match=r"environment 1 at env step 3.*observation is not finite"):
        env.step(current)


def test_a_simulator_that_raises():
    env, current = broken()
    physics = env.simulators[1]._env.physics
    physics.data.qpos[:] = np.nan
    with pytest.raises(EnvironmentFailure, match=r"environment 1 at env step \d+ .*PhysicsError") as caught:
        env.step(current)
    assert type(caught.value.__cause__).__name__ == "PhysicsError"


def test_stepping_before_the_first_reset():
    env = state_env()
    with pytest.raises(RuntimeError, match=r"call env.reset\(\) first"):
        env.step(env.full_action_spec.zero())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dmc/cheeta_run", r"did you mean cheetah_run"),
        ("dmc/ball_in_cup", r"did you mean ball_in_cup_catch"),
        ("dmc/cartpole-swingup", r"did you mean cartpole_swingup"),
        ("cheetah_run", r"expected dmc/<task> or gym/<id>; did you mean dmc/cheetah_run"),
        ("dcm/cheetah_run", r"there is no environment 'dcm'; did you mean 'dmc'"),
        ("dmc/lqr_lqr_2_1", r"dmc/lqr_lqr_2_1 has action bounds of ±1e\+10, expected at most ±1e\+06"),
        ("dmc/", r"expected dmc/<task>"),
    ],
)
def test_tasks_that_are_refused(name, message):
    with pytest.raises(UserError, match=message):
        state_env(name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            lambda: TaskConfig("dmc/cartpole_swingup", 0),
            "task.action_repeat=0: expected a positive number of env steps",
        ),
        (lambda: make_env(TaskConfig("dmc/cartpole_swingup"), STATE, 0), "environments is 0"),
        (lambda: ObservationConfig("image"), "observation.kind=image: expected one of state, pixels, both"),
        (lambda: RenderConfig("best"), "observation.render.quality=best: expected one of fast, standard"),
        (lambda: RenderConfig(size=0), "observation.render.size=0: expected a positive number of pixels"),
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        settings()


def test_mujoco_4_is_refused_with_the_fix(monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda name: "4.0.0")
    with pytest.raises(UserError, match=r'mujoco 4\.0\.0 .*pip install "mujoco>=3\.17,<4"'):
        state_env()


def test_bounds_other_than_one_are_scaled():
    env = state_env()
    seen = []
    env.simulators[0].step = lambda action: (seen.append(action.copy()), (0.0, False, False))[1]
    env._low, env._high = np.array([-3.0]), np.array([1.0])
    current = env.reset()
    for value in (-1.0, 0.0, 0.25, 1.0):
        env.step(current.set("action", torch.tensor([[value]])))
    assert [float(action[0]) for action in seen] == [-3.0, -1.0, -0.5, 1.0]


def test_closing_twice_is_harmless():
    env = state_env()
    env.reset()
    env.close()
    env.close()
    assert env.is_closed


def test_spaces_of_a_torchrl_environment_of_another_kind():
    from torchrl.envs import RewardSum, TransformedEnv

    wrapped = TransformedEnv(state_env(environments=2), RewardSum())
    assert spaces(wrapped) == Spaces(action=1, observation=5)
    check_env_specs(wrapped)
    assert wrapped.rollout(3)["next", "episode_reward"].shape == (2, 3, 1)
