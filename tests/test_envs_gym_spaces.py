"""What Gymnasium's environments return is converted or refused by name when the environment is made."""

from __future__ import annotations

import contextlib
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torchrl.envs.utils import check_env_specs

from lightning_wm.config.schema import ObservationConfig, RenderConfig, TaskConfig
from lightning_wm.envs import episode_limit, make_env, observation_layout, spaces
from lightning_wm.errors import EnvironmentFailure, UserError
from lightning_wm.protocols import Spaces

gymnasium = pytest.importorskip("gymnasium")
Box, Dict, Discrete, Tuple = (getattr(gymnasium.spaces, name) for name in ("Box", "Dict", "Discrete", "Tuple"))
FIVE = Box(-np.inf, np.inf, (5,))
RGB = Box(0, 255, (64, 64, 3), np.uint8)


class Toy(gymnasium.Env):
    """Shows `observation` in `observation_space`; everything else can be replaced."""

    action_space = Box(-2, 2, (1,))
    observation_space = FIVE
    shown = np.arange(5, dtype=np.float32)
    reward, terminated, truncated = 1.0, False, False

    def __init__(self, **replaced):
        for name, value in replaced.items():
            setattr(self, name, value)
        self.actions = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.show(), {}

    def step(self, action):
        self.actions.append(action)
        return self.show(), self.reward, self.terminated, self.truncated, {}

    def show(self):
        return self.shown


class Drawn(Toy):
    """One that draws what it is told."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, render_mode=None, picture=None, **replaced):
        super().__init__(**replaced)
        self.render_mode, self.picture = render_mode, picture

    def render(self):
        return self.picture


@contextlib.contextmanager
def toy(entry=Toy, kind="state", environments=1, repeat=1, size=64, limit=None, decisions=None, **replaced):
    gymnasium.register("Toy-v0", entry_point=entry, kwargs=replaced, max_episode_steps=limit)
    try:
        observation = ObservationConfig(kind, RenderConfig(size=size))
        env = make_env(TaskConfig("gym/Toy-v0", repeat, decisions), observation, environments)
        yield env
        env.close()
    finally:
        del gymnasium.registry["Toy-v0"]


def step(env, value=0.0):
    return env.step(env.reset().set("action", torch.full((1, env.action_spec.shape[-1]), value)))["next"]


# ---- observations


@pytest.mark.parametrize(
    ("space", "shown", "message"),
    [
        (FIVE, np.ones(1, np.float32), r"observation has shape \[1\], expected \[5\]"),
        (FIVE, 1.0, r"observation has shape \[\], expected \[5\]"),
        (FIVE, np.ones(6), r"observation has shape \[6\], expected \[5\]"),
        (FIVE, np.ones((3, 5)), r"the observation is 3 observations"),
        (Box(0, 1, (2, 3)), np.ones((3, 2)), r"observation has shape \[3, 2\], expected \[2, 3\]"),
        (FIVE, None, "observation is of object, expected numbers"),
        (FIVE, "hello", "observation is of <U5, expected numbers"),
        (FIVE, {"a": 1}, "observation is of object, expected numbers"),
        (Dict(a=FIVE), np.ones(5), "observation is of ndarray, expected a mapping with a"),
        (Dict(a=FIVE, b=FIVE), {"a": np.ones(5)}, "b is missing"),
        (Dict(a=FIVE), {"a": np.ones(5), "c": 1}, r"c is not in it \(it has a\)"),
        (Dict(a=Dict(b=FIVE)), {"a": {"b": np.ones(1)}}, r"a/b has shape \[1\], expected \[5\]"),
        (Tuple((FIVE, FIVE)), (np.ones(5),), "1 is missing"),
        (Discrete(3), 3, "observation is 3, expected a whole number from 0 to 2"),
    ],
)
def test_an_observation_that_does_not_fit_its_space(space, shown, message):
    with (
        pytest.raises(UserError, match=rf"task gym/Toy-v0 does not keep to Gymnasium's contract: .*{message}"),
        toy(observation_space=space, shown=shown),
    ):
        pass


@pytest.mark.parametrize(
    ("space", "shown", "vector"),
    [
        (FIVE, np.arange(5.0), [0, 1, 2, 3, 4]),
        (FIVE, [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]),
        (FIVE, torch.arange(5), [0, 1, 2, 3, 4]),
        (FIVE, np.arange(5.0)[None], [0, 1, 2, 3, 4]),
        (Box(-1, 1, (), np.float64), 0.5, [0.5]),
        (Box(-1, 1, (1,), np.float64), 0.5, [0.5]),
        (Box(0, 255, (3,), np.uint8), np.array([0, 7, 255], np.uint8), [0, 7, 255]),
        (Box(-9, 9, (2,), np.int64), np.array([-9, 9]), [-9, 9]),
        (Discrete(3, start=2), 3, [0, 1, 0]),
        (gymnasium.spaces.MultiDiscrete([2, 3], start=[0, 1]), np.array([1, 3]), [0, 1, 0, 0, 1]),
        (gymnasium.spaces.MultiBinary(3), np.array([1, 0, 1], np.int8), [1, 0, 1]),
        (Dict({"b": Box(-9, 9, (2,)), "a": Box(-9, 9, (1,))}), {"b": [1, 2], "a": [3]}, [3, 1, 2]),  # which it sorts
        (Dict(OrderedDict(b=Box(-9, 9, (2,)), a=Box(-9, 9, (1,)))), {"a": [3], "b": [1, 2]}, [1, 2, 3]),
        (
            Dict(
                OrderedDict(b=Dict({"y": Discrete(2), "x": Box(-9, 9, (2,))}), a=Tuple((Box(-9, 9, ()), Discrete(2))))
            ),
            {"a": (5.0, 1), "b": {"y": 0, "x": np.array([6.0, 7.0])}},
            [6, 7, 1, 0, 5, 0, 1],
        ),
    ],
)
def test_observations_in_the_spaces_own_order(space, shown, vector):
    with toy(observation_space=space, shown=shown, environments=2) as env:
        check_env_specs(env)
        assert spaces(env) == Spaces(action=1, observation=len(vector))
        assert env.reset()["observation"].tolist() == [vector, vector]
        assert observation_layout(env).flatten(shown).ravel().tolist() == vector
    if "torch" not in type(shown).__module__ and isinstance(shown, np.ndarray) and shown.shape == space.shape:
        assert gymnasium.spaces.flatten(space, shown).tolist() == vector


def test_float64_beyond_float32_is_a_failure_of_the_environment():
    with toy(shown=np.full(5, 1e300)) as env, pytest.raises(EnvironmentFailure, match="the observation is not finite"):
        env.reset()


def test_an_observation_that_changes_its_shape_later_is_a_failure_of_the_environment():
    class Shrinks(Toy):
        def show(self):
            return np.ones(5 if len(self.actions) < 4 else 1)

    with toy(Shrinks) as env:
        current = env.reset()
        current["action"] = torch.zeros(1, 1)
        for _ in range(2):  # and one when it was tried out
            env.step(current)
        with pytest.raises(EnvironmentFailure, match=r"environment 0 at env step 3 .*has shape \[1\], expected \[5\]"):
            env.step(current)


# ---- rewards and ends


@pytest.mark.parametrize(
    ("reward", "expected"),
    [(np.array([2.5]), 2.5), (np.array([[2.5]]), 2.5), (np.float32(0.1), float(np.float32(0.1))), (True, 1.0), (3, 3.0),
     (torch.tensor([2.5]), 2.5), (np.array(2, np.int8), 2.0)],
)  # fmt: skip
def test_rewards_that_are_a_number(reward, expected):
    with toy(reward=reward, repeat=2) as env:
        assert step(env)["reward"].item() == np.float32(2 * expected)


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"reward": np.ones(2)}, r"the reward is float64 \[2\], expected one number"),
        ({"reward": np.ones(0)}, r"the reward is float64 \[0\], expected one number"),
        ({"reward": None}, "the reward is None, expected one number"),
        ({"reward": "1"}, "the reward is '1', expected one number"),
        ({"reward": 1j}, "the reward is 1j, expected one number"),
        ({"reward": {"task": 1.0}}, "the reward is {'task': 1.0}, expected one number"),
        ({"terminated": None}, "terminated is None, expected True or False"),
        ({"terminated": np.array([True, False])}, r"terminated is bool \[2\], expected True or False"),
        ({"truncated": 0.5}, "truncated is 0.5, expected True or False"),
        ({"truncated": "no"}, "truncated is 'no', expected True or False"),
        ({"step": lambda action: (np.ones(5), 1.0, False, {})}, "step returned 4 values, expected"),
        ({"step": lambda action: None}, "step returned a NoneType, expected"),
        ({"reset": lambda seed=None, options=None: np.ones(5)}, r"reset returned a ndarray, expected \(obs"),
        ({"reset": lambda seed=None, options=None: (np.ones(5), np.ones(5))}, r"reset returned 2 values, expected"),
    ],
)
def test_what_is_no_reward_and_no_end(replaced, message):
    with (
        pytest.raises(UserError, match=rf"gym/Toy-v0 does not keep to Gymnasium's contract: {message}"),
        toy(**replaced),
    ):
        pass


@pytest.mark.parametrize("ended", [True, np.True_, np.array([True]), 1, torch.tensor(True)])
@pytest.mark.parametrize("how", ["terminated", "truncated"])
def test_an_episode_may_end_at_its_first_step(how, ended):
    with toy(**{how: ended}, repeat=4) as env:
        after = step(env)
        assert [after[name].item() for name in ("terminated", "truncated", "env_steps")] == [
            how == "terminated", how == "truncated", 1,
        ]  # fmt: skip
        assert step(env)["done"].item()


def test_rewards_that_depend_on_info():
    class Goal(Toy):
        def step(self, action):
            info = {"distance": abs(float(action[0]) - 1.0)}
            return self.shown, self.compute_reward(info), False, False, info

        def compute_reward(self, info):
            return -np.array(info["distance"], np.float32)

    with toy(Goal) as env:
        assert step(env, 0.25)["reward"].item() == -0.5


# ---- environments that raise


def test_an_environment_that_raises_at_every_start_is_refused():
    def fail(action):
        raise KeyError("joint7")

    with (
        pytest.raises(EnvironmentFailure, match="gym/Toy-v0 failed in its first step: KeyError: 'joint7'"),
        toy(step=fail),
    ):
        pass


def test_an_environment_that_raises_at_times_is_not():
    class Flaky(Toy):
        steps = 0

        def step(self, action):
            Flaky.steps += 1
            if Flaky.steps == 1:
                raise ConnectionError("try again")
            return super().step(action)

    with toy(Flaky) as env:
        assert step(env)["reward"].item() == 1


def test_trying_it_out_does_not_change_seeded_episodes():
    class Random(Toy):
        def show(self):
            return self.np_random.random(5)

    with toy(Random) as env:
        raw = Random()
        np.testing.assert_array_equal(
            env.reset(seeds=[3])["observation"][0].numpy(), raw.reset(seed=3)[0].astype(np.float32)
        )


# ---- actions


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (Discrete(4), r"takes actions of Discrete\(4\), expected a Box"),
        (gymnasium.spaces.MultiDiscrete([2, 3]), r"takes actions of MultiDiscrete\(\[2 3\]\), expected a Box"),
        (Tuple((Box(-1, 1), Box(-1, 1))), r"takes actions of Tuple\(.*expected a Box"),
        (Dict(a=Box(-1, 1)), r"takes actions of Dict\(.*expected a Box"),
        (
            Box(0, 10, (2,), np.int64),
            r"takes whole numbers as actions \(Box\(0, 10, \(2,\), int64\)\), expected a Box of fl",
        ),
        (Box(0, 255, (2,), np.uint8), r"takes whole numbers as actions"),
        (Box(-np.inf, np.inf, (2,)), r"has action bounds of ±inf"),
        (Box(np.array([0.0, -1.0], np.float32), np.array([np.inf, 1.0], np.float32)), r"has action bounds of ±inf"),
        (Box(-1, 1, (0,)), r"takes actions of .*, expected one number or more"),
    ],
)
def test_actions_that_are_refused(space, message):
    with pytest.raises(UserError, match=rf"task gym/Toy-v0 {message}"), toy(action_space=space):
        pass


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
def test_actions_have_the_spaces_shape_and_dtype(shape, dtype):
    space = Box(-3, 1, shape, dtype)
    with toy(action_space=space) as env:
        for value, expected in ((-1.0, -3.0), (0.25, -0.5), (1.0, 1.0)):
            step(env, value)
            action = env.simulators[0]._env.unwrapped.actions[-1]
            assert (action.shape, action.dtype) == (shape, dtype)
            assert space.contains(action)
            assert (action == expected).all()


# ---- render modes and pictures


class NoMode(Toy):
    """Says that it draws and does not know `render_mode`."""

    metadata = {"render_modes": ["human", "rgb_array"]}  # noqa: RUF012

    def __init__(self, shown=Toy.shown, observation_space=FIVE):
        super().__init__(shown=shown, observation_space=observation_space)


def test_an_environment_without_render_mode_plays_from_its_state():
    with toy(NoMode) as env:
        assert step(env)["reward"].item() == 1
        reason = (
            r"gym/Toy-v0 has no rgb_array picture \(with render_mode='rgb_array' it fails: TypeError: .*render_mode"
        )
        with pytest.raises(UserError, match=reason):
            env.frame()
    with pytest.raises(UserError, match=reason), toy(NoMode, "pixels"):
        pass


def test_an_environment_whose_picture_needs_what_is_missing_plays_from_its_state():
    class NeedsScreen(Drawn):
        def __init__(self, render_mode=None):
            if render_mode is not None:
                raise gymnasium.error.DependencyNotInstalled("no screen")
            super().__init__()

    with toy(NeedsScreen) as env:
        assert step(env)["reward"].item() == 1
    with pytest.raises(UserError, match="DependencyNotInstalled: no screen"), toy(NeedsScreen, "pixels"):
        pass


def test_a_function_that_makes_environments_may_draw():
    with toy(lambda **given: Drawn(**given), "both", picture=np.full((64, 64, 3), 9, np.uint8)) as env:
        assert (env.reset()["pixels"] == 9).all()
    with toy(lambda: Toy()) as env:
        assert step(env)["reward"].item() == 1


GRADIENT = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (GRADIENT, GRADIENT),
        (GRADIENT[::-1], GRADIENT[::-1]),
        (np.concatenate([GRADIENT, np.full((64, 64, 1), 3, np.uint8)], axis=2), GRADIENT),
        (GRADIENT[:, :, 0], np.repeat(GRADIENT[:, :, :1], 3, axis=2)),
        (GRADIENT[:, :, :1], np.repeat(GRADIENT[:, :, :1], 3, axis=2)),
    ],
)
def test_pictures_that_become_rgb(picture, expected):
    with toy(Drawn, "both", picture=picture) as env:
        check_env_specs(env)
        np.testing.assert_array_equal(env.reset()["pixels"][0].permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (GRADIENT / 255, r"it is float64 \[64, 64, 3\], expected uint8 \[height, width, 3\]"),
        (GRADIENT.astype(np.int64), r"it is int64 \[64, 64, 3\]"),
        (GRADIENT.transpose(2, 0, 1), r"it is uint8 \[3, 64, 64\]"),
        (GRADIENT[None], r"it is uint8 \[1, 64, 64, 3\]"),
        (GRADIENT[:, :, :2], r"it is uint8 \[64, 64, 2\]"),
        (None, r"it is object \[\]"),
        ([], r"it is float64 \[0\]"),
        (GRADIENT[:0], r"it is uint8 \[0, 64, 3\]"),
    ],
)
@pytest.mark.parametrize("kind", ["pixels", "both"])
def test_pictures_that_are_refused_when_the_environment_is_made(picture, message, kind):
    with (
        pytest.raises(UserError, match=f"task gym/Toy-v0 has a picture that cannot be used: {message}"),
        toy(Drawn, kind, picture=picture),
    ):
        pass
    with toy(Drawn, picture=picture) as env:
        step(env)
        with pytest.raises(UserError, match="a picture that cannot be used"):
            env.frame()


# ---- pictures that are observed


@pytest.mark.parametrize(
    ("space", "shown", "expected"),
    [
        (RGB, GRADIENT, GRADIENT),
        (Box(0, 255, (3, 64, 64), np.uint8), GRADIENT.transpose(2, 0, 1), GRADIENT),
        (Box(0, 255, (64, 64, 1), np.uint8), GRADIENT[:, :, :1], np.repeat(GRADIENT[:, :, :1], 3, axis=2)),
        (Box(0, 255, (1, 64, 64), np.uint8), GRADIENT[None, :, :, 0], np.repeat(GRADIENT[:, :, :1], 3, axis=2)),
        (Box(0, 255, (64, 64), np.uint8), GRADIENT[:, :, 0], np.repeat(GRADIENT[:, :, :1], 3, axis=2)),
        (Box(0, 1, (64, 64, 3), np.float32), (GRADIENT / 255).astype(np.float32), GRADIENT),
        (Box(0, 255, (64, 64, 3), np.float64), GRADIENT.astype(np.float64), GRADIENT),
        (Box(0, 255, (64, 64, 3), np.int64), GRADIENT.astype(np.int64), GRADIENT),
        (Dict(camera=RGB), {"camera": GRADIENT}, GRADIENT),
    ],
)
def test_an_observed_picture_is_the_pixels(space, shown, expected):
    for entry in (Toy, NoMode):
        with toy(entry, "pixels", observation_space=space, shown=shown, environments=2) as env:
            check_env_specs(env)
            assert spaces(env) == Spaces(action=1, pixels=(3, 64, 64))
            pixels = env.reset()["pixels"]
            np.testing.assert_array_equal(pixels[1].numpy(), expected.transpose(2, 0, 1))
            assert env.frame(size=96).shape == (96, 96, 3)


def test_observed_pictures_of_another_size_are_resized():
    flat = np.zeros((84, 60, 3), np.uint8)
    flat[:, :, 1] = 200
    with toy(kind="pixels", size=32, observation_space=Box(0, 255, flat.shape, np.uint8), shown=flat) as env:
        pixels = env.reset()["pixels"]
        assert pixels.shape == (1, 3, 32, 32)
        assert pixels[0, :, 5, 5].tolist() == [0, 200, 0]


def test_an_observed_picture_is_taken_before_a_drawn_one():
    with toy(Drawn, "pixels", picture=GRADIENT[::-1], observation_space=RGB, shown=GRADIENT) as env:
        np.testing.assert_array_equal(env.reset()["pixels"][0].permute(1, 2, 0).numpy(), GRADIENT)


def test_a_picture_beside_a_vector():
    space = Dict(OrderedDict(camera=RGB, joints=Box(-9, 9, (2,)), touch=Discrete(2)))
    shown = {"camera": GRADIENT, "joints": [4.0, 5.0], "touch": 1}
    with toy(kind="both", observation_space=space, shown=shown) as env:
        check_env_specs(env)
        first = env.reset()
        assert first["observation"].tolist() == [[4, 5, 0, 1]]
        np.testing.assert_array_equal(first["pixels"][0].permute(1, 2, 0).numpy(), GRADIENT)
        layout = observation_layout(env)
        assert layout.names == ("joints", "touch")
        assert layout.flatten(shown).tolist() == [4, 5, 0, 1]
    with (
        pytest.raises(UserError, match=r"observes images \(camera in Dict.*type observation.kind=both"),
        toy(observation_space=space, shown=shown),
    ):
        pass


@pytest.mark.parametrize(
    ("kind", "space", "shown", "message"),
    [
        ("state", RGB, GRADIENT, r"observes images \(observation in Box.*; type observation.kind=pixels"),
        ("both", RGB, GRADIENT, r"observes a picture alone \(Box.*; type observation.kind=pixels"),
        (
            "pixels",
            Dict(a=RGB, b=RGB),
            {"a": GRADIENT, "b": GRADIENT},
            r"observes several pictures \(a, b\), expected one",
        ),
        ("pixels", Box(0, 255, (4, 64, 64), np.uint8), np.zeros((4, 64, 64), np.uint8), "has no rgb_array picture"),
        ("pixels", Box(0, 255, (8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint8), "has no rgb_array picture"),
        ("pixels", RGB, GRADIENT[:32], r"it is uint8 \[32, 64, 3\], expected uint8 \[64, 64, 3\] as in its space"),
        ("pixels", RGB, GRADIENT / 255, r"it is float64 \[64, 64, 3\], expected uint8"),
        ("pixels", Box(0, 1, (64, 64, 3)), np.full((64, 64, 3), 7.0), "it has values from 7.0 to 7.0, expected 0 to 1"),
        ("pixels", Box(0, 1, (64, 64, 3)), np.full((64, 64, 3), np.nan), "it has values from nan"),
        ("pixels", Dict(camera=RGB), {"image": GRADIENT}, "camera is missing"),
    ],
)
def test_observed_pictures_that_are_refused(kind, space, shown, message):
    with (
        pytest.raises(UserError, match=rf"gym/Toy-v0 .*{message}"),
        toy(kind=kind, observation_space=space, shown=shown),
    ):
        pass


def test_small_grids_and_fractions_stay_vectors():
    for space in (Box(0, 255, (7, 7, 3), np.uint8), Box(0, 1, (20, 20)), Box(0, 255, (128,), np.uint8)):
        with toy(observation_space=space, shown=np.zeros(space.shape, space.dtype)) as env:
            assert spaces(env).observation == int(np.prod(space.shape))


# ---- how long an episode is


def test_whether_episodes_end_by_time():
    with toy() as env:
        assert episode_limit(env) is None
    with toy(limit=30) as env:
        assert episode_limit(env) == 30
    with toy(decisions=7, repeat=3) as env:
        assert episode_limit(env) == 21
    with toy(limit=30, decisions=7, repeat=3) as env:
        assert episode_limit(env) == 21
        assert env.rollout(100)["next", "env_steps"].sum() == 21
    with toy(limit=20, decisions=7, repeat=3) as env:
        assert episode_limit(env) == 20
        assert env.rollout(100)["next", "env_steps"].sum() == 20
    with toy(lambda: gymnasium.wrappers.TimeLimit(Toy(), 12)) as env:
        assert episode_limit(env) == 12
    assert episode_limit(make_env(TaskConfig("dmc/cartpole_swingup", 4), ObservationConfig("state"))) == 1000
    assert episode_limit(object()) is None


def test_a_wrapper_may_be_what_is_registered():
    class Doubled(gymnasium.RewardWrapper):
        def __init__(self, render_mode=None):
            super().__init__(Drawn(render_mode, GRADIENT))

        def reward(self, reward):
            return 2 * reward

    with toy(Doubled, "both") as env:
        assert step(env)["reward"].item() == 2


def test_a_picture_that_changes_its_form_later_is_a_failure_of_the_environment():
    class Fades(Drawn):
        def render(self):
            return GRADIENT if len(self.actions) < 2 else GRADIENT / 255

    with toy(Fades, "both", environments=2) as env:
        with pytest.raises(
            EnvironmentFailure, match=r"gym/Toy-v0 failed in environment 0 at env step 1.*it is float64"
        ):
            env.rollout(3)
        env.restart = True
        current = env.reset()
        assert sorted(env.failed) == [0]
        current["action"] = torch.zeros(2, 1)
        env.step(env.reset().set("action", current["action"]))
        assert env.failed == {}
        env.step(current)
        assert sorted(env.failed) == [0, 1]


def test_observations_that_are_the_same_array_every_time():
    class Reuses(Toy):
        def show(self):
            self.shown[:] = len(self.actions)
            return self.shown

    with toy(Reuses, shown=np.zeros(5)) as env:
        first = env.reset()
        kept = first["observation"].clone()
        after = env.step(first.clone().set("action", torch.zeros(1, 1)))["next"]
        assert torch.equal(first["observation"], kept)
        assert (after["observation"] == kept + 1).all()
