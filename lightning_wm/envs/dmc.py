"""dm_control's suite: `dmc/<domain>_<task>` (arXiv:2006.12983)."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import metadata
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lightning_wm.config.schema import ObservationConfig, PerturbConfig, RenderConfig
from lightning_wm.envs import gl, physics, poses
from lightning_wm.envs.layout import ObservationLayout, Part
from lightning_wm.envs.simulator import bounds, nearest
from lightning_wm.errors import UserError
from lightning_wm.registry import register


def suite() -> Any:
    """dm_control's suite, imported with a drawing library that this machine has.

    Raises:
        UserError: a mujoco that dm_control does not work with, or dm_control cannot be imported.
    """
    version = metadata.version("mujoco")
    if int(version.split(".")[0]) >= 4:
        raise UserError(
            f"mujoco {version} is installed and dm_control does not work with it; "
            'expected 3.17 or later 3.x: type `pip install "mujoco>=3.17,<4"`'
        )
    gl.prepare()
    try:
        from dm_control import suite as imported
    except Exception as error:  # of OpenGL's, perhaps, which only what draws needs
        drawing = os.environ.get("MUJOCO_GL", "glfw")
        gl.turn_off(f"MUJOCO_GL={drawing} cannot be used ({type(error).__name__}: {error}); choose another library")
        try:
            from dm_control import suite as imported
        except Exception as other:
            raise UserError(f"dm_control cannot be imported ({type(other).__name__}: {other})") from other
    return imported


def task_names() -> list[str]:
    """Every task of the suite with bounded actions, as `dmc/<domain>_<task>`."""
    return [f"dmc/{domain}_{task}" for domain, task in suite().ALL_TASKS if domain != "lqr"]


def _split(name: str) -> tuple[str, str]:
    # Some domains have underscores (ball_in_cup), so a name cannot simply be split.
    known = {f"{domain}_{task}": (domain, task) for domain, task in suite().ALL_TASKS}
    if name not in known:
        raise UserError(
            f"dm_control's suite has no task {name!r}{nearest(name, known)} `lightning_wm tasks` lists them all"
        )
    return known[name]


@register("environment", "dmc")
class DMControl:
    """One task of the suite; actions of the suite's bounds, one control step at a time."""

    def __init__(self, name: str, observation: ObservationConfig) -> None:
        self.name = f"dmc/{name}"
        domain, task = _split(name)
        with _quiet():
            self._env = suite().load(domain, task)
        spec = self._env.action_spec()
        low, high = (np.broadcast_to(side, spec.shape) for side in (spec.minimum, spec.maximum))
        self.low, self.high = bounds(self.name, low, high)
        self._shown: dict[str, Any] = {}
        self._damping: physics.Damping | None = None
        parts = self._env.observation_spec()
        self.layout = ObservationLayout({name: Part(tuple(part.shape)) for name, part in parts.items()})
        self.size = self.layout.size
        self._render = observation.render
        self._cameras: dict[int, Any] = {}
        _set_quality(self._env.physics.model.vis, observation.render)
        self._domain = domain
        self.pose = self._pose if domain in poses.QPOS else None

    @property
    def episode_limit(self) -> int | None:
        """Env steps of an episode that nothing else ends; None for a task without a time limit."""
        limit = self._env._step_limit
        return math.ceil(limit) if math.isfinite(limit) else None

    def perturb(self, factors: PerturbConfig) -> None:
        """Change the physics for good."""
        model = self._env.physics.model.ptr
        physics.perturb(model, self._env.physics.data.ptr, factors)
        self._damping = physics.Damping(model, factors.damping)

    def state(self) -> object:
        """MuJoCo's integration state, its warm start included, and how old the episode is."""
        import mujoco

        model, data = self._env.physics.model.ptr, self._env.physics.data.ptr
        kept = np.empty(mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_INTEGRATION))
        mujoco.mj_getState(model, data, kept, mujoco.mjtState.mjSTATE_INTEGRATION)
        return kept, self._env._step_count

    def restore(self, state: object) -> None:
        """Go on from a `state` of the same episode; what is shown changes with the next step."""
        import mujoco

        kept, count = cast("tuple[NDArray[np.float64], int]", state)
        model, data = self._env.physics.model.ptr, self._env.physics.data.ptr
        mujoco.mj_setState(model, data, kept, mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_forward(model, data)
        mujoco.mj_setState(model, data, kept, mujoco.mjtState.mjSTATE_INTEGRATION)  # forward has warmed up anew
        self._env._step_count, self._env._reset_next_step = count, False

    def _pose(self, vector: NDArray[np.float32]) -> None:
        """Put what is drawn where a state vector `[O]` has it; see `simulator.Poses`."""
        poses.place(self._env.physics, self._domain, self.layout.split(vector))

    def reset(self, seed: int | None) -> None:
        """Begin an episode; with a seed, from a random state that depends on nothing else."""
        if seed is not None:
            self._env.task.random.seed(seed % 2**32)
        self._shown = self._env.reset().observation
        if self._damping is not None:
            self._damping.after_reset()

    def step(self, action: NDArray[np.float64]) -> tuple[float, bool, bool]:
        """One control step; an episode that ends with discount 0 terminated, any other was truncated."""
        result = self._env.step(action)
        self._shown = result.observation
        ended = result.last()
        terminated = ended and result.discount == 0
        return float(result.reward), terminated, ended and not terminated

    def observe(self, out: NDArray[np.float32]) -> None:
        """The observation dictionary in its own order, scalars included."""
        start = 0
        for value in self._shown.values():
            length = np.size(value)
            out[start : start + length] = np.ravel(value)
            start += length

    def render(self, size: int) -> NDArray[np.uint8]:
        """The camera's picture.

        Raises:
            UserError: no OpenGL, no such camera, or larger than the framebuffer.
        """
        if size not in self._cameras:
            self._cameras[size] = self._camera(size)
        self._take_context()
        image: NDArray[np.uint8] = self._cameras[size].render()
        return image

    def _camera(self, size: int) -> Any:
        # One camera for the whole life: physics.render builds a scene for every picture.
        from dm_control.mujoco.engine import Camera

        problem = gl.rendering_problem()
        if problem:
            raise UserError(f"task {self.name} cannot be drawn: {problem}")
        try:
            return Camera(self._env.physics, height=size, width=size, camera_id=self._render.camera)
        except ValueError as error:
            raise UserError(
                f"task {self.name} cannot be drawn with size {size}, camera {self._render.camera}: {error}"
            ) from error
        except Exception as error:
            raise UserError(f"task {self.name} cannot be drawn: OpenGL failed with {error}") from error

    def close(self) -> None:
        """Free the scenes, the OpenGL context and MuJoCo's data."""
        with ExitStack() as frees:
            frees.callback(self._env.physics.free)
            if self._cameras:
                frees.callback(self._take_context)
            for camera in self._cameras.values():
                frees.callback(camera.scene.free)
            self._cameras.clear()

    def _take_context(self) -> None:
        # dm_control keeps account of whose context is current, but not of those that others make current
        # (Gymnasium's); it would draw black, or free their textures.
        context = self._env.physics.contexts.gl
        with context.make_current() as thread:
            thread.call(context._platform_make_current)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep MuJoCo's deprecation notes about dm_control's own model files off the screen."""
    from absl import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _set_quality(visual: Any, render: RenderConfig) -> None:
    """Before the first picture: MuJoCo reads these when it makes its drawing context."""
    if render.quality == "fast":
        visual.quality.shadowsize = 0
        visual.quality.offsamples = 0
    visual.global_.offwidth = max(visual.global_.offwidth, render.size)
    visual.global_.offheight = max(visual.global_.offheight, render.size)
