"""What a batch is: windows of consecutive transitions, or n-step transitions for agents without a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from tensordict import TensorDict
from torch import Tensor

from lightning_wm.data.replay import Replay
from lightning_wm.data.schema import OBSERVATIONS
from lightning_wm.data.storage import MappedStorage
from lightning_wm.errors import ConfigError, UserError


class View(Protocol):
    """How batches are drawn from replay."""

    def sample(self, replay: Replay, generator: torch.Generator) -> TensorDict:
        """A batch; equal generators draw equal batches from equal content.

        Raises:
            UserError: replay holds too little.
        """


@dataclass(frozen=True)
class Windows:
    """`[B, T]`: consecutive transitions, uniform over their starts; see `Replay.sample`."""

    batch: int
    """B."""
    length: int
    """T."""

    def sample(self, replay: Replay, generator: torch.Generator) -> TensorDict:
        """See `View`."""
        return replay.sample(self.batch, self.length, generator)


@dataclass(frozen=True)
class Transitions:
    """`[B]`: from an observation to the one up to n decisions later, uniform over the decisions in replay.

    With r_1 .. r_m the rewards on the way, m = n or fewer where the episode ends before:

    - `observation` and/or `pixels`, and `action`, the first of the m;
    - `next`: the last `observation` and/or `pixels`, `reward` = r_1 + discount r_2 + .. + discount^(m-1) r_m,
      `terminated` (nothing comes after it: no bootstrap) and `done` (terminated or cut off: the latter bootstraps);
    - `discount` = discount^m, the factor of the next value, and `steps_to_next_obs` = m, by which TorchRL's value
      estimators find it themselves.

    With k frames, `pixels` are `[B, 3k, X, Y]`: the k newest pictures of the episode, the oldest first. Where it has
    not yet had as many, or replay no longer holds them, the first one stands in for those before it.

    Every entry but the observations and the action is `[B, 1]` (Sutton 1988; n-step returns as in Rainbow, Hessel
    et al. 2018, section "Multi-step learning").
    """

    batch: int
    """B."""
    steps: int = 1
    """n: decisions, at most."""
    discount: float = 0.99
    """Factor per decision, in [0, 1]."""
    frames: int = 1
    """k: pictures in one observation."""

    def __post_init__(self) -> None:
        counts = {"batch": self.batch, "steps": self.steps, "frames": self.frames}
        faults = [f"{name}={value}: expected at least 1" for name, value in counts.items() if value < 1]
        if not 0.0 <= self.discount <= 1.0:
            faults.append(f"discount={self.discount}: expected a number in [0, 1]")
        if faults:
            raise ConfigError(faults)

    def sample(self, replay: Replay, generator: torch.Generator) -> TensorDict:
        """See `View`."""
        storage = replay.storage
        first, stored = storage.span()
        if stored < 2:
            raise UserError(
                f"a transition needs an observation and the one after it, there are {stored} observations; "
                "collect more first (rollout.seed_episodes=…)"
            )
        last = first + stored - 1
        starts = self._starts(storage, first, last, generator)  # B
        rows = starts[:, None] + torch.arange(1, self.steps + 1)  # B, n
        rows.clamp_(max=last)
        begins = storage.pick("is_init", rows)[..., 0]
        on_the_way = (rows > starts[:, None]) & ~begins  # B, n
        on_the_way[:, 1:] &= rows[:, 1:] > rows[:, :-1]  # the newest row again, where there is no other
        counted = on_the_way.cumprod(1)
        taken = counted.sum(1)  # B: m
        factors = self.discount ** torch.arange(self.steps + 1, dtype=torch.float64)
        rewards = storage.pick("reward", rows)[..., 0].double()
        ends = starts + taken
        terminated = storage.pick("terminated", ends)
        cut = (ends == last)[:, None] | storage.pick("is_init", (ends + 1).clamp(max=last))
        return TensorDict(
            {
                **self._seen(storage, first, starts),
                "action": storage.pick("action", starts + 1),
                "next": TensorDict(
                    {
                        **self._seen(storage, first, ends),
                        "reward": (rewards * factors[:-1] * counted).sum(1, keepdim=True).float(),
                        "terminated": terminated,
                        "done": terminated | cut,
                    },
                    [self.batch],
                ),
                "discount": factors[taken, None].float(),
                "steps_to_next_obs": taken[:, None],
            },
            [self.batch],
        )

    def _starts(self, storage: MappedStorage, first: int, last: int, generator: torch.Generator) -> Tensor:
        """Rows `[B]` that another row of the same episode follows, each as likely: others are drawn again."""
        starts = torch.empty(self.batch, dtype=torch.int64)
        ended = torch.ones(self.batch, dtype=torch.bool)
        while count := int(ended.sum()):
            starts[ended] = torch.randint(first, last, (count,), generator=generator)
            ended = storage.pick("is_init", starts + 1)[:, 0]
        return starts

    def _seen(self, storage: MappedStorage, first: int, rows: Tensor) -> dict[str, Tensor]:
        """What is seen at rows `[B]`."""
        seen = {name: storage.pick(name, rows) for name in OBSERVATIONS if name in storage.tensors and name != "pixels"}
        if "pixels" in storage.tensors:
            stacked = storage.pick("pixels", self._stacked(storage, first, rows))  # B, k, 3, X, Y
            seen["pixels"] = stacked.flatten(1, 2)
        return seen

    def _stacked(self, storage: MappedStorage, first: int, rows: Tensor) -> Tensor:
        """The rows `[B, k]` of the frames that are seen at rows `[B]`, the oldest first."""
        before = (rows[:, None] - torch.arange(self.frames - 1)).clamp(min=first)  # B, k-1: the newest first
        inside = (before > first) & ~storage.pick("is_init", before)[..., 0]  # whether the frame before it counts
        lags = torch.nn.functional.pad(inside.cumprod(1).cumsum(1), (1, 0))  # B, k
        return (rows[:, None] - lags).flip(1)
