"""The circle's other half: an epoch begins by collecting whole episodes with the current planner."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import lightning.pytorch as pl
from torch import Tensor
from torchrl.envs import EnvBase

from lightning_wm import rng
from lightning_wm.config.schema import RolloutConfig
from lightning_wm.envs import may_never_end, repeated, spaces
from lightning_wm.errors import UserError
from lightning_wm.playing.play import in_eval_mode, play
from lightning_wm.playing.random import RandomActor
from lightning_wm.protocols import Actor, Planner
from lightning_wm.runs.checkpoint import Counters
from lightning_wm.training.commit import commit
from lightning_wm.training.messages import Order, Played
from lightning_wm.training.ranks import report
from lightning_wm.training.state import RunState, acting_agent, replay_data
from lightning_wm.training.worker import Worker, weights_of


class Rollout(pl.Callback):
    """Plays the seed episodes before the first update, then whole episodes at the start of turns.

    A turn is one epoch. It begins by collecting until `config.env_steps` are owed updates, which the epoch then makes.
    A round of episodes that brings more (several environments, several ranks, long episodes) is paid by further turns
    that collect nothing, so that there are as many updates per env step whatever is played at once. After the turn
    that reaches `env_steps` and pays the last debt, the Trainer is told to stop. A signal drops the turn's episodes; a
    run that goes on plays them again.

    Args:
        env: a batch of `[E]` environments; with several ranks, this rank's own.
        planner: what acts; None for agents that act by themselves.
        config: how much, and with how much noise.
        env_steps: the run's budget, seed episodes included, over all ranks.
        seed: of the streams environment, exploration and planner.
        pretrain_updates: updates after the seed episodes, in whole turns without collecting.
        state: of the run, to share with other callbacks; None for one of its own.
        worker: with `config.workers`, plays the next turn's episodes while a turn's updates are made.

    Raises:
        UserError: `config.workers` asks for one and there is none.
    """

    def __init__(
        self,
        env: EnvBase,
        planner: Planner | None = None,
        config: RolloutConfig | None = None,
        env_steps: int = 100_000,
        seed: int = 0,
        pretrain_updates: int = 0,
        state: RunState | None = None,
        worker: Worker | None = None,
    ) -> None:
        self.env, self.planner = env, planner
        self.config = config or RolloutConfig()
        self.seed, self.pretrain_updates = seed, pretrain_updates
        self.state = state or RunState(env_steps)
        self.state.rollout = self.config
        self.failures = self.state.failures()
        self.actor: Actor | None = None
        self._exploring = False
        self._empty = 0
        """Ranks whose every episode was dropped so far."""
        if self.config.workers and worker is None:
            raise UserError(
                "rollout.workers=1 needs a worker; type Rollout(..., worker=Worker('module:function')), where the "
                "function gives a training.worker.Player"
            )
        self._worker = worker if self.config.workers else None
        self._ahead = False
        """Whether the worker plays now."""
        self._acting: dict[str, Tensor] | None = None
        """The weights with which it does, or would if the run were not to end with this turn."""

    @property
    def counters(self) -> Counters:
        """How far the run is."""
        return self.state.counters

    @property
    def last_return(self) -> float:
        """Mean return of the newest collected episodes, see `RunState.last_return`; not-a-number before the first."""
        return self.state.last_return

    # ---- Lightning's hooks

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.state.start_clock()
        if trainer.is_global_zero and may_never_end(self.env):
            print(
                "nothing is known to end this task's episodes, and only whole episodes are learned from; if env steps "
                "stand still, type e.g. task.max_decisions=1000 (around an environment of your own, StepCounter(1000))",
                file=sys.stderr,
            )
        self.state.decision_steps = self.env.batch_size[0] * repeated(self.env) * trainer.world_size
        self._measure(trainer)  # a turn that goes on after its start has no on_train_epoch_start
        self._cast(trainer, pl_module)
        if self._worker is not None:
            self._worker.start()
            if self._acting is not None:  # the run was left in the middle of a turn, or has got more env steps
                self._play_ahead(trainer, self._acting)
        if self.counters.turns == 0 and self.counters.episodes < self.config.seed_episodes:
            self._seed_episodes(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._ahead:
            self._gather(trainer)
        if self.counters.turns >= self._pretrain_turns(trainer):
            if self._exploring != self._explores():
                self._cast(trainer, pl_module)
            with in_eval_mode(pl_module):
                self._turn(trainer)
            self.counters.owed -= self.config.env_steps
            if self._worker is not None:
                self._play_ahead(trainer, weights_of(pl_module))
        self._measure(trainer)

    def on_train_batch_start(self, *args: object) -> None:
        self.state.phase = "learning"

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        learned = time.monotonic() - self._learning
        sampled = replay_data(trainer).seconds - self._sampled
        if self._ahead:
            self._gather(trainer)
        report(trainer, {"time/update": learned - sampled, "time/sample": sampled})
        self.counters.turns += 1
        self.state.tick()
        if self.counters.owed < self.config.env_steps and not self._more():
            trainer.should_stop = True

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._dismiss()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._dismiss()

    def state_dict(self) -> dict[str, Any]:
        """The counters of this rank, and the weights with which a worker plays or would."""
        return dict(self.counters) | ({} if self._acting is None else {"acting": self._acting})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from these counters and weights."""
        self.counters.restore(state_dict)
        self._acting = None if self._worker is None else state_dict.get("acting")

    # ---- collecting

    def _explores(self) -> bool:
        """Whether it is still time to learn the model rather than to collect reward."""
        until = self.config.explore_until
        return self.counters.env_steps < (self.state.budget // 2 if until is None else until)

    def _noise(self) -> float:
        stop = self.config.stop_noise_after
        return 0.0 if stop is not None and self.counters.env_steps >= stop else self.config.noise

    def _cast(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Choose what acts."""
        self._exploring = self._explores()
        self.actor = acting_agent(pl_module).actor(
            self.planner,
            seed=self.seed,
            rank=trainer.global_rank,
            noise=self.config.noise,
            explore=self._exploring,
        )

    def _measure(self, trainer: pl.Trainer) -> None:
        """Begin to measure a turn's learning."""
        self._learning, self._sampled = time.monotonic(), replay_data(trainer).seconds

    def _pretrain_turns(self, trainer: pl.Trainer) -> int:
        return math.ceil(self.pretrain_updates / max(1, int(trainer.num_training_batches)))

    def _seed_episodes(self, trainer: pl.Trainer) -> None:
        """Play at random; what a last round plays beyond the seed episodes is owed updates as if it were a turn's."""
        self.state.phase = "seed episodes"
        rows = self.env.batch_size[0]
        actor = RandomActor(spaces(self.env).action, rows, self.config.hold, self.seed, trainer.global_rank)
        while self.counters.episodes < self.config.seed_episodes or self._empty:
            before = self.counters.env_steps, self.counters.episodes
            self._round(trainer, actor)
            steps, played = self.counters.env_steps - before[0], self.counters.episodes - before[1]
            beyond = min(played, max(0, self.counters.episodes - self.config.seed_episodes))
            self.counters.owed += steps * beyond // max(1, played)

    def _turn(self, trainer: pl.Trainer) -> None:
        self.state.phase = "collecting"
        assert self.actor is not None
        self.actor.noise = self._noise()
        if self.counters.owed >= self.config.env_steps:
            return
        begin = time.monotonic()
        while self.counters.owed < self.config.env_steps:
            before = self.counters.env_steps
            self._round(trainer, self.actor)
            self.counters.owed += self.counters.env_steps - before
        report(trainer, {"time/collect": time.monotonic() - begin})

    def _round(self, trainer: pl.Trainer, actor: Actor) -> None:
        """One episode per environment, committed to replay when all have ended."""
        first, rows = self.counters.rank_episodes, self.env.batch_size[0]
        seeds = rng.episode_seeds(self.seed, trainer.global_rank, first, rows)
        self.state.decisions = 0

        def played() -> Played:
            return Played(play(self.env, actor, seeds, True, self._decided, self.failures.count, first), rows)

        self._empty = commit(trainer, self.state, self.failures, played)

    # ---- a worker

    def _more(self) -> bool:
        """Whether there are env steps left to be played."""
        return self.counters.env_steps < self.state.budget

    def _play_ahead(self, trainer: pl.Trainer, weights: dict[str, Tensor]) -> None:
        """Let the worker play what the next turn lacks, in equal parts on all ranks, if there is to be one."""
        assert self._worker is not None
        lacking = self.config.env_steps - self.counters.owed
        self._acting = weights if lacking > 0 else None
        self._ahead = lacking > 0 and self._more()
        if self._ahead:
            self._worker.begin(
                Order(
                    weights=weights,
                    env_steps=math.ceil(lacking / trainer.world_size),
                    first=self.counters.rank_episodes,
                    rank=trainer.global_rank,
                    noise=self._noise(),
                    explore=self._explores(),
                )
            )

    def _gather(self, trainer: pl.Trainer) -> None:
        """Take what the worker has played, before the turn's checkpoint; the next turn plays what is still lacking."""
        assert self._worker is not None
        worker, begin, before = self._worker, time.monotonic(), self.counters.env_steps
        self.state.phase = "waiting"
        self._empty = commit(trainer, self.state, self.failures, lambda: worker.finish(self.state.look))
        self._ahead, self._acting = False, None
        self.counters.owed += self.counters.env_steps - before
        report(trainer, {"time/collect": time.monotonic() - begin})

    def _dismiss(self) -> None:
        self._ahead, self._acting = False, None
        if self._worker is not None:
            self._worker.close()

    def _decided(self) -> None:
        if self.state.phase == "collecting" and self.actor is not None:
            self.state.milliseconds = self.actor.milliseconds
        self.state.decided()
