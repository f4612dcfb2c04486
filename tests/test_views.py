"""n-step transitions from replay, worked out by hand."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import chisquare
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor
from torchrl.objectives.value import TD0Estimator

from lightning_wm.data import Replay, Transitions, Windows
from lightning_wm.errors import ConfigError, UserError
from tests.test_replay import BOTH, STATE, episode, fill


def keyed(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def two_episodes(slack: int = 3) -> Replay:
    """Rows 5 to 8 cut off, 9 to 12 terminated, in a ring of 8 and 3 slots whose end lies between rows 10 and 11.

    Observation and reward of row i are i, its action is sin(i); rows 0 to 4 have been overwritten.
    """
    replay = Replay.create(None, STATE, capacity=8, slack=slack)
    replay.extend(episode(5, 0))
    replay.extend(episode(4, 5))
    replay.extend(episode(4, 9, terminated=True))
    return replay


def by_start(replay: Replay, view: Transitions) -> dict[int, TensorDict]:
    """One sample of every start that is ever drawn."""
    batch = view.sample(replay, keyed())
    return {int(row["observation"][0]): row for row in batch}


EXPECTED = {
    # start: (the row it leads to, return with a discount of 0.5, terminated, done) for n = 1 and n = 3
    5: [(6, 6.0, False, False), (8, 6 + 7 / 2 + 8 / 4, False, True)],
    6: [(7, 7.0, False, False), (8, 7 + 8 / 2, False, True)],
    7: [(8, 8.0, False, True), (8, 8.0, False, True)],
    9: [(10, 10.0, False, False), (12, 10 + 11 / 2 + 12 / 4, True, True)],
    10: [(11, 11.0, False, False), (12, 11 + 12 / 2, True, True)],
    11: [(12, 12.0, True, True), (12, 12.0, True, True)],
}
"""8 and 12 are the last of their episodes: nothing follows them."""


@pytest.mark.parametrize(("steps", "column"), [(1, 0), (3, 1), (50, 1)])
def test_two_short_episodes_by_hand(steps: int, column: int) -> None:
    replay = two_episodes()
    drawn = by_start(replay, Transitions(400, steps, discount=0.5))
    assert sorted(drawn) == sorted(EXPECTED)
    for start, row in drawn.items():
        reached, reward, terminated, done = EXPECTED[start][column]
        count = reached - start
        assert row["observation"].tolist() == [start] * 3
        assert torch.equal(row["action"], torch.tensor(float(start + 1)).sin().expand(2))
        assert row["next", "observation"].tolist() == [reached] * 3
        assert row["next", "reward"].tolist() == [reward]
        assert row["next", "terminated"].tolist() == [terminated]
        assert row["next", "done"].tolist() == [done]
        assert row["steps_to_next_obs"].tolist() == [count]
        assert row["discount"].tolist() == [0.5**count]


def test_torchrls_estimator_bootstraps_what_was_cut_off_and_not_what_terminated() -> None:
    batch = Transitions(200, steps=3, discount=0.5).sample(two_episodes(), keyed())
    value = TensorDictModule(lambda seen: seen[..., :1] * 100, in_keys=["observation"], out_keys=["state_value"])
    target = TD0Estimator(gamma=0.5, value_network=value).value_estimate(batch)
    later = 100 * batch["next", "observation"][:, :1] * ~batch["next", "terminated"]
    assert torch.equal(target, batch["next", "reward"] + batch["discount"] * later)
    known = {int(start): float(value) for start, value in zip(batch["observation"][:, 0], target[:, 0], strict=True)}
    assert known[6] == 7 + 8 / 2 + 800 / 4  # cut off
    assert known[10] == 11 + 12 / 2  # terminated


def test_every_decision_is_as_likely_as_any_other() -> None:
    replay = Replay.create(None, STATE, 100, 50)
    fill(replay, [90, 2, 3, 40, 5, 60])  # rows 100 to 199, the first in the middle of an episode
    drawn = Transitions(40_000).sample(replay, keyed())["observation"][:, 0].long()
    ends = {134, 139}
    starts = [row for row in range(100, 199) if row not in ends]
    observed = torch.bincount(drawn - 100, minlength=99)
    assert set((observed.nonzero()[:, 0] + 100).tolist()) == set(starts)
    assert chisquare(observed[[row - 100 for row in starts]].numpy()).pvalue > 1e-3


def test_a_transition_of_pixels_and_vectors() -> None:
    replay = Replay.create(None, BOTH, 30)
    fill(replay, [10])
    batch = Transitions(16, steps=2).sample(replay, keyed())
    assert batch.batch_size == batch["next"].batch_size == (16,)
    start, end = batch["observation"][:, 0], batch["next", "observation"][:, 0]
    assert batch["pixels"].shape == (16, 3, 4, 5)
    assert batch["next", "pixels"].dtype == torch.uint8
    assert torch.equal(batch["pixels"][:, 0, 0, 0].float(), start)
    assert torch.equal(batch["next", "pixels"][:, 2, 3, 4].float(), end)
    keys = {key if isinstance(key, str) else "/".join(key) for key in batch.keys(True, True)}
    seen = {"observation", "pixels", "next/observation", "next/pixels"}
    assert keys == seen | {"action", "next/reward", "next/terminated", "next/done", "discount", "steps_to_next_obs"}


def test_draws_depend_on_the_generator_alone() -> None:
    replay, view = two_episodes(), Transitions(32, 3)
    assert (view.sample(replay, keyed(1)) == view.sample(replay, keyed(1))).all()
    assert (view.sample(replay, keyed(1)) != view.sample(replay, keyed(2)))["observation"].any()


def test_too_little_and_impossible() -> None:
    with pytest.raises(UserError, match="there are 0 observations"):
        Transitions(4).sample(Replay.create(None, STATE, 10), keyed())
    with pytest.raises(ConfigError) as caught:
        Transitions(0, 0, 1.5)
    assert len(caught.value.faults) == 3


def test_windows_are_what_replay_draws() -> None:
    replay = Replay.create(None, STATE, 100)
    fill(replay, [40, 20])
    assert (Windows(8, 10).sample(replay, keyed(3)) == replay.sample(8, 10, keyed(3))).all()


def test_stacked_frames_by_hand() -> None:
    """Rows 5 to 8 and 9 to 12 are episodes, rows 0 to 4 are gone: no frame of another episode, nor of what is gone."""
    replay = Replay.create(None, BOTH, capacity=8, slack=3)
    for rows, first in ((5, 0), (4, 5), (4, 9)):
        replay.extend(episode(rows, first, BOTH))
    batch = Transitions(400, steps=2, frames=3).sample(replay, keyed())
    assert batch["pixels"].shape == batch["next", "pixels"].shape == (400, 9, 4, 5)
    stacks = {int(row["observation"][0]): row for row in batch}
    expected = {
        # start: its three frames, and those of the observation that two steps, or fewer, lead to
        5: ([5, 5, 5], [5, 6, 7]),
        6: ([5, 5, 6], [6, 7, 8]),
        7: ([5, 6, 7], [6, 7, 8]),
        9: ([9, 9, 9], [9, 10, 11]),
        10: ([9, 9, 10], [10, 11, 12]),
        11: ([9, 10, 11], [10, 11, 12]),
    }
    assert {start: _frames(row["pixels"]) for start, row in stacks.items()} == {k: v[0] for k, v in expected.items()}
    later = {start: _frames(row["next", "pixels"]) for start, row in stacks.items()}
    assert later == {start: frames for start, (_, frames) in expected.items()}


def _frames(stacked: Tensor) -> list[int]:
    """The rows whose pictures, each of one brightness, are the frames of an observation `[9, 4, 5]`."""
    frames = stacked.unflatten(0, (3, 3)).flatten(1)
    assert bool((frames == frames[:, :1]).all())
    return frames[:, 0].tolist()


def test_frames_of_an_episode_whose_beginning_is_overwritten() -> None:
    replay = Replay.create(None, BOTH, capacity=6, slack=3)
    replay.extend(episode(4, 0, BOTH))
    replay.extend(episode(5, 4, BOTH))  # rows 3 to 8 are left
    batch = Transitions(200, frames=3).sample(replay, keyed())
    stacks = {int(row["observation"][0]): _frames(row["pixels"]) for row in batch}
    assert stacks == {4: [4, 4, 4], 5: [4, 4, 5], 6: [4, 5, 6], 7: [5, 6, 7]}
    replay.extend(episode(3, 9, BOTH))  # rows 6 to 11 are left: the first of their episode is gone
    batch = Transitions(200, frames=3).sample(replay, keyed())
    stacks = {int(row["observation"][0]): _frames(row["pixels"]) for row in batch}
    assert stacks == {6: [6, 6, 6], 7: [6, 6, 7], 9: [9, 9, 9], 10: [9, 9, 10]}
