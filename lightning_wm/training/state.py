"""What the parts of a run tell each other: how far it is, what it does, whether it is to end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import lightning.pytorch as pl

from lightning_wm.config.schema import RolloutConfig
from lightning_wm.data.datamodule import ReplayDataModule
from lightning_wm.errors import UserError
from lightning_wm.playing.failures import Failures
from lightning_wm.protocols import Agent
from lightning_wm.runs.checkpoint import Counters
from lightning_wm.training.signals import Signals


@dataclass
class RunState:
    """The state of a run that collecting, judging, saving and showing share."""

    budget: int
    """Env steps of the whole run, seed episodes included, over all ranks."""
    signals: Signals = field(default_factory=Signals)
    counters: Counters = field(default_factory=Counters)
    phase: str = "starting"
    """`starting`, `seed episodes`, `collecting`, `learning`, `waiting` (for a worker) or `evaluating`."""
    last_return: float = math.nan
    """Mean return of the newest collected episodes: a round's, or all that a worker played for a turn."""
    milliseconds: float = math.nan
    """Wall time of the newest decision while collecting; afterwards the median of the newest episodes'."""
    is_best: bool = False
    """Whether the weights of now are the best so far, by evaluation."""
    decisions: int = 0
    """Of the round of episodes that is being played."""
    decision_steps: int = 0
    """Env steps that one of these decisions takes at most, over all environments and ranks."""
    evaluation_decisions: int | None = None
    """Decisions that the newest evaluation takes at most."""
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    """How episodes are collected, and how many may fail, evaluation's included."""
    listeners: list[Callable[[], None]] = field(default_factory=list)
    """Called at every look."""
    _clock: float | None = None

    @property
    def steps_now(self) -> int:
        """Env steps, with those of the episodes that are being played."""
        playing = self.decisions if self.phase in ("seed episodes", "collecting") else 0
        return min(self.budget, self.counters.env_steps + playing * self.decision_steps)

    @property
    def learned_steps(self) -> int:
        """Env steps that updates were made for."""
        return self.counters.env_steps - self.counters.owed

    def decided(self) -> None:
        """A decision was made somewhere.

        Raises:
            Interrupted: a signal came.
        """
        self.decisions += 1
        self.look()

    def look(self) -> None:
        """Now and then in what takes long.

        Raises:
            Interrupted: a signal came.
        """
        self.signals.poll()
        for listener in self.listeners:
            listener()

    def failures(self) -> Failures:
        """A count of failed episodes with the run's limits."""
        return Failures.within(self.rollout)

    def start_clock(self) -> None:
        """Measure wall time from here on, on top of what earlier processes took."""
        self._clock = time.monotonic() - self.counters.seconds

    @property
    def seconds(self) -> float:
        """Wall time of training until now, earlier processes included."""
        return self.counters.seconds if self._clock is None else time.monotonic() - self._clock

    def tick(self) -> None:
        """Bring the counted wall time up to date."""
        self.counters.seconds = self.seconds


def replay_data(trainer: pl.Trainer) -> ReplayDataModule:
    """The datamodule that was given to `Trainer.fit`.

    Raises:
        UserError: it is none of replay's.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, ReplayDataModule):
        raise UserError(
            f"collecting needs a replay to write to, but the Trainer has {type(data).__name__}; "
            "type trainer.fit(agent, ReplayDataModule(...))"
        )
    return data


def acting_agent(module: pl.LightningModule) -> Agent:
    """The LightningModule as something that gives actors.

    Raises:
        UserError: it has no `actor`.
    """
    if not isinstance(module, Agent):
        raise UserError(
            f"{type(module).__name__} cannot act: expected a protocols.Agent; give it an actor(planner, seed, rank, "
            "noise), or derive it from lightning_wm.agents.base.BaseAgent"
        )
    return module
