"""Uniformly random actions: what plays the seed episodes."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from lightning_wm import rng


class RandomActor(TensorDictModuleBase):  # type: ignore[misc]
    """Uniform actions, each held for 1 to `hold` decisions.

    Holding them is what finds reward in sparse tasks: independent draws at
    every decision cancel each other out.

    Args:
        action: A, the number of action dimensions.
        environments: E.
        hold: most decisions that an action is held for.
        seed: of the stream exploration.
        rank: first counter of that stream.
    """

    def __init__(self, action: int, environments: int, hold: int = 1, seed: int = 0, rank: int = 0) -> None:
        super().__init__()
        self.in_keys, self.out_keys = ["is_init"], ["action"]
        self.action, self.environments, self.hold = action, environments, hold
        self.seed, self.rank, self.episode = seed, rank, 0
        self.reset()

    def reset(self, mask: Tensor | None = None) -> None:
        """Begin new episodes; each environment draws on from its own stream."""
        if mask is None or not hasattr(self, "_generators"):
            self._generators = [
                rng.generator(self.seed, "exploration", self.rank, self.episode + row)
                for row in range(self.environments)
            ]
            self._left = [0] * self.environments
            self._held = torch.zeros(self.environments, self.action)
            return
        for row in mask.reshape(-1).nonzero().flatten().tolist():
            self._left[row] = 0

    def act(self, observation: Any = None) -> Tensor:
        """`[E, A]` in [-1, 1], whatever is observed."""
        for row, generator in enumerate(self._generators):
            if self._left[row] == 0:
                self._left[row] = int(torch.randint(1, self.hold + 1, (), generator=generator))
                self._held[row] = torch.rand(self.action, generator=generator) * 2 - 1
            self._left[row] -= 1
        return self._held.clone()

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write `action`."""
        if "is_init" in tensordict:
            self.reset(tensordict["is_init"])
        tensordict["action"] = self.act().reshape(*tensordict.batch_size, self.action)
        return tensordict
