"""Windows of consecutive transitions, drawn uniformly, for TorchRL's replay buffers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchrl.data.replay_buffers.samplers import Sampler

from lightning_wm.data.storage import MappedStorage
from lightning_wm.errors import UserError


class WindowSampler(Sampler):  # type: ignore[misc]
    """Draws windows of `length` transitions in the order of writing.

    Every start that leaves room for a whole window is equally likely. A window
    may run into the next episode, where `is_init` marks the seam, and never
    across the write cursor, where the newest transition meets the oldest.
    TorchRL's `batch_size` counts windows: `buffer.sample(B)` is `[B, T]`.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        """T: transitions in a window."""

    def sample(self, storage: MappedStorage, batch_size: int) -> tuple[Tensor, dict[str, Any]]:
        """Slots `[B, T]` of the windows; drawn from the buffer's generator.

        Raises:
            UserError: fewer transitions are stored than a window has.
        """
        first, stored = storage.span()
        if stored < self.length:
            raise UserError(
                f"a window of {self.length} agent steps needs as many stored transitions, there are {stored}; "
                f"type replay.length={max(stored, 1)} or collect more first (rollout.seed_episodes=…)"
            )
        starts = torch.randint(stored - self.length + 1, (batch_size, 1), generator=self._rng)
        return (first + starts + torch.arange(self.length)) % storage.max_size, {}

    def _sampleable_count(self, storage: MappedStorage, batch_size: int) -> int:
        return max(0, storage.span()[1] - self.length + 1)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: draws depend on the generator alone."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to load."""

    def dumps(self, path: object) -> None:
        """Nothing to write."""

    def loads(self, path: object) -> None:
        """Nothing to read."""

    def _empty(self) -> None:
        pass
