"""Drawing a batch of windows from pixels on disk, beside TorchRL's SliceSampler on the same data."""

from __future__ import annotations

import logging
import tempfile
from typing import Any

import torch
from torchrl.data import LazyMemmapStorage, SliceSampler, TensorDictReplayBuffer

from lightning_wm import rng
from lightning_wm.benchmarks.timing import Setting, interleaved, row
from lightning_wm.benchmarks.update import PIXELS as SPACES
from lightning_wm.benchmarks.update import episode
from lightning_wm.data import Replay

BATCH, LENGTH, EPISODES, STEPS = 50, 50, 20, 500


def rows(setting: Setting) -> list[dict[str, Any]]:
    """Row `replay/sample`: one batch, ours and theirs; both map files into memory."""
    logging.getLogger("torchrl").setLevel(logging.WARNING)
    batch, length, episodes = (3, 5, 2) if setting.smoke else (BATCH, LENGTH, EPISODES)
    with tempfile.TemporaryDirectory() as folder:
        replay = Replay.create(None, SPACES, episodes * STEPS)
        peer = TensorDictReplayBuffer(
            storage=LazyMemmapStorage(episodes * STEPS, scratch_dir=folder),
            sampler=SliceSampler(slice_len=length, traj_key="episode", cache_values=True),
            batch_size=batch * length,
        )
        for number in range(episodes):
            rows = episode(SPACES, STEPS, number)
            replay.extend(rows)
            peer.extend(rows.set("episode", torch.full((STEPS,), number)))
        with rng.scope(0, "replay"):
            ours, theirs = interleaved(
                lambda number: replay.sample(batch, length, rng.generator(0, "replay", number)),
                lambda number: peer.sample(),
                repeats=setting.count(30),
            )
    settings = {"batch": batch, "length": length, "pixels": list(SPACES.pixels or ()), "stored": episodes * STEPS}
    return [row("replay/sample", ours, "torchrl SliceSampler", theirs, settings)]
