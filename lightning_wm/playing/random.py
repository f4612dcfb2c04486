"""Uniformly random actions: what plays the seed episodes."""

from __future__ import annotations

import torch
from tensordict import TensorDict, TensorDictBase
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
        self.noise, self.milliseconds = 0.0, 0.0
        self.plan: TensorDict | None = None
        self._generators: list[torch.Generator] = []

    def reset(self, mask: Tensor | None = None) -> None:
        """Begin new episodes; those of a part of the environments draw on from their own streams."""
        if mask is None:
            self.episode += len(self._generators)
            self._generators = []
            return
        for row in mask.reshape(-1).nonzero().flatten().tolist() if self._generators else ():
            self._left[row] = 0

    def act(self, observation: object = None) -> Tensor:
        """`[E, A]` in [-1, 1], whatever is observed."""
        if not self._generators:
            self._begin()
        for row, generator in enumerate(self._generators):
            if self._left[row] == 0:
                self._left[row] = int(torch.randint(1, self.hold + 1, (), generator=generator))
                self._held[row] = rng.uniform((self.action,), [generator])[0]
            self._left[row] -= 1
        return self._held.clone()

    def _begin(self) -> None:
        numbers = range(self.episode, self.episode + self.environments)
        self._generators = [rng.generator(self.seed, "exploration", self.rank, number) for number in numbers]
        self._left = [0] * self.environments
        self._held = torch.zeros(self.environments, self.action)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write `action`."""
        if "is_init" in tensordict:
            self.reset(tensordict["is_init"])
        tensordict["action"] = self.act().reshape(*tensordict.batch_size, self.action)
        return tensordict
