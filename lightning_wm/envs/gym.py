"""Gymnasium's environments with Box actions: `gym/<id>`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lightning_wm.config.schema import ObservationConfig, PerturbConfig
from lightning_wm.envs import gl, physics
from lightning_wm.envs.gym_spaces import action_box, five, flag, number, observed, pair
from lightning_wm.envs.pictures import rgb, square
from lightning_wm.envs.release import release
from lightning_wm.envs.simulator import nearest
from lightning_wm.errors import EnvironmentFailure, UserError
from lightning_wm.registry import register

if TYPE_CHECKING:
    from types import ModuleType

    import gymnasium

    Env = gymnasium.Env[Any, Any]

MUJOCO_VIEWERS = "gymnasium.envs.mujoco.mujoco_rendering"


class Mismatch(ValueError):
    """What an environment returns is not what its spaces and Gymnasium's contract say."""


@contextmanager
def _mismatches() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise Mismatch(str(error)) from error


def _gymnasium() -> ModuleType:
    gl.prepare()
    try:
        import gymnasium
    except ImportError as error:
        raise UserError("gymnasium is not installed; type `pip install 'lightning_wm[gym]'`") from error
    return gymnasium


def _make(name: str) -> tuple[Env, str]:
    """The environment, able to draw where it knows how, and otherwise why it cannot.

    Raises:
        UserError: unknown id, a package that it needs is missing, or its constructor fails.
    """
    gymnasium = _gymnasium()
    if ":" in name:
        # Gymnasium would import the part before the colon; a recipe's data must not do that.
        raise UserError(f"gym/{name} names a module to import; put the module under `plugins` and drop it here")
    try:
        return _drawing(gymnasium, name)
    except gymnasium.error.DependencyNotInstalled as error:
        raise UserError(f"gym/{name} needs a package that is missing: {error}") from error
    except (gymnasium.error.UnregisteredEnv, gymnasium.error.DeprecatedEnv) as error:
        hint = nearest(name, gymnasium.registry)
        raise UserError(f"gymnasium has no environment {name!r}{hint} ({error})") from error
    except Exception as error:
        raise UserError(f"gym/{name} cannot be made: {type(error).__name__}: {error}") from error


def _drawing(gymnasium: ModuleType, name: str) -> tuple[Env, str]:
    entry = gymnasium.spec(name).entry_point
    creator = gymnasium.envs.registration.load_env_creator(entry) if isinstance(entry, str) else entry
    reason = ""
    if _may_draw(creator):
        try:
            return gymnasium.make(name, disable_env_checker=True, render_mode="rgb_array"), ""
        except Exception as error:  # only what renders needs it
            reason = f" (with render_mode='rgb_array' it fails: {type(error).__name__}: {error})"
    return gymnasium.make(name, disable_env_checker=True), reason


def _may_draw(creator: object) -> bool:
    """Whether an environment is worth making with a render mode; functions and wrappers say nothing of it."""
    import gymnasium

    if not (isinstance(creator, type) and issubclass(creator, gymnasium.Env)):
        return True
    metadata: object = creator.metadata  # a property, of wrappers
    return not isinstance(metadata, dict) or "rgb_array" in metadata.get("render_modes", [])


@runtime_checkable
class _DrawsWithMuJoCo(Protocol):
    mujoco_renderer: Any


@runtime_checkable
class _MuJoCo(Protocol):
    model: Any
    data: Any


@register("environment", "gym")
class Gymnasium:
    """One environment of Gymnasium; its observation is flattened in its space's order, its time limit truncates."""

    def __init__(self, name: str, observation: ObservationConfig) -> None:
        self.name = f"gym/{name}"
        self._env, self._undrawn = _make(name)
        try:
            self._space, self.low, self.high = action_box(self.name, self._env.action_space)
            self._observed = observed(self.name, self._env.observation_space, observation.kind)
        except BaseException:
            release([self], self.name)
            raise
        self._vector = observation.kind != "pixels"
        self.layout = self._observed.layout
        self.size = self.layout.size
        self._shown: object = None

    @property
    def episode_limit(self) -> int | None:
        """Env steps after which a TimeLimit ends the episode; None without one."""
        from gymnasium import Wrapper
        from gymnasium.wrappers import TimeLimit

        limits, env = [], self._env
        while isinstance(env, Wrapper):
            if isinstance(env, TimeLimit):
                limits.append(int(env._max_episode_steps))
            env = env.env
        return min(limits, default=None)

    def perturb(self, factors: PerturbConfig) -> None:
        """Change the physics for good.

        Raises:
            UserError: it is none of MuJoCo's.
        """
        inner = self._env.unwrapped
        if not isinstance(inner, _MuJoCo):
            raise UserError(f"task.perturb: {self.name} is not simulated by MuJoCo; leave task.perturb out")
        physics.perturb(inner.model, inner.data, factors)

    def try_out(self) -> None:
        """Play one step with the middle of the action bounds, to see now what would fail in every episode.

        Raises:
            UserError: an observation, a reward or an end that is not what the spaces and Gymnasium's contract say.
            EnvironmentFailure: the environment raises, twice in a row.
        """
        for last in (False, True):
            try:
                self.reset(None)
                self._try_observing()
                self.step((self.low + self.high) / 2)
                self._try_observing()
                return
            except Mismatch as error:
                raise UserError(f"task {self.name} does not keep to Gymnasium's contract: {error}") from error
            except Exception as error:
                if last:
                    raise EnvironmentFailure(
                        f"task {self.name} failed in its first step: {type(error).__name__}: {error}"
                    ) from error

    def _try_observing(self) -> None:
        if self._vector:
            self.observe(np.empty(self.size, np.float32))

    def reset(self, seed: int | None) -> None:
        """Begin an episode, from the seed or from the environment's own stream."""
        result = self._env.reset(seed=None if seed is None else seed % 2**32)
        with _mismatches():
            self._shown = pair(result)

    def step(self, action: NDArray[np.float64]) -> tuple[float, bool, bool]:
        """One step of the environment; `terminated` and `truncated` as it says."""
        shaped = action.reshape(self._space.shape).astype(self._space.dtype)
        result = self._env.step(shaped)
        with _mismatches():
            self._shown, reward, terminated, truncated = five(result)
            return number(reward, "reward"), flag(terminated, "terminated"), flag(truncated, "truncated")

    def observe(self, out: NDArray[np.float32]) -> None:
        """The observation, flattened.

        Raises:
            Mismatch: it is not of its space's parts and shapes.
        """
        with _mismatches():
            vector = self.layout.flatten(self._shown)
            if vector.size != self.size:
                raise ValueError(f"the observation is {vector.shape[0]} observations")
            out[:] = vector.reshape(-1)

    def render(self, size: int) -> NDArray[np.uint8]:
        """The picture it observes, or else the one it draws, resized to a square.

        Raises:
            UserError: it has no picture that can be used, or a package or OpenGL is missing.
        """
        name, form = self._observed.picture, self._observed.form
        try:
            if name is not None and form is not None:
                return square(form.rgb(self.layout.part(self._shown, name)), size)
            return square(rgb(np.asarray(self._draw())), size)
        except ValueError as error:
            raise UserError(f"task {self.name} has a picture that cannot be used: {error}") from error

    def _draw(self) -> object:
        if self._env.render_mode != "rgb_array":
            raise UserError(f"task {self.name} has no rgb_array picture{self._undrawn}; use observation.kind=state")
        try:
            self._take_context()
            return self._env.render()
        except Exception as error:
            reason = gl.rendering_problem() if MUJOCO_VIEWERS in sys.modules else None
            raise UserError(f"task {self.name} cannot be drawn: {reason or error}") from error

    def _viewer(self) -> Any:
        """Gymnasium's own MuJoCo viewer, where there is one."""
        if MUJOCO_VIEWERS not in sys.modules:
            return None
        env = self._env.unwrapped
        return env.mujoco_renderer.viewer if isinstance(env, _DrawsWithMuJoCo) else None

    def _take_context(self) -> None:
        # A viewer draws into whatever context is current: after another environment was made, into that one's, and
        # after it was closed, into none, which is black.
        viewer = self._viewer()
        if viewer is not None:
            viewer.make_context_current()

    def close(self) -> None:
        """Close the environment and its renderer."""
        try:
            viewer = self._viewer()
            if viewer is not None:  # its textures go with its own context; Gymnasium frees them in any
                viewer.make_context_current()
                viewer.con.free()
        finally:
            self._env.close()
