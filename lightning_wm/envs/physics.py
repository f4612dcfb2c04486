"""MuJoCo's physics, a little different from what the task's file says."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_wm.config.schema import PerturbConfig


def perturb(model: Any, data: Any, factors: PerturbConfig) -> None:
    """Multiply what a loaded model weighs, rubs, resists and falls by; what follows from masses is worked out anew.

    Args:
        model: MuJoCo's `MjModel`; changed in place.
        data: its `MjData`; scratch space.
    """
    import mujoco

    model.body_mass[:] *= factors.mass
    model.body_inertia[:] *= factors.mass
    model.geom_friction[:] *= factors.friction
    model.dof_damping[:] *= factors.damping
    model.opt.gravity[:] *= factors.gravity
    mujoco.mj_setConst(model, data)


class Damping:
    """Keeps a model's damping perturbed where a task writes its own at a reset, as dm_control's finger does.

    Args:
        model: MuJoCo's `MjModel`, perturbed.
        factor: that its damping was multiplied by.
    """

    def __init__(self, model: Any, factor: float) -> None:
        self._model, self._factor = model, factor
        self._kept: NDArray[np.float64] = model.dof_damping.copy()

    def after_reset(self) -> None:
        """Multiply what the reset has written."""
        written = self._model.dof_damping != self._kept
        self._model.dof_damping[written] *= self._factor
        self._kept = self._model.dof_damping.copy()
