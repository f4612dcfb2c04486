"""MuJoCo's physics, a little different from what the task's file says."""

from __future__ import annotations

from typing import Any

from lightning_wm.config.schema import PerturbConfig


def perturb(model: Any, data: Any, factors: PerturbConfig) -> None:
    """Multiply what a loaded model weighs, rubs, resists and falls by; what follows from masses is worked out anew.

    Args:
        model: MuJoCo's `MjModel`; changed in place, and no reset undoes it.
        data: its `MjData`; scratch space.
    """
    import mujoco

    model.body_mass[:] *= factors.mass
    model.body_inertia[:] *= factors.mass
    model.geom_friction[:] *= factors.friction
    model.dof_damping[:] *= factors.damping
    model.opt.gravity[:] *= factors.gravity
    mujoco.mj_setConst(model, data)
