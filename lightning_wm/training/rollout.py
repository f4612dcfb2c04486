"""Collecting experience: at the start of every turn, whole episodes with the current planner."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import lightning.pytorch as pl
import torch
from torchrl.envs import EnvBase

from lightning_wm import rng
from lightning_wm.config.schema import RolloutConfig
from lightning_wm.envs import spaces
from lightning_wm.errors import Interrupted, LightningWMError
from lightning_wm.playing.failures import Failures
from lightning_wm.playing.play import Episode, play
from lightning_wm.playing.random import RandomActor
from lightning_wm.protocols import Actor, Planner
from lightning_wm.training.ranks import agree
from lightning_wm.training.report import Reporter
from lightning_wm.training.signals import Signals


@dataclass
class Counters:
    """How far a run is; part of every checkpoint."""

    env_steps: int = 0
    """Over all ranks."""
    agent_steps: int = 0
    """Over all ranks."""
    episodes: int = 0
    """Over all ranks."""
    rank_episodes: int = 0
    """Of this rank: the number of the next one; those that were dropped had numbers too."""
    restarts: int = 0
    """Episodes that were dropped because their environment or actor failed, over all ranks."""
    turns: int = 0
    seconds: float = 0.0
    """Wall time of training, earlier processes included."""


class Rollout(pl.Callback):
    """Plays the seed episodes before the first update, then whole episodes at the start of every turn.

    A turn is one epoch: collect `config.env_steps` more, then learn. After
    the turn that reaches `env_steps` the Trainer is told to stop. A signal
    drops the turn's episodes; a run that goes on plays them again.

    Args:
        env: a batch of `[E]` environments; with several ranks, this rank's own.
        planner: what acts; None for agents that act by themselves.
        config: how much, and with how much noise.
        env_steps: the run's budget, seed episodes included, over all ranks.
        seed: of the streams environment, exploration and planner.
        pretrain_updates: updates after the seed episodes, in whole turns without collecting.
        signals: looked at after every decision.
    """

    def __init__(
        self,
        env: EnvBase,
        planner: Planner | None = None,
        config: RolloutConfig | None = None,
        env_steps: int = 100_000,
        seed: int = 0,
        pretrain_updates: int = 0,
        signals: Signals | None = None,
    ) -> None:
        self.env, self.planner = env, planner
        self.config = config or RolloutConfig()
        self.budget, self.seed, self.pretrain_updates = env_steps, seed, pretrain_updates
        self.signals = signals or Signals()
        self.counters = Counters()
        self.actor: Actor | None = None
        self.phase = "starting"
        self.last_return = math.nan
        self.milliseconds = math.nan
        """Of the newest decision."""
        self.listeners: list[Callable[[], None]] = []
        """Called after every decision."""
        self.failures = Failures(self.config.failures, self.config.failure_window)
        self._empty = 0
        """Ranks whose every episode was dropped so far."""
        self._clock: float | None = None
        self._report = Reporter(self.counters)

    # ---- Lightning's hooks

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._clock = time.monotonic() - self.counters.seconds
        self._measure(trainer)  # a turn that goes on after its start has no on_train_epoch_start
        agent: Any = pl_module
        self.actor = agent.actor(self.planner, seed=self.seed, rank=trainer.global_rank, noise=self.config.noise)
        if self.counters.turns == 0 and self.counters.episodes < self.config.seed_episodes:
            self._seed_episodes(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.counters.turns >= self._pretrain_turns(trainer):
            self._turn(trainer)
        self._measure(trainer)

    def on_train_batch_start(self, *args: Any) -> None:
        self.phase = "learning"

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.counters.turns += 1
        self.tick()
        learned = time.monotonic() - self._learning
        sampled = trainer.datamodule.seconds - self._sampled  # type: ignore[attr-defined]
        self._report(trainer, {"time/update": learned - sampled, "time/sample": sampled})
        if self.counters.env_steps >= self.budget:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """The counters of this rank."""
        return asdict(self.counters)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from these counters."""
        for one in fields(self.counters):
            if one.name in state_dict:
                setattr(self.counters, one.name, state_dict[one.name])

    # ---- collecting

    def tick(self) -> None:
        """Bring the wall time up to date."""
        if self._clock is not None:
            self.counters.seconds = time.monotonic() - self._clock

    def _measure(self, trainer: pl.Trainer) -> None:
        """Begin to measure a turn's learning."""
        self._learning, self._sampled = time.monotonic(), trainer.datamodule.seconds  # type: ignore[attr-defined]

    def _pretrain_turns(self, trainer: pl.Trainer) -> int:
        return math.ceil(self.pretrain_updates / max(1, int(trainer.num_training_batches)))

    def _seed_episodes(self, trainer: pl.Trainer) -> None:
        self.phase = "seed episodes"
        actor = RandomActor(
            spaces(self.env).action, self.env.batch_size[0], self.config.hold, self.seed, trainer.global_rank
        )
        while self.counters.episodes < self.config.seed_episodes or self._empty:
            self._round(trainer, actor)

    def _turn(self, trainer: pl.Trainer) -> None:
        self.phase = "collecting"
        actor: Any = self.actor
        stop = self.config.stop_noise_after
        actor.noise = 0.0 if stop is not None and self.counters.env_steps >= stop else self.config.noise
        begin, target = time.monotonic(), self.counters.env_steps + self.config.env_steps
        while self.counters.env_steps < target:
            self._round(trainer, actor)
        self._report(trainer, {"time/collect": time.monotonic() - begin})

    def _round(self, trainer: pl.Trainer, actor: Any) -> None:
        """One episode per environment, committed to replay when all have ended.

        Those that fail are dropped. What is played in their stead has other numbers, so that a failure which
        depends on the random numbers does not come again.

        Raises:
            EnvironmentFailure, NumericsError: too many have failed, on any rank.
            DiskError: there is no room for them, on any rank.
            Interrupted: a signal came, on any rank.
        """
        first, rank = self.counters.rank_episodes, trainer.global_rank
        seeds = [rng.key(self.seed, "environment", rank, first + row) % 2**31 for row in range(self.env.batch_size[0])]
        actor.episode = first
        before, error = self.failures.total, None
        episodes: list[Episode] = []
        try:
            episodes = play(self.env, actor, seeds, True, self._decided, self.failures.count)
            for episode in episodes:
                trainer.datamodule.replay.extend(episode.transitions)  # type: ignore[attr-defined]
            self.failures.check()
        except LightningWMError as met:
            error = met
        except Interrupted:
            pass  # this rank's flag is set: the other ranks hear of it below
        agree(trainer, error)
        if signal := self.signals.agreed(trainer):
            raise Interrupted(signal)
        self.counters.rank_episodes += len(seeds)
        self._count(trainer, episodes, self.failures.total - before)
        self._log(trainer, episodes)

    def _decided(self) -> None:
        if self.phase == "collecting":
            self.milliseconds = getattr(self.actor, "milliseconds", math.nan)
        self.signals.poll()
        for listener in self.listeners:
            listener()

    def _count(self, trainer: pl.Trainer, episodes: list[Episode], restarts: int) -> None:
        empty = len(trainer.datamodule.replay) == 0  # type: ignore[attr-defined]
        here = [sum(e.env_steps for e in episodes), sum(e.length for e in episodes), len(episodes), restarts, empty]
        total = torch.tensor(here, dtype=torch.float64, device=trainer.strategy.root_device)
        if trainer.world_size > 1:
            total = trainer.strategy.reduce(total, reduce_op="sum")
        env_steps, agent_steps, count, restarts, self._empty = (int(value) for value in total.tolist())
        self.counters.env_steps += env_steps
        self.counters.agent_steps += agent_steps
        self.counters.episodes += count
        self.counters.restarts += restarts
        self.tick()

    def _log(self, trainer: pl.Trainer, episodes: list[Episode]) -> None:
        measured = {
            "replay/transitions": float(len(trainer.datamodule.replay)),  # type: ignore[attr-defined]
            "rollout/restarts": float(self.counters.restarts),
        }
        if episodes:
            self.last_return = sum(e.total for e in episodes) / len(episodes)
            measured["rollout/return"] = self.last_return
            measured["rollout/length"] = sum(e.length for e in episodes) / len(episodes)
        times = [value for e in episodes for value in e.milliseconds]
        if times:
            scores = torch.tensor([pair for e in episodes for pair in e.scores])
            measured["plan/ms"] = float(torch.tensor(times).median())
            measured["time/plan"] = sum(times) / 1e3
            measured["plan/score_first"], measured["plan/score_best"] = scores.mean(0).tolist()
            measured["plan/fallbacks"] = float(sum(e.fallbacks for e in episodes))
        self._report(trainer, measured)
