"""Tasks become TorchRL environments here: `make_env(task, observation, environments)`.

Importing this package imports neither torch nor a simulator. It looks at
`MUJOCO_GL` first, because TorchRL and dm_control import MuJoCo and fail where
that variable names a library that the machine does not have.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lightning_wm.envs import gl
from lightning_wm.envs.gl import rendering_problem

if TYPE_CHECKING:
    from torchrl.envs import EnvBase

    from lightning_wm.config.schema import ObservationConfig, TaskConfig
    from lightning_wm.envs.batched import SimulatorEnv
    from lightning_wm.envs.layout import ObservationLayout
    from lightning_wm.protocols import Spaces

__all__ = [
    "can_pose",
    "episode_limit",
    "innermost",
    "make_env",
    "may_never_end",
    "most_decisions",
    "observation_layout",
    "rendering_problem",
    "repeated",
    "spaces",
    "task_names",
]

gl.guard()


def make_env(task: TaskConfig, observation: ObservationConfig, environments: int = 1) -> SimulatorEnv:
    """E simulators of a task as one TorchRL environment of batch `[E]`.

    Args:
        task: `dmc/<task>`, `gym/<id>` or another registered prefix, with its action repeat.
        observation: `state`, `pixels` or `both`, and how pixels are drawn.
        environments: E.

    Raises:
        UserError: unknown task, no usable action bounds, pixels on a machine that cannot draw them.
    """
    from lightning_wm.envs.batched import SimulatorEnv

    return SimulatorEnv(task, observation, environments)


def spaces(env: EnvBase) -> Spaces:
    """What a TorchRL environment with our keys shows and takes."""
    from lightning_wm.protocols import Spaces

    shown = env.observation_spec
    vector = shown["observation"].shape[-1] if "observation" in shown.keys() else None  # noqa: SIM118
    image = tuple(shown["pixels"].shape[-3:]) if "pixels" in shown.keys() else None  # noqa: SIM118
    return Spaces(action=env.action_spec.shape[-1], observation=vector, pixels=image)


def observation_layout(env: EnvBase) -> ObservationLayout | None:
    """How the task's own observation becomes the state vector; None without a vector, or for other environments."""
    from lightning_wm.envs.simulator import NamesParts

    own = innermost(env)
    return own.layout if isinstance(own, NamesParts) else None


def episode_limit(env: EnvBase) -> int | None:
    """Env steps after which every episode is truncated; None where nothing but the task itself ends an episode.

    Of an environment without an attribute `episode_limit` nothing is known, which is None too.
    """
    from lightning_wm.envs.simulator import EndsByTime

    own = innermost(env)
    return own.episode_limit if isinstance(own, EndsByTime) else None


def can_pose(env: EnvBase) -> bool:
    """Whether its simulators can be drawn where a state vector has them."""
    from lightning_wm.envs.batched import SimulatorEnv
    from lightning_wm.envs.simulator import Poses

    own = innermost(env)
    return isinstance(own, SimulatorEnv) and isinstance(own.simulators[0], Poses)


def may_never_end(env: EnvBase) -> bool:
    """Whether nothing is known to end an episode: neither the environment nor a `StepCounter` around it says so."""
    from torchrl.envs import StepCounter

    counted = any(isinstance(part, StepCounter) and part.max_steps for part in env.modules())
    return episode_limit(env) is None and not counted


def repeated(env: EnvBase) -> int:
    """Env steps that an action is held for; 1 for an environment that is not made by `make_env`."""
    from lightning_wm.envs.batched import SimulatorEnv

    own = innermost(env)
    return own.task.action_repeat if isinstance(own, SimulatorEnv) else 1


def most_decisions(env: EnvBase, episodes: int) -> int | None:
    """Decisions that so many episodes take at most, a batch of environments at a time; None where none is known."""
    limit = episode_limit(env)
    return None if limit is None else math.ceil(limit / repeated(env)) * math.ceil(episodes / env.batch_size[0])


def innermost(env: EnvBase) -> EnvBase:
    """The environment below the transforms that are laid around it."""
    from torchrl.envs import TransformedEnv

    while isinstance(env, TransformedEnv):
        env = env.base_env
    return env


def task_names() -> list[str]:
    """Every task of dm_control's suite that can be learned here, as `dmc/<domain>_<task>`."""
    from lightning_wm.envs.dmc import task_names as names

    return names()
