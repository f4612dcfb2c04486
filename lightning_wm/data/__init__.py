"""Experience: a replay on disk, windows drawn from it, the datamodule over both."""

from lightning_wm.data.datamodule import ReplayBatches, ReplayDataModule
from lightning_wm.data.replay import Replay
from lightning_wm.data.sampler import WindowSampler
from lightning_wm.data.storage import MappedStorage

__all__ = ["MappedStorage", "Replay", "ReplayBatches", "ReplayDataModule", "WindowSampler"]
