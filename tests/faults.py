"""A plugin in which things go wrong on purpose: `plugins=[tests.faults]`.

Every part is the real one with a fault at a place that its configuration names.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from lightning_wm.agents.planet import PlaNet, PlaNetConfig
from lightning_wm.config.fields import settings
from lightning_wm.config.schema import ObservationConfig
from lightning_wm.envs.dmc import DMControl
from lightning_wm.planners.grad_mpc import GradMPC, GradMPCConfig
from lightning_wm.planning.search import Search
from lightning_wm.registry import register


@register("environment", "faulty")
class Faulty(DMControl):
    """dm_control's task before the `?` of the name; behind it faults and when they come: `?raise@7&reward@50`.

    `raise`, `physics`, `reward`, `observation` come at that env step of this
    process, `reset` at that reset of it; `chance@p` raises with probability p
    at every env step until it did `most` times. `rank@1` leaves the other ranks
    alone.
    """

    steps = resets = raised = 0
    most = 20
    made: int = 0
    chance = np.random.default_rng(0)

    def __init__(self, name: str, observation: ObservationConfig) -> None:
        task, _, faults = name.partition("?")
        super().__init__(task, observation)
        pairs = [fault.split("@") for fault in faults.split("&") if fault]
        self.at = {(kind, int(when)) for kind, when in pairs if kind != "chance"}
        rank = int(os.environ.get("LOCAL_RANK", "0"))
        if any(kind == "rank" and when != rank for kind, when in self.at):
            self.at.clear()
        self.probability = sum(float(when) for kind, when in pairs if kind == "chance")
        self.spoilt = False
        Faulty.made += 1

    @classmethod
    def forget(cls) -> None:
        """Count from zero again."""
        cls.steps = cls.resets = cls.raised = cls.made = 0
        cls.chance = np.random.default_rng(0)

    def reset(self, seed: int | None) -> None:
        Faulty.resets += 1
        if ("reset", Faulty.resets) in self.at:
            raise OSError("the simulator does not start")
        self.spoilt = False
        super().reset(seed)

    def step(self, action: NDArray[np.float64]) -> tuple[float, bool, bool]:
        assert np.isfinite(action).all(), "a simulator was shown an action that is not finite"
        Faulty.steps += 1
        now = {kind for kind, when in self.at if when == Faulty.steps}
        by_chance = Faulty.raised < self.most and Faulty.chance.random() < self.probability
        if "raise" in now or by_chance:
            Faulty.raised += 1
            raise RuntimeError("the simulator broke")
        if "physics" in now:
            self._env.physics.data.qpos[:] = np.nan
        reward, terminated, truncated = super().step(action)
        self.spoilt = "observation" in now
        return float("nan") if "reward" in now else reward, terminated, truncated

    def observe(self, out: NDArray[np.float32]) -> None:
        super().observe(out)
        if self.spoilt:
            out[0] = np.inf


@settings("planner")
class FaultyMPCConfig(GradMPCConfig):
    """Grad-MPC's and the faults'."""

    name: str = "faulty_mpc"
    bad_actions: list[int] = field(default_factory=list)
    """Plans whose action in row 0 is not-a-number."""
    bad_candidates: bool = False
    """Whether the first candidate of every search begins with a not-a-number."""


@register("planner", "faulty_mpc")
class FaultyMPC(GradMPC):
    """Grad-MPC whose candidates and actions are spoilt here and there."""

    Config = FaultyMPCConfig
    config: FaultyMPCConfig
    plans = 0

    def starts(self, search: Search, memory: TensorDictBase | None) -> tuple[Tensor, Tensor]:
        candidates, origin = super().starts(search, memory)
        if self.config.bad_candidates:
            candidates[:, 0, 0] = torch.nan
        return candidates, origin

    def plan(self, *args: Any, **kwargs: Any) -> TensorDict:
        plan = super().plan(*args, **kwargs)
        if self.config.bad_candidates:
            assert not bool(plan["stats", "fallback"].any())
            assert bool((plan["candidates", "score"][:, 0] == -torch.inf).all())
        self.plans += 1
        if self.plans in self.config.bad_actions:
            for name in ("action", "actions"):
                plan[name][0] = torch.nan
        return plan


@dataclass(frozen=True)
class FaultyPlaNetConfig(PlaNetConfig):
    """PlaNet's and the faults'."""

    name: str = "faulty_planet"
    rank: int = 0
    """Where things go wrong."""
    bad_losses: list[int] = field(default_factory=list)
    """Updates with a loss that is not-a-number and has no gradient."""
    bad_gradients: list[int] = field(default_factory=list)
    """Updates in which the gradient of one parameter is not-a-number."""
    bad_batches: list[int] = field(default_factory=list)
    """Updates whose batch has a not-a-number among its rewards."""


@register("agent", "faulty_planet")
class FaultyPlaNet(PlaNet):
    """PlaNet whose losses and gradients are spoilt here and there; writes every rank's weights down."""

    Config = FaultyPlaNetConfig
    config: FaultyPlaNetConfig

    def training_step(self, batch: TensorDictBase, index: int) -> Tensor:
        if self._now(self.config.bad_batches):
            batch["reward"][0, 1] = torch.nan
        if self._now(self.config.bad_gradients):
            weight = dict(self.model.named_parameters())[SPOILT]
            handle = weight.register_hook(lambda gradient: gradient * torch.nan)
            try:
                return super().training_step(batch, index)
            finally:
                self._handle = handle
        return super().training_step(batch, index)

    def behave(self, states: Any, batch: TensorDictBase) -> dict[str, Tensor]:
        return {"loss/spoilt": batch["reward"].new_tensor(torch.nan)} if self._now(self.config.bad_losses) else {}

    def on_train_batch_end(self, *args: Any) -> None:
        if hasattr(self, "_handle"):
            self._handle.remove()
            del self._handle

    def on_train_epoch_end(self) -> None:
        weights = torch.cat([p.detach().flatten() for p in self.parameters()])
        torch.save(weights, Path(self.trainer.default_root_dir) / f"weights-rank{self.global_rank}.pt")

    def _now(self, updates: list[int]) -> bool:
        return self.global_rank == self.config.rank and self.global_step in updates


SPOILT = "gru.weight_hh"
"""The parameter whose gradient is spoilt."""
