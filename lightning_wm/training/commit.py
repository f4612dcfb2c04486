"""Episodes that have been played become counts and replay, on all ranks or on none."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import lightning.pytorch as pl

from lightning_wm.errors import Interrupted, LightningWMError
from lightning_wm.playing.episode import Episode, measures
from lightning_wm.playing.failures import Failures
from lightning_wm.training.messages import Played
from lightning_wm.training.ranks import from_ranks, raise_together, report, summed_over_ranks
from lightning_wm.training.state import RunState, replay_data


def commit(trainer: pl.Trainer, state: RunState, failures: Failures, play: Callable[[], Played]) -> int:
    """Let episodes be played, keep them in replay, count and log them; every rank must call it at the same place.

    Episodes that fail are dropped: `play` counts those of this process, `Played.errors` are counted here. What is
    played in their stead has other numbers, so that a failure which depends on the random numbers does not come again.

    Args:
        trainer: whose replay they go to.
        state: of the run; its counters move on.
        failures: counts those that were dropped.
        play: gives this rank's episodes.

    Returns:
        How many ranks have no episode in replay yet.

    Raises:
        EnvironmentFailure, NumericsError: too many have failed, on any rank.
        DiskError: there is no room for them, on any rank.
        Interrupted: a signal came, on any rank.
    """
    before, error, played = failures.total, None, Played()
    try:
        played = play()
        for episode in played.episodes:
            replay_data(trainer).replay.extend(episode.transitions)
        for failure in played.errors:
            failures.count(failure)
        failures.check()
    except LightningWMError as met:
        error = met
    except Interrupted:
        pass  # this rank's flag is set: the other ranks hear of it below
    raise_together(trainer, error)
    if signal := state.signals.agreed(trainer):
        raise Interrupted(signal)
    state.counters.rank_episodes += max(from_ranks(trainer, played.numbers))
    state.decisions = 0
    empty = _count(trainer, state, played.episodes, failures.total - before)
    _log(trainer, state, played.episodes)
    return empty


def _count(trainer: pl.Trainer, state: RunState, episodes: Sequence[Episode], restarts: int) -> int:
    empty = len(replay_data(trainer).replay) == 0
    here = [sum(e.env_steps for e in episodes), sum(e.length for e in episodes), len(episodes), restarts, empty]
    env_steps, agent_steps, count, restarts, ranks = summed_over_ranks(trainer, here)
    state.counters.env_steps += env_steps
    state.counters.agent_steps += agent_steps
    state.counters.episodes += count
    state.counters.restarts += restarts
    state.tick()
    return ranks


def _log(trainer: pl.Trainer, state: RunState, episodes: Sequence[Episode]) -> None:
    measured = {
        "replay/transitions": float(len(replay_data(trainer).replay)),
        "rollout/restarts": float(state.counters.restarts),
    }
    measured |= measures(episodes)
    state.last_return = measured.get("rollout/return", state.last_return)
    state.milliseconds = measured.get("plan/ms", state.milliseconds)
    report(trainer, measured)
