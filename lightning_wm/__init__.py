"""World models that you can plan through, in PyTorch Lightning.

Names are imported when they are first used, so that a command can answer
`--help` and a misspelled key before torch is imported.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import lightning_wm.envs  # noqa: F401  (settles MUJOCO_GL before anything imports MuJoCo, TorchRL included)

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lightning_wm.agents.planet import PlaNet as PlaNet
    from lightning_wm.data.datamodule import ReplayDataModule as ReplayDataModule
    from lightning_wm.envs import make_env as make_env
    from lightning_wm.envs import spaces as spaces
    from lightning_wm.models.rssm import RSSM as RSSM
    from lightning_wm.planners.cem import CEM as CEM
    from lightning_wm.planners.grad_mpc import GradMPC as GradMPC
    from lightning_wm.runs.loading import load_actor as load_actor
    from lightning_wm.training.evaluation import Evaluate as Evaluate
    from lightning_wm.training.rollout import Rollout as Rollout

_HOMES = {
    "CEM": "lightning_wm.planners.cem",
    "Evaluate": "lightning_wm.training.evaluation",
    "GradMPC": "lightning_wm.planners.grad_mpc",
    "PlaNet": "lightning_wm.agents.planet",
    "RSSM": "lightning_wm.models.rssm",
    "ReplayDataModule": "lightning_wm.data.datamodule",
    "Rollout": "lightning_wm.training.rollout",
    "load_actor": "lightning_wm.runs.loading",
    "make_env": "lightning_wm.envs",
    "spaces": "lightning_wm.envs",
}

__all__ = [*sorted(_HOMES), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
