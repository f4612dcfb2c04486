"""A task's own observation becomes its state vector, by names, shapes and order."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torchrl.envs import RewardSum, TransformedEnv

from lightning_wm.config.schema import ObservationConfig, TaskConfig
from lightning_wm.envs import make_env, observation_layout, spaces
from lightning_wm.envs.dmc import suite
from lightning_wm.envs.layout import ObservationLayout, Part

HAND = ObservationLayout({"b": Part((2,)), "a": Part(), "c": {"y": Part((1, 2)), "x": Part((1,))}})
VALUE = {"a": 3.0, "c": {"x": np.array([6.0]), "y": np.array([[4.0, 5.0]])}, "b": np.array([1.0, 2.0])}


@pytest.mark.parametrize("name", ["cartpole_swingup", "finger_spin", "reacher_easy", "humanoid_stand"])
def test_dm_controls_dictionary_is_the_vector(name):
    env = make_env(TaskConfig(f"dmc/{name}"), ObservationConfig("state"))
    expected = env.reset(seeds=[5])["observation"][0].numpy()
    raw = suite().load(*name.split("_"), task_kwargs={"random": 5})
    own = raw.reset().observation
    own_layout = observation_layout(env)
    assert own_layout.names == tuple(own)
    assert own_layout.size == spaces(env).observation
    shuffled = OrderedDict(reversed(own.items()))
    for observation in (own, shuffled, {key: torch.as_tensor(value) for key, value in own.items()}):
        vector = own_layout.flatten(observation)
        assert vector.dtype == np.float32
        np.testing.assert_array_equal(vector, expected)


def test_the_layouts_order_and_not_the_mappings():
    assert HAND.names == ("b", "a", "c/y", "c/x")
    assert HAND.sizes == (2, 1, 2, 1)
    assert HAND.size == 6
    assert HAND.flatten(VALUE).tolist() == [1, 2, 3, 4, 5, 6]
    assert [HAND.entry(index) for index in range(6)] == ["b[0]", "b[1]", "a[0]", "c/y[0]", "c/y[1]", "c/x[0]"]


def test_leading_axes_are_environments():
    batched = {
        "b": np.arange(6).reshape(3, 2), "a": np.arange(3), "c": {"y": np.zeros((3, 1, 2)), "x": np.ones((3, 1))},
    }  # fmt: skip
    assert HAND.flatten(batched).tolist() == [[0, 1, 0, 0, 0, 1], [2, 3, 1, 0, 0, 1], [4, 5, 2, 0, 0, 1]]
    alone = {"b": np.ones((1, 2)), "a": np.ones(1), "c": {"y": np.ones((1, 1, 2)), "x": np.ones((1, 1))}}
    assert HAND.flatten(alone).shape == (1, 6)
    with pytest.raises(ValueError, match="different leading axes"):
        HAND.flatten({**batched, "a": np.arange(4)})


def test_axes_of_length_one_may_be_missing():
    assert ObservationLayout(Part((3, 1))).flatten(np.arange(3)).tolist() == [0, 1, 2]
    assert ObservationLayout({"a": Part(), "b": Part((2,))}).flatten({"a": [7], "b": [1, 2]}).tolist() == [7, 1, 2]


def test_whole_numbers_become_one_hot():
    whole = ObservationLayout({"0": Part((), ((1, 3),)), "1": Part((2,), ((0, 2), (5, 2)))})
    assert whole.sizes == (3, 4)
    assert whole.flatten((2, [1, 5])).tolist() == [0, 1, 0, 0, 1, 1, 0]
    both = whole.flatten({"0": [1, 3], "1": [[0, 5], [0, 6]]})
    assert both.tolist() == [[1, 0, 0, 1, 0, 1, 0], [0, 0, 1, 1, 0, 0, 1]]
    for wrong in (0, 4, 1.5):
        with pytest.raises(ValueError, match=rf"0 is {wrong}, expected a whole number from 1 to 3"):
            whole.flatten((wrong, [1, 5]))


@pytest.mark.parametrize(
    ("observation", "faults"),
    [
        ({"a": 3.0, "c": {"y": [[4, 5]]}}, ["b is missing", "c/x is missing"]),
        ({**VALUE, "d": 1}, ["d is not in it (it has b, a, c)"]),
        ({**VALUE, "b": np.ones(3)}, ["b has shape [3], expected [2]"]),
        ({**VALUE, "b": np.ones(1)}, ["b has shape [1], expected [2]"]),
        ({**VALUE, "c": {"x": [1], "y": np.ones((2, 1, 2))}}, ["the parts have different leading axes"]),
        ({**VALUE, "c": {"x": [1], "y": np.ones((3, 1))}}, ["c/y has shape [3, 1], expected [1, 2]"]),
        ({**VALUE, "c": 4}, ["c is of int, expected a mapping with y, x"]),
        ({**VALUE, "a": "three"}, ["a is of <U5, expected numbers"]),
        ({**VALUE, "a": None}, ["a is of object, expected numbers"]),
        ({**VALUE, "b": [[1], [1, 2]]}, ["b is no array"]),
        (np.ones(6), ["observation is of ndarray, expected a mapping with b, a, c"]),
    ],
)
def test_what_does_not_fit_is_named(observation, faults):
    with pytest.raises(ValueError, match="the observation does not fit the task") as caught:
        HAND.flatten(observation)
    assert all(fault in str(caught.value) for fault in faults)


def test_a_transposed_array_is_not_taken():
    with pytest.raises(ValueError, match=r"observation has shape \[3, 2\], expected \[2, 3\]"):
        ObservationLayout(Part((2, 3))).flatten(np.ones((3, 2)))


def test_names_are_unique():
    with pytest.raises(ValueError, match="two parts of the observation are named a/b"):
        ObservationLayout({"a/b": Part(), "a": {"b": Part()}})


def test_where_it_is():
    task = TaskConfig("dmc/cartpole_swingup")
    env = make_env(task, ObservationConfig("state"), 2)
    assert observation_layout(TransformedEnv(env, RewardSum())) is env.layout
    assert observation_layout(object()) is None
