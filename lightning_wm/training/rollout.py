"""The circle's other half: an epoch begins by collecting whole episodes with the current planner."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import lightning.pytorch as pl
from torchrl.envs import EnvBase

from lightning_wm import rng
from lightning_wm.config.schema import RolloutConfig
from lightning_wm.envs import may_never_end, repeated, spaces
from lightning_wm.errors import Interrupted, LightningWMError
from lightning_wm.playing.episode import Episode, measures
from lightning_wm.playing.play import in_eval_mode, play
from lightning_wm.playing.random import RandomActor
from lightning_wm.protocols import Actor, Planner
from lightning_wm.runs.checkpoint import Counters
from lightning_wm.training.ranks import raise_together, report, summed_over_ranks
from lightning_wm.training.state import RunState, acting_agent, replay_data


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

    @property
    def counters(self) -> Counters:
        """How far the run is."""
        return self.state.counters

    @property
    def last_return(self) -> float:
        """Mean return of the newest round of collected episodes; not-a-number before the first."""
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
        if self.counters.turns == 0 and self.counters.episodes < self.config.seed_episodes:
            self._seed_episodes(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.counters.turns >= self._pretrain_turns(trainer):
            if self._exploring != self._explores():
                self._cast(trainer, pl_module)
            with in_eval_mode(pl_module):
                self._turn(trainer)
            self.counters.owed -= self.config.env_steps
        self._measure(trainer)

    def on_train_batch_start(self, *args: object) -> None:
        self.state.phase = "learning"

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.counters.turns += 1
        self.state.tick()
        learned = time.monotonic() - self._learning
        sampled = replay_data(trainer).seconds - self._sampled
        report(trainer, {"time/update": learned - sampled, "time/sample": sampled})
        if self.counters.env_steps >= self.state.budget and self.counters.owed < self.config.env_steps:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """The counters of this rank."""
        return dict(self.counters)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from these counters."""
        self.counters.restore(state_dict)

    # ---- collecting

    def _explores(self) -> bool:
        """Whether it is still time to learn the model rather than to collect reward."""
        until = self.config.explore_until
        return self.counters.env_steps < (self.state.budget // 2 if until is None else until)

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
        stop = self.config.stop_noise_after
        quiet = stop is not None and self.counters.env_steps >= stop
        self.actor.noise = 0.0 if quiet else self.config.noise
        begin = time.monotonic()
        while self.counters.owed < self.config.env_steps:
            before = self.counters.env_steps
            self._round(trainer, self.actor)
            self.counters.owed += self.counters.env_steps - before
        report(trainer, {"time/collect": time.monotonic() - begin})

    def _round(self, trainer: pl.Trainer, actor: Actor) -> None:
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
        before, error = self.failures.total, None
        self.state.decisions = 0
        episodes: list[Episode] = []
        try:
            episodes = play(self.env, actor, seeds, True, self._decided, self.failures.count, first)
            for episode in episodes:
                replay_data(trainer).replay.extend(episode.transitions)
            self.failures.check()
        except LightningWMError as met:
            error = met
        except Interrupted:
            pass  # this rank's flag is set: the other ranks hear of it below
        raise_together(trainer, error)
        if signal := self.state.signals.agreed(trainer):
            raise Interrupted(signal)
        self.counters.rank_episodes += len(seeds)
        self.state.decisions = 0
        self._count(trainer, episodes, self.failures.total - before)
        self._log(trainer, episodes)

    def _decided(self) -> None:
        if self.state.phase == "collecting" and self.actor is not None:
            self.state.milliseconds = self.actor.milliseconds
        self.state.decided()

    def _count(self, trainer: pl.Trainer, episodes: list[Episode], restarts: int) -> None:
        empty = len(replay_data(trainer).replay) == 0
        here = [sum(e.env_steps for e in episodes), sum(e.length for e in episodes), len(episodes), restarts, empty]
        env_steps, agent_steps, count, restarts, self._empty = summed_over_ranks(trainer, here)
        self.counters.env_steps += env_steps
        self.counters.agent_steps += agent_steps
        self.counters.episodes += count
        self.counters.restarts += restarts
        self.state.tick()

    def _log(self, trainer: pl.Trainer, episodes: list[Episode]) -> None:
        measured = {
            "replay/transitions": float(len(replay_data(trainer).replay)),
            "rollout/restarts": float(self.counters.restarts),
        }
        measured |= measures(episodes)
        self.state.last_return = measured.get("rollout/return", self.state.last_return)
        report(trainer, measured)
