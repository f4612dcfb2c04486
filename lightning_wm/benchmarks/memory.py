"""How much resident memory collecting pixels takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_wm import rng
from lightning_wm.benchmarks.timing import Setting, row
from lightning_wm.config.schema import ObservationConfig, TaskConfig
from lightning_wm.data import Replay
from lightning_wm.envs import make_env, spaces
from lightning_wm.playing.play import play
from lightning_wm.playing.random import RandomActor

TASK = TaskConfig(name="dmc/cheetah_run", action_repeat=2)


def rows(setting: Setting) -> list[dict[str, Any]]:
    """Row `memory/replay`: growth of resident memory while random actions fill replay with pixels, no updates.

    Mapped pages of replay that are resident count; the peer is the size of the pixels alone.

    Raises:
        UserError: this machine cannot draw.
    """
    env = make_env(TASK, ObservationConfig(kind="pixels"))
    seen = spaces(env)
    actor = RandomActor(seen.action, 1)
    decisions = setting.env_steps // TASK.action_repeat
    replay = Replay.create(None, seen, max(2 * decisions, 1000))
    before, steps, number = resident(), 0, 0
    while steps < setting.env_steps:
        actor.episode = number
        (episode,) = play(env, actor, [rng.key(0, "environment", number) % 2**31], keep=True)
        assert episode.transitions is not None
        replay.extend(episode.transitions)
        steps, number = steps + episode.env_steps, number + 1
    grown = (resident() - before) / 1e9
    env.close()
    pixels = replay.transitions * 3 * 64 * 64 / 1e9
    settings = {"task": TASK.name, "action_repeat": TASK.action_repeat, "env_steps": steps}
    return [row("memory/replay", grown, "size of the pixels", pixels, settings, unit="gb")]


def resident() -> int:
    """Bytes of this process that are in memory, mapped files included (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("no VmRSS in /proc/self/status")
