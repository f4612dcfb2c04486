"""Where a state vector of dm_control's suite has the bodies: MuJoCo's `qpos` from the parts of an observation.

Only to be drawn. What an observation does not tell, how far a walker has come, is 0, and cameras follow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Numbers: TypeAlias = NDArray[np.float64]
Parts: TypeAlias = Mapping[str, NDArray[np.floating[Any]]]
"""The parts of a state vector by name, each flat."""


def _position(parts: Parts, physics: Any) -> ArrayLike:
    return parts["position"]


def _but_x(parts: Parts, physics: Any) -> ArrayLike:
    return [0.0, *parts["position"]]


def _pendulum(parts: Parts, physics: Any) -> ArrayLike:
    cosine, sine = parts["orientation"]
    return [np.arctan2(sine, cosine)]


def _acrobot(parts: Parts, physics: Any) -> ArrayLike:
    sines, cosines = parts["orientations"].reshape(2, -1)
    return _joints(np.arctan2(sines, cosines))


def _cartpole(parts: Parts, physics: Any) -> ArrayLike:
    cart, poles = parts["position"][0], parts["position"][1:].reshape(-1, 2)
    return [cart, *_joints(np.arctan2(poles[:, 1], poles[:, 0]))]


def _finger(parts: Parts, physics: Any) -> ArrayLike:
    proximal, distal, x, z = parts["position"]
    return [proximal, distal, np.arctan2(-x, z)]


def _walker(parts: Parts, physics: Any) -> ArrayLike:
    cosines, sines = parts["orientations"].reshape(-1, 2).T
    torso, *legs = np.arctan2(sines, cosines)
    right, left = (-_joints(np.array([torso, *leg]))[1:] for leg in (legs[:3], legs[3:]))  # they bend against it
    raised = parts["height"][0] - physics.named.model.body_pos["torso", "z"]
    return [raised, 0.0, torso, *right, *left]


def _joints(angles: NDArray[np.floating[Any]]) -> Numbers:
    """The angles of a chain's joints, from those of its bodies to the world."""
    return np.diff(angles, prepend=0.0)


QPOS: dict[str, Callable[[Parts, Any], ArrayLike]] = {
    "acrobot": _acrobot,
    "ball_in_cup": _position,
    "cartpole": _cartpole,
    "cheetah": _but_x,
    "finger": _finger,
    "hopper": _but_x,
    "pendulum": _pendulum,
    "point_mass": _position,
    "reacher": _position,
    "walker": _walker,
}
"""By domain: `qpos` from the parts and dm_control's physics; angles up to whole turns."""


def place(physics: Any, domain: str, parts: Parts) -> None:
    """Put bodies, target, cameras and lights where a state vector has them; velocities stay as they are.

    Args:
        physics: dm_control's, of a task of the domain.
        domain: one of `QPOS`.
        parts: of the task's state vector.
    """
    physics.data.qpos[:] = QPOS[domain](parts, physics)
    _follow(physics)
    named = physics.named
    if "to_target" in parts:  # reacher
        named.model.geom_pos["target", :2] = named.data.geom_xpos["finger", :2] + parts["to_target"]
    elif "target_position" in parts:  # finger
        named.model.site_pos["target", ["x", "z"]] = named.data.xpos["spinner", ["x", "z"]] + parts["target_position"]
    else:
        return
    _follow(physics)


def _follow(physics: Any) -> None:
    """Everything that is drawn follows from `qpos`; what collides may be imagined to overlap, and does not matter."""
    import mujoco

    for stage in (mujoco.mj_kinematics, mujoco.mj_comPos, mujoco.mj_camlight, mujoco.mj_tendon):
        stage(physics.model.ptr, physics.data.ptr)
