"""Getting to a decision, with the planner being watched there."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.envs import EnvBase

from lightning_wm.errors import UserError
from lightning_wm.planning.base import BasePlanner
from lightning_wm.planning.search import Search
from lightning_wm.planning.trace import Scored, Trace
from lightning_wm.playing.actor import WorldModelActor
from lightning_wm.protocols import Actor


@dataclass(frozen=True)
class Decision:
    """One decision of one environment."""

    seed: int
    """Of the episode."""
    number: int
    """Of the decision, from 0."""
    seen: TensorDictBase
    """What the environment showed, batch `[1]`."""
    plan: Tensor
    """What is executed, `[H, A]`."""
    score: float
    """Of the plan, under the model; -inf where no candidate's was finite."""
    scored: list[Scored]
    """Every scoring of the search, in order, E = 1."""
    search: Search
    """For further questions about the same state and noise."""
    reward: float | None = None
    """That came with what was seen; None where that was not kept, and before the first decision."""

    def start(self) -> Tensor:
        """The best plan of the first scoring, `[H, A]`; the executed one where nothing was scored."""
        if not self.scored:
            return self.plan
        first = self.scored[0]
        return first.actions[0, int(first.score[0].argmax())]

    def as_json(self) -> dict[str, Any]:
        """The search in numbers."""
        return {
            "seed": self.seed,
            "decision": self.number,
            "plan": self.plan.tolist(),
            "score": plain(self.score),
            "scores": [plain(scoring.score[0]) for scoring in self.scored],
        }


def plain(value: float | Tensor | list[Any]) -> Any:
    """A number as it is where it is finite, else None; of a tensor or a list every entry."""
    if isinstance(value, Tensor | list):
        return [plain(entry) for entry in (value.tolist() if isinstance(value, Tensor) else value)]
    return value if abs(value) < float("inf") else None


def decisions(env: EnvBase, actor: Actor, seed: int, numbers: Collection[int]) -> Iterator[Decision]:
    """Play the episode of a seed, and look at those of its decisions that have the given numbers.

    Between two of them the environment stands at the decision that was given last, before its action.

    Raises:
        UserError: nothing is planned in it.
    """
    planner = actor.planner if isinstance(actor, WorldModelActor) else None
    if not isinstance(planner, BasePlanner):
        raise UserError("there is nothing to look at where no planner of lightning_wm searches; type planner=grad_mpc")
    seen: TensorDictBase = env.reset(seeds=[seed])
    actor.reset()
    actor.episode = 0
    reward: float | None = None
    for number in range(max(numbers, default=-1) + 1):
        planner.trace = trace = Trace() if number in numbers else None
        action = actor.act(seen).to("cpu", torch.float32)
        planner.trace = None
        if trace is not None:
            yield replace(_decision(seed, number, seen, actor, trace), reward=reward)
        seen["action"] = action
        after = env.step(seen)["next"]
        reward, seen = float(after["reward"]), after.exclude("reward")
        if bool(seen["done"].any()):
            return


def _decision(seed: int, number: int, seen: TensorDictBase, actor: Actor, trace: Trace) -> Decision:
    """What a watched planner has just decided."""
    assert trace.search is not None
    assert actor.plan is not None
    executed, score = actor.plan["actions"][0], float(actor.plan["stats", "score_best"][0])
    return Decision(seed, number, seen, executed, score, trace.scored, trace.search.probe())


def reach(env: EnvBase, actor: Actor, seed: int, step: int) -> Decision:
    """Play the episode of a seed up to a decision and make it.

    Raises:
        UserError: the episode ends before, or nothing is planned in it.
    """
    planner = actor.planner if isinstance(actor, WorldModelActor) else None
    if not isinstance(planner, BasePlanner):
        raise UserError(
            f"inspect={step}: there is nothing to see where no planner of lightning_wm searches; type planner=grad_mpc"
        )
    number = step - step % planner.config.replan
    seen = _play(env, actor, seed, number)
    planner.trace = trace = Trace()
    actor.act(seen)
    planner.trace = None
    return _decision(seed, number, seen, actor, trace)


def _play(env: EnvBase, actor: Actor, seed: int, step: int) -> TensorDictBase:
    seen: TensorDictBase = env.reset(seeds=[seed])
    actor.reset()
    actor.episode = 0
    for decision in range(step):
        seen["action"] = actor.act(seen).to("cpu", torch.float32)
        seen = env.step(seen)["next"].exclude("reward")
        if bool(seen["done"].any()):
            raise UserError(
                f"inspect={step}: the episode of seed {seed} ends after {decision + 1} decisions; "
                f"expected 0 to {decision}; type e.g. inspect={decision // 2}"
            )
    return seen
