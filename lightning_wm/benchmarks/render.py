"""One agent step with pixels, beside TorchRL's wrapper at MuJoCo's default quality."""

from __future__ import annotations

from typing import Any

from tensordict import TensorDictBase
from torchrl.envs import DMControlWrapper, EnvBase

from lightning_wm.benchmarks.timing import Call, Setting, interleaved, row
from lightning_wm.config.schema import ObservationConfig, TaskConfig
from lightning_wm.envs import make_env
from lightning_wm.envs.dmc import _quiet, suite

DOMAIN, TASK, REPEAT, SIZE = "cheetah", "run", 4, 64


def rows(setting: Setting) -> list[dict[str, Any]]:
    """Row `render/step`; both sides repeat each action and return 64x64 pixels.

    TorchRL's `frame_skip` draws every env step, ours the last of the four: that is part of the difference.

    Raises:
        UserError: this machine cannot draw.
    """
    task = TaskConfig(name=f"dmc/{DOMAIN}_{TASK}", action_repeat=REPEAT)
    ours = make_env(task, ObservationConfig(kind="pixels"))
    with _quiet():
        simulator = suite().load(DOMAIN, TASK)
    theirs = DMControlWrapper(
        simulator,
        from_pixels=True,
        pixels_only=True,
        render_kwargs={"height": SIZE, "width": SIZE, "camera_id": 0},
        frame_skip=REPEAT,
    )
    repeats = setting.count(40)
    times = interleaved(_stepping(ours), _stepping(theirs), repeats=repeats)
    ours.close()
    theirs.close()
    about = {"task": task.name, "action_repeat": REPEAT, "size": SIZE, "quality": "fast, peer standard"}
    return [row("render/step", times[0], "torchrl DMControlWrapper, MuJoCo's default quality", times[1], about)]


def _stepping(env: EnvBase) -> Call:
    """Steps of one episode after another; the reset between two is counted with the step after it."""
    env.set_seed(0)
    now: list[TensorDictBase] = [env.reset()]

    def step(number: int) -> None:
        if bool(now[0]["done"].any()):
            now[0] = env.reset()
        now[0] = env.step(env.rand_action(now[0]))["next"]

    return step
