"""Experience: a replay on disk, windows drawn from it, the datamodule over both."""

from lightning_wm.data.datamodule import ReplayBatches, ReplayDataModule
from lightning_wm.data.replay import Replay
from lightning_wm.data.sampler import WindowSampler
from lightning_wm.data.schema import episode
from lightning_wm.data.storage import MappedStorage
from lightning_wm.data.views import Transitions, View, Windows

__all__ = [
    "MappedStorage",
    "Replay",
    "ReplayBatches",
    "ReplayDataModule",
    "Transitions",
    "View",
    "WindowSampler",
    "Windows",
    "episode",
]
