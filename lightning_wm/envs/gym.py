"""Gymnasium's environments with Box actions: `gym/<id>`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from lightning_wm.config.schema import ObservationConfig
from lightning_wm.envs import gl
from lightning_wm.envs.simulator import bounds, nearest
from lightning_wm.errors import UserError
from lightning_wm.registry import register


def _gymnasium() -> Any:
    gl.prepare()
    try:
        import gymnasium
    except ImportError as error:
        raise UserError("gymnasium is not installed; type `pip install 'lightning_wm[gym]'`") from error
    return gymnasium


def _make(name: str) -> Any:
    """The environment, able to draw where it knows how.

    Raises:
        UserError: unknown id, a package that it needs is missing, or its constructor fails.
    """
    gymnasium = _gymnasium()
    if ":" in name:
        # Gymnasium would import the part before the colon; a recipe's data must not do that.
        raise UserError(f"gym/{name} names a module to import; put the module under `plugins` and drop it here")
    try:
        entry = gymnasium.spec(name).entry_point
        creator = gymnasium.envs.registration.load_env_creator(entry) if isinstance(entry, str) else entry
        draws = "rgb_array" in getattr(creator, "metadata", {}).get("render_modes", [])
        return gymnasium.make(name, disable_env_checker=True, **({"render_mode": "rgb_array"} if draws else {}))
    except gymnasium.error.DependencyNotInstalled as error:
        raise UserError(f"gym/{name} needs a package that is missing: {error}") from error
    except (gymnasium.error.UnregisteredEnv, gymnasium.error.DeprecatedEnv) as error:
        hint = nearest(name, gymnasium.registry)
        raise UserError(f"gymnasium has no environment {name!r}{hint} ({error})") from error
    except Exception as error:
        raise UserError(f"gym/{name} cannot be made: {type(error).__name__}: {error}") from error


@register("environment", "gym")
class Gymnasium:
    """One environment of Gymnasium; its observation is flattened, its time limit truncates."""

    def __init__(self, name: str, observation: ObservationConfig) -> None:
        self.name = f"gym/{name}"
        self._env = _make(name)
        space, gymnasium = self._env.action_space, _gymnasium()
        if not isinstance(space, gymnasium.spaces.Box):
            raise UserError(f"task {self.name} takes actions of {space}, expected a Box; choose another task")
        self._space = space
        self.low, self.high = bounds(self.name, space.low, space.high)
        self._flatten = gymnasium.spaces.utils.flatten
        self._shown: Any = None
        shown = self._env.observation_space
        if not shown.is_np_flattenable:
            raise UserError(f"task {self.name} observes {shown}, expected what flattens to a vector")
        self.size = int(gymnasium.spaces.utils.flatdim(shown))

    def reset(self, seed: int | None) -> None:
        """Begin an episode, from the seed or from the environment's own stream."""
        self._shown, _ = self._env.reset(seed=None if seed is None else seed % 2**32)

    def step(self, action: NDArray[np.float64]) -> tuple[float, bool, bool]:
        """One step of the environment; `terminated` and `truncated` as it says."""
        shaped = action.reshape(self._space.shape).astype(self._space.dtype)
        self._shown, reward, terminated, truncated, _ = self._env.step(shaped)
        return float(reward), bool(terminated), bool(truncated)

    def observe(self, out: NDArray[np.float32]) -> None:
        """The observation, flattened."""
        out[:] = self._flatten(self._env.observation_space, self._shown)

    def render(self, size: int) -> NDArray[np.uint8]:
        """The environment's own picture, resized to a square.

        Raises:
            UserError: it has no `rgb_array` picture, or a package or OpenGL is missing.
        """
        if self._env.render_mode != "rgb_array":
            raise UserError(f"task {self.name} has no rgb_array picture; use observation.kind=state")
        try:
            image = self._env.render()
        except Exception as error:
            raise UserError(f"task {self.name} cannot be drawn: {error}") from error
        planes = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
        resized = interpolate(planes, (size, size), mode="bilinear", antialias=True)
        small: NDArray[np.uint8] = resized[0].permute(1, 2, 0).numpy()
        return small

    def close(self) -> None:
        """Close the environment and its renderer."""
        self._env.close()
