"""Judging a run, while it trains and afterwards: own environments, own seeds, no exploration noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import lightning.pytorch as pl
import numpy as np
from rich.console import Console
from torchrl.envs import EnvBase

from lightning_wm.config import Config
from lightning_wm.config.schema import EvaluationConfig
from lightning_wm.console.meter import Meter
from lightning_wm.envs import most_decisions
from lightning_wm.errors import Interrupted, LightningWMError
from lightning_wm.playing.episode import Episode
from lightning_wm.playing.failures import Failures
from lightning_wm.playing.latency import latency
from lightning_wm.playing.play import in_eval_mode, play_many
from lightning_wm.playing.results import Evaluation, summarise
from lightning_wm.protocols import Actor, Planner, PlannerSettings
from lightning_wm.training.ranks import raise_together, report
from lightning_wm.training.state import RunState, acting_agent


class Evaluate(pl.Callback):
    """Plays `config.episodes` episodes every `config.every` env steps, on rank 0.

    Sets the state's `is_best` when the mean return is the highest so far, for
    the checkpoint that is taken after it. An evaluation that a signal stops is
    owed: a run that goes on begins with it.

    Args:
        make: builds the environments when they are first needed.
        state: of the run (`Rollout(...).state`).
        planner: what acts; None for agents that act by themselves.
        config: how often and how many.
    """

    def __init__(
        self,
        make: Callable[[], EnvBase],
        state: RunState,
        planner: Planner | None = None,
        config: EvaluationConfig | None = None,
    ) -> None:
        self.make, self.state, self.planner = make, state, planner
        self.config = config or EvaluationConfig()
        self.best = -np.inf
        self.last = -np.inf
        """Mean return of the newest evaluation."""
        self.owed = False
        """Whether the newest evaluation is still to be done."""
        self._done = 0
        self._env: EnvBase | None = None

    @property
    def env(self) -> EnvBase:
        """The evaluation's own environments."""
        if self._env is None:
            self._env = self.make()
        return self._env

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.state.is_best = False
        every, reached = self.config.every, self.state.counters.env_steps
        if every == 0 or self.config.episodes == 0 or reached // every == self._done:
            return
        self._done = reached // every
        self._judge(trainer, pl_module)
        if self.owed and trainer.should_stop:  # no turn comes after this one: play it again
            raise Interrupted(self.state.signals.agreed(trainer))
        if not self.owed:
            pl_module.log("evaluation/return", self.last, logger=False, rank_zero_only=True, batch_size=1)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.owed:
            self._judge(trainer, pl_module)

    def _judge(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        score, error = None, None
        try:
            score = self._score(trainer, pl_module) if trainer.is_global_zero else None
        except LightningWMError as met:
            error = met
        raise_together(trainer, error)
        score = trainer.strategy.broadcast(score)
        self.owed = score is None
        self.state.is_best = score is not None and score > self.best
        if score is not None:
            self.last, self.best = score, max(self.best, score)

    def _score(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> float | None:
        """Mean return; None where a signal stopped it."""
        try:
            return float(np.mean([episode.total for episode in self._play(trainer, pl_module)]))
        except Interrupted:
            return None

    def _play(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> list[Episode]:
        self.state.phase, self.state.decisions = "evaluating", 0
        self.state.evaluation_decisions = most_decisions(self.env, self.config.episodes)
        actor = acting_agent(pl_module).actor(self.planner, seed=self.config.seed)
        seeds = range(self.config.seed, self.config.seed + self.config.episodes)
        with in_eval_mode(pl_module):
            episodes = play_many(self.env, actor, seeds, self.state.decided, self.state.failures())
        report(trainer, {"evaluation/return": float(np.mean([episode.total for episode in episodes]))})
        return episodes

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._env is not None:
            self._env.close()
            self._env = None

    def state_dict(self) -> dict[str, Any]:
        """The best mean return, how many evaluations are done, and whether the last of them is owed."""
        return {"best": float(self.best), "done": self._done, "owed": self.owed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.best, self._done = state_dict["best"], state_dict["done"]
        self.owed = state_dict.get("owed", False)


def evaluate_planner(
    config: Config,
    actor: Actor,
    planner: PlannerSettings,
    env: EnvBase,
    *,
    episodes: int,
    seed: int,
    env_steps: int,
    checkpoint: str = "last",
    meter: Meter | None = None,
    label: str = "",
    timed: bool = True,
) -> Evaluation:
    """Play `episodes` episodes with seeds `seed, seed+1, …`, sum them up, and time a decision alone.

    Args:
        actor: what plays, its draws from `seed`.
        planner: settings of the planner that it acts with.
        env_steps, checkpoint: which weights it has.
        meter: shows how far they are, under the planner's name or `label`.
        timed: time a decision alone.

    Raises:
        EnvironmentFailure, NumericsError: more episodes failed than the run survives.
    """
    failures = Failures.within(config.rollout)
    meter = meter or Meter(Console(quiet=True))
    meter.begin(label or planner.name, episodes, most_decisions(env, episodes))
    played = play_many(env, actor, range(seed, seed + episodes), meter.decided, failures, meter.played)
    return summarise(
        played,
        task=config.task.name,
        agent=config.agent.name,
        observation=config.observation.kind,
        planner=planner.name,
        settings=asdict(planner),
        env_steps=env_steps,
        checkpoint=checkpoint,
        run_seed=config.seed,
        seed=seed,
        environments=env.batch_size[0],
        latency_ms=latency(env, actor, seed) if timed else None,
        perturb=config.task.perturb.changed(),
    )
