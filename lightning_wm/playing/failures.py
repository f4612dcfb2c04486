"""Episodes that cannot be finished: dropped and counted, until they are too many."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torchrl.envs import EnvBase

from lightning_wm.config.schema import RolloutConfig
from lightning_wm.envs import innermost
from lightning_wm.errors import LightningWMError, NumericsError
from lightning_wm.protocols import Actor, Restarts


class Failures:
    """Counts episodes that were dropped because their environment or their actor failed.

    Args:
        limit: how many within `window` are survived.
        window: seconds.
        clock: the time in seconds.
    """

    def __init__(
        self,
        limit: int = RolloutConfig.failures,
        window: float = RolloutConfig.failure_window,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit, self.window, self.clock = limit, window, clock
        self.total = 0
        """Since this object was made."""
        self._recent: deque[float] = deque(maxlen=limit + 1)
        self._last: LightningWMError | None = None

    @classmethod
    def within(cls, config: RolloutConfig) -> Failures:
        """None so far, with the limits of a run."""
        return cls(config.failures, config.failure_window)

    def count(self, error: LightningWMError) -> None:
        """One episode was dropped."""
        self.total += 1
        self._recent.append(self.clock())
        self._last = error
        print(f"an episode was dropped and its environment restarted: {error}", file=sys.stderr)

    def check(self, tries: int = 0) -> None:
        """Between two rounds of episodes.

        Args:
            tries: rounds in a row that dropped the same episodes, where these are played again; a failure that
                follows from their seeds never ends, however long a round takes.

        Raises:
            EnvironmentFailure, NumericsError: more than `limit` within `window` or in `tries`; the last one's class
                and message.
        """
        if self._last is None:
            return
        if len(self._recent) > self.limit and self._recent[-1] - self._recent[0] <= self.window:
            what = f"{self.limit + 1} episodes were dropped within {self.window:g} s, the last"
        elif tries > self.limit:
            what = f"the same episodes were dropped {tries} times in a row, the last time"
        else:
            return
        raise type(self._last)(
            f"{what} because {self._last}; "
            f"mend that, or type rollout.failures={10 * max(1, self.limit)} to survive more"
        ) from self._last


@contextmanager
def restarting(env: EnvBase, wanted: bool) -> Iterator[None]:
    """Inside the block an environment that can restart its rows does so instead of raising, where that is wanted."""
    own = innermost(env)  # a transform shows the attribute, and keeps what it is set to for itself
    if not isinstance(own, Restarts) or not wanted:
        yield
        return
    before, own.restart = own.restart, True
    try:
        yield
    finally:
        own.restart = before


def failed_rows(env: EnvBase) -> Mapping[int, LightningWMError]:
    """The rows that the last reset or step restarted, and why."""
    return env.failed if isinstance(env, Restarts) else {}


def not_finite(action: Tensor, playing: Sequence[bool]) -> dict[int, LightningWMError]:
    """The rows of `action` `[E, A]` that must not reach a simulator, among those that are still playing `[E]`."""
    rows = (~action.isfinite().all(-1)).nonzero().flatten().tolist()
    return {
        row: NumericsError(
            f"the actor's action in environment {row} is not finite: {action[row].tolist()}; "
            f"expected {action.shape[-1]} numbers in [-1, 1]"
        )
        for row in rows
        if playing[row]
    }


def reject(env: EnvBase, actor: Actor, action: Tensor, bad: Iterable[int]) -> Tensor:
    """End the episodes of `bad` rows without showing their actions to a simulator; what the others do stays.

    The actor forgets every row whose action is not finite, of finished episodes too, so that it cannot go on from it.
    """
    for row in bad:
        assert isinstance(env, Restarts)
        env.rebuild(row)
    actor.reset(~action.isfinite().all(-1))
    return torch.where(action.isfinite(), action, 0.0)
