"""Windows drawn from replay: uniform, contiguous, never across the write cursor, keyed."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import chisquare
from torchrl.data import RandomSampler, TensorDictReplayBuffer

from lightning_wm.data import Replay
from lightning_wm.errors import UserError
from lightning_wm.protocols import Spaces
from tests.test_replay import BOTH, STATE, episode, fill


def keyed(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def starts(replay: Replay, length: int, draws: int = 40_000) -> torch.Tensor:
    """The counts that `draws` windows begin with."""
    replay.buffer.sampler.length = length
    replay.buffer.set_rng(keyed(1))
    index, _ = replay.buffer.sampler.sample(replay.storage, draws)
    return replay.storage.tensors["observation"][index[:, 0], 0].long()


@pytest.mark.parametrize(
    ("capacity", "slack", "lengths", "first", "last"),
    [
        (500, 100, [2, 150, 3, 7, 40, 2, 60], 0, 264),  # early ends of very different lengths, ring not full
        (100, 50, [90, 2, 3, 40, 5, 60], 100, 200),  # full, and around its end more than once
        (100, 0, [90, 2, 3, 40, 5, 33], 73, 173),  # no slack at all
    ],
    ids=["filling", "wrapped", "no slack"],
)
def test_starts_are_uniform(capacity: int, slack: int, lengths: list[int], first: int, last: int) -> None:
    replay = Replay.create(None, STATE, capacity, slack)
    fill(replay, lengths)
    drawn = starts(replay, 20)
    choices = last - first - 20 + 1
    assert (int(drawn.min()), int(drawn.max())) == (first, last - 20)
    observed = torch.bincount(drawn - first, minlength=choices).numpy()
    assert len(observed) == choices
    assert chisquare(observed).pvalue > 1e-3  # keyed: the same number every time


def test_windows_are_consecutive_and_never_cross_the_cursor() -> None:
    replay = Replay.create(None, STATE, 100, slack=30)
    for rows in [40, 35, 31, 7, 50, 22, 64, 3, 48]:
        fill(replay, [rows])
        drawn = replay.sample(200, min(25, len(replay)), keyed(rows))["observation"][..., 0]
        assert torch.equal(drawn.diff(dim=1), torch.ones(200, drawn.shape[1] - 1))
        assert drawn.min() >= replay.transitions - len(replay)
        assert drawn.max() < replay.transitions


def test_seams_are_marked() -> None:
    replay = Replay.create(None, STATE, 100)
    for rows, ended in ((10, True), (20, False), (5, True)):
        replay.extend(episode(rows, replay.transitions, terminated=ended))
    batch = replay.sample(300, 12, keyed(0))
    count = batch["observation"][..., :1]
    assert torch.equal(batch["is_init"], (count == 0) | (count == 10) | (count == 30))
    assert torch.equal(batch["terminated"], (count == 9) | (count == 34))
    assert batch["is_init"][:, 1:].any()
    assert not batch["is_init"][:, 0].all()  # the first step is as it is stored
    assert not batch["action"][batch["is_init"][..., 0]].any()


def test_the_only_window_there_is() -> None:
    replay = Replay.create(None, STATE, 40)
    fill(replay, [20])
    assert replay.sample(3, 20, keyed(0))["observation"][..., 0].tolist() == [list(range(20))] * 3
    with pytest.raises(UserError, match=r"window of 21 agent steps .* there are 20; type replay\.length=20"):
        replay.sample(3, 21, keyed(0))


@pytest.mark.parametrize("lengths", [[30, 30], [30, 30, 30, 30, 17]], ids=["filling", "wrapped"])
def test_sampling_is_gathering(lengths: list[int]) -> None:
    replay = Replay.create(None, BOTH, 70, slack=33)
    fill(replay, lengths)
    replay.buffer.sampler.length = 9
    replay.buffer.set_rng(keyed(5))
    through = replay.buffer.sample(64)  # TorchRL's own way in
    index = through["index"]
    assert index.shape == (64, 9)
    if len(lengths) > 2:
        assert (index.diff(dim=1) < 0).any()  # some windows run around the ring's end
    direct = replay.sample(64, 9, keyed(5))
    assert direct.batch_size == (64, 9)
    for name, tensor in replay.storage.tensors.items():
        assert torch.equal(direct[name], tensor[index]), name
        assert torch.equal(through[name], tensor[index]), name


def test_draws_depend_on_the_generator_alone() -> None:
    replay = Replay.create(None, STATE, 100)
    fill(replay, [80])
    first = replay.sample(8, 10, keyed(1))
    torch.manual_seed(0)
    replay.sample(3, 4, keyed(2))
    assert (replay.sample(8, 10, keyed(1)) == first).all()
    assert (replay.sample(8, 10, keyed(3)) != first)["observation"].any()


def test_a_batch_is_a_copy() -> None:
    replay = Replay.create(None, STATE, 100)
    fill(replay, [80])
    before = replay.digest()
    first = replay.sample(8, 10, keyed(1))
    kept = first.clone()
    replay.sample(8, 10, keyed(2)).zero_()
    assert (first == kept).all()
    assert replay.digest() == before


def test_other_samplers_of_torchrl_work_on_the_storage() -> None:
    replay = Replay.create(None, STATE, 50)
    fill(replay, [20])
    batch = TensorDictReplayBuffer(storage=replay.storage, sampler=RandomSampler(), batch_size=400).sample()
    assert batch["observation"][:, 0].unique().tolist() == list(range(20))
    assert replay.buffer[3]["observation"].tolist() == [3.0] * 3
    assert replay.buffer[[4, -1]]["observation"][:, 0].tolist() == [4.0, 19.0]
    assert replay.buffer[torch.tensor([4, -1])]["observation"][:, 0].tolist() == [4.0, 19.0]
    with pytest.raises(IndexError):
        replay.buffer[torch.tensor([20])]


def test_pixels_stay_bytes() -> None:
    replay = Replay.create(None, Spaces(action=1, pixels=(3, 4, 5)), 50)
    fill(replay, [20])
    assert replay.sample(2, 5, keyed(0))["pixels"].dtype == torch.uint8
    assert "observation" not in replay.sample(2, 5, keyed(0)).keys()  # noqa: SIM118
