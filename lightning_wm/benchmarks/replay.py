"""Drawing a batch of windows from pixels on disk, beside TorchRL's SliceSampler on the same data."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDict
from torchrl.data import LazyMemmapStorage, SliceSampler, TensorDictReplayBuffer

from lightning_wm.data import Replay
from lightning_wm.protocols import Spaces
from lightning_wm.rng import generator

BATCH, LENGTH, EPISODES, STEPS = 50, 50, 20, 500
SPACES = Spaces(action=6, pixels=(3, 64, 64))


def rows(repeats: int = 30) -> list[dict[str, Any]]:
    """Median milliseconds of one batch, ours and theirs in turn; both map files into memory."""
    with tempfile.TemporaryDirectory() as folder:
        replay = Replay.create(None, SPACES, EPISODES * STEPS)
        peer = TensorDictReplayBuffer(
            storage=LazyMemmapStorage(EPISODES * STEPS, scratch_dir=folder),
            sampler=SliceSampler(slice_len=LENGTH, traj_key="episode", cache_values=True),
            batch_size=BATCH * LENGTH,
        )
        for number in range(EPISODES):
            episode = _episode(number)
            replay.extend(episode)
            peer.extend(episode.set("episode", torch.full((STEPS,), number)))
        ours, theirs = _interleaved(
            lambda number: replay.sample(BATCH, LENGTH, generator(0, "replay", number)),
            lambda number: peer.sample(),
            repeats,
        )
    settings = {"batch": BATCH, "length": LENGTH, "pixels": list(SPACES.pixels or ()), "stored": EPISODES * STEPS}
    return [
        {
            "what": "replay/sample",
            "ours_ms": ours,
            "peer": "torchrl SliceSampler",
            "peer_ms": theirs,
            "ratio": ours / theirs,
            "settings": settings | {"threads": torch.get_num_threads()},
        }
    ]


def _episode(number: int) -> TensorDict:
    drawn = generator(0, "replay", 10**6 + number)
    first = torch.zeros(STEPS, 1, dtype=torch.bool)
    first[0] = True
    data = {
        "pixels": torch.randint(256, (STEPS, *(SPACES.pixels or ())), dtype=torch.uint8, generator=drawn),
        "action": torch.rand(STEPS, SPACES.action, generator=drawn) * ~first,
        "reward": torch.rand(STEPS, 1, generator=drawn) * ~first,
        "terminated": torch.zeros(STEPS, 1, dtype=torch.bool),
        "is_init": first,
    }
    return TensorDict(data, [STEPS])


def _interleaved(
    ours: Callable[[int], Any], theirs: Callable[[int], Any], repeats: int, warm: int = 3
) -> tuple[float, float]:
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(warm + repeats):
        for call, times in zip((ours, theirs), taken, strict=True):
            begin = time.perf_counter()
            call(number)
            times.append(1e3 * (time.perf_counter() - begin))
    return statistics.median(taken[0][warm:]), statistics.median(taken[1][warm:])
