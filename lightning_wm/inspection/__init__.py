"""Why a plan is what it is: one decision of one planner, looked at from all sides.

`python -m lightning_wm.evaluate run=RUN planner=grad_mpc inspect=STEP` writes its picture and its numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torchrl.envs import EnvBase

from lightning_wm import rng
from lightning_wm.inspection.decision import Decision, reach
from lightning_wm.inspection.future import Future, happened
from lightning_wm.inspection.landscape import Landscape, survey
from lightning_wm.playing.actor import WorldModelActor
from lightning_wm.protocols import Actor

__all__ = ["Inspection", "inspect"]


@dataclass(frozen=True)
class Inspection:
    """What there is to see of one decision."""

    decision: Decision
    landscape: Landscape
    future: Future

    def as_json(self) -> dict[str, Any]:
        """The documented form of `inspect/NAME.json`; what is not finite is null."""
        return {**self.decision.as_json(), **self.landscape.as_json(), **self.future.as_json()}


def inspect(env: EnvBase, actor: Actor, model: object, seed: int, step: int) -> Inspection:
    """Play an episode up to a decision, and look at that decision.

    Args:
        env: one environment.
        actor: a world model's actor with a planner; it plays the episode as in an evaluation.
        model: that world model; what it decodes is shown where it has `decode`.
        seed: of the episode.
        step: number of the decision, from 0. With `replan` the one whose plan is being executed there.

    Raises:
        UserError: the episode ends before, or nothing is planned in it.
    """
    with torch.no_grad():
        decision = reach(env, actor, seed, step)
        assert isinstance(actor, WorldModelActor)  # others have been refused
        generator = rng.generator(actor.seed, "planner", 0, 0, decision.number, 1)  # the planner's own has no last one
        return Inspection(decision, survey(decision, generator), happened(env, model, decision))
