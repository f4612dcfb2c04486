"""How long one environment alone waits for a decision."""

from __future__ import annotations

import time
from collections.abc import Callable

from torchrl.envs import EnvBase

from lightning_wm.protocols import Actor
from lightning_wm.runs.evaluation_file import Milliseconds, milliseconds

WARM, TIMED = 3, 20
"""Plans before those that count, and those that do."""


def latency(env: EnvBase, actor: Actor, seed: int = 0, clock: Callable[[], float] = time.perf_counter) -> Milliseconds:
    """Time from an observation to its action, of one environment alone, as a robot would see it.

    The beginning of an episode is shown again and again, which costs what the episode would. With `replan` only the
    decisions that plan count: the others take next to nothing, and none of them helps a loop that must be on time.

    Args:
        env: of batch `[E]`; only reset.
        actor: what acts, a fresh one.
        seed: of the episode.
        clock: seconds; wall time by default.
    """
    shown = env.reset(seeds=[seed] * env.batch_size[0])[:1]
    actor.reset()
    taken: list[float] = []
    last, plans = None, 0
    while plans < WARM + TIMED:
        begin = clock()
        actor.act(shown)
        seconds = clock() - begin
        if actor.plan is None or actor.plan is not last:
            last, plans = actor.plan, plans + 1
            taken.append(1e3 * seconds)
    return milliseconds(taken[WARM:])
