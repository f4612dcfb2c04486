"""What task.name can be: `lightning_wm tasks [walker]`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import closing

from lightning_wm.console.command import command
from lightning_wm.errors import LightningWMError, UserError, hint

USAGE = """\
lightning_wm tasks [WORD ...]

Every task of dm_control's suite and, where Gymnasium is installed, of its registry, whose names have all the words:
how many numbers an action and an observation have, and after how many env steps an episode ends.
"""


@command(lambda _: USAGE)
def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    words = [word.lower() for word in arguments]
    everything = names()
    found = [name for name in everything if all(word in name.lower() for word in words)]
    if not found:
        typed = " ".join(words)
        near = hint(typed, [name.partition("/")[2] for name in everything])
        raise UserError(f"no task has {typed!r} in its name{near or ';'} type lightning_wm tasks for all")
    shown = 0
    for name in found:
        sizes = described(name)
        if sizes is None:
            continue
        if not shown:
            print(f"{'task.name':36} {'actions':>7} {'observation':>11} {'env steps':>9}")
        shown += 1
        action, observation, limit = sizes
        print(f"{name:36} {action:7} {observation:11} {'-' if limit is None else limit:>9}", flush=True)
    if not shown:
        raise UserError(f"none of {', '.join(found)} has continuous actions; type lightning_wm tasks for all")
    return 0


def names() -> list[str]:
    """Names of all tasks, those of Gymnasium in their newest version; some of these have no continuous actions."""
    from lightning_wm.envs import task_names

    return [*task_names(), *_gymnasium()]


def _gymnasium() -> Iterator[str]:
    try:
        from gymnasium.envs.registration import find_highest_version, registry
    except ModuleNotFoundError:
        return
    for spec in sorted(registry.values(), key=lambda spec: spec.id):
        if ":" not in spec.id and spec.version == find_highest_version(spec.namespace, spec.name):
            yield f"gym/{spec.id}"


def described(name: str) -> tuple[int, int, int | None] | None:
    """Sizes of a task's action and observation and env steps of an episode; None for what cannot be learned here."""
    from lightning_wm.config.schema import ObservationConfig, TaskConfig
    from lightning_wm.envs.simulator import build, limit_of

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with closing(build(TaskConfig(name), ObservationConfig())) as simulator:
                return int(simulator.low.size), simulator.size, limit_of(simulator)
    except LightningWMError:  # its actions are no numbers, or a package of its own is missing
        return None
