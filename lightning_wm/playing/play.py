"""Playing whole episodes: the one loop that collecting, evaluating and filming share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torchrl.envs import EnvBase

from lightning_wm.errors import LightningWMError
from lightning_wm.playing.episode import Episode, Recorder
from lightning_wm.playing.failures import Failures, failed_rows, not_finite, reject, restarting
from lightning_wm.protocols import Actor, Restarts

OnFailure = Callable[[LightningWMError], None]


def play(
    env: EnvBase,
    actor: Actor,
    seeds: Sequence[int],
    keep: bool = False,
    on_decision: Callable[[], None] | None = None,
    on_failure: OnFailure | None = None,
    first: int | None = None,
) -> list[Episode]:
    """Play one episode per environment, side by side, until the last one ends.

    Args:
        env: of batch `[E]`.
        actor: what acts.
        seeds: E seeds; the same seed gives the same episode.
        keep: keep the transitions, in replay's form.
        on_decision: called after every decision.
        on_failure: called for every episode whose environment or actor fails; that episode is dropped and its
            environment restarted, the others go on. None lets the error through.
        first: number of the first environment's episode, for the actor's random streams; None lets it count on.

    Returns:
        The episodes that were played to their end, E of them where nothing failed.

    Raises:
        EnvironmentFailure: a simulator raised or returned what is not finite, and `on_failure` is None.
        NumericsError: an action is not finite, and `on_failure` is None; no simulator has seen it.
    """
    recorders = [Recorder(row, seed, keep) for row, seed in enumerate(seeds)]
    with restarting(env, on_failure is not None):
        _play(env, actor, recorders, on_decision, on_failure, first)
    return [recorder.finish() for recorder in recorders if not recorder.dropped]


def _play(
    env: EnvBase,
    actor: Actor,
    recorders: Sequence[Recorder],
    on_decision: Callable[[], None] | None,
    on_failure: OnFailure | None,
    first: int | None,
) -> None:
    td = env.reset(seeds=[recorder.episode.seed for recorder in recorders])
    actor.reset()
    if first is not None:
        actor.episode = first
    for recorder in recorders:
        recorder.first(td, env.action_spec.shape[-1])
    _drop(recorders, failed_rows(env), on_failure)
    last: TensorDictBase | None = None
    while not all(recorder.done for recorder in recorders):
        td["action"] = _act(env, actor, td, recorders, on_failure)
        plan = actor.plan
        if plan is not None and plan is not last:  # with `replan` a plan serves several decisions
            last, stats = plan, plan["stats"].cpu()
            going = [recorder for recorder in recorders if not recorder.done]
            for recorder in going:
                recorder.planned(stats, actor.milliseconds, actor.milliseconds * len(recorders) / len(going))
        after = env.step(td)["next"]
        _drop(recorders, failed_rows(env), on_failure)
        for recorder in recorders:
            recorder.step(td["action"], after)
        td = after.exclude("reward")
        if on_decision is not None:
            on_decision()


def _act(
    env: EnvBase, actor: Actor, td: TensorDictBase, recorders: Sequence[Recorder], on_failure: OnFailure | None
) -> Tensor:
    """The next actions `[E, A]`, finite for every simulator that is still playing."""
    action: Tensor = actor.act(td).to("cpu", torch.float32)
    if bool(action.isfinite().all()):
        return action
    bad = not_finite(action, [not recorder.done for recorder in recorders])
    if bad and (on_failure is None or not isinstance(env, Restarts)):
        raise next(iter(bad.values()))
    _drop(recorders, bad, on_failure)
    return reject(env, actor, action, bad)


def _drop(recorders: Sequence[Recorder], failed: Mapping[int, LightningWMError], on_failure: OnFailure | None) -> None:
    for row, error in failed.items():
        recorders[row].drop()
        if on_failure is not None:
            on_failure(error)


def side_by_side(environments: int, episodes: int) -> int:
    """The fewest environments that play so many episodes in as many rounds as `environments` would; at least 1."""
    rounds = max(1, -(-episodes // environments))
    return max(1, -(-episodes // rounds))


def play_many(
    env: EnvBase,
    actor: Actor,
    seeds: Sequence[int],
    on_decision: Callable[[], None] | None = None,
    failures: Failures | None = None,
    on_episodes: Callable[[int], None] | None = None,
) -> list[Episode]:
    """Play any number of episodes, E at a time; episode i has `seeds[i]` and draws as number i of the actor.

    Args:
        env: of batch `[E]`.
        actor: what acts.
        seeds: one for each episode.
        on_decision: called after every decision.
        failures: what counts episodes that fail; those are played again, with the same seed and draws, in a new
            environment. None lets the first error through.
        on_episodes: told how many episodes have been played, whenever those at once have ended.

    Raises:
        EnvironmentFailure, NumericsError: an episode failed, or more of them than `failures` survives.
    """
    at_once, episodes = env.batch_size[0], []
    on_failure = None if failures is None else failures.count
    for first in range(0, len(seeds), at_once):
        part = list(seeds[first : first + at_once])
        filled = part + part[-1:] * (at_once - len(part))
        played: dict[int, Episode] = {}
        tries = 0
        while not all(row in played for row in range(len(part))):
            before = len(played)
            for episode in play(env, actor, filled, on_decision=on_decision, on_failure=on_failure, first=first):
                played.setdefault(episode.row, episode)
            tries = 0 if len(played) > before else tries + 1
            if failures is not None:
                failures.check(tries)
        episodes += [played[row] for row in range(len(part))]
        if on_episodes is not None:
            on_episodes(len(episodes))
    return episodes


@contextmanager
def in_eval_mode(module: nn.Module) -> Iterator[None]:
    """Act with a module that is being trained as it will act when it is not: dropout and statistics hold still."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
