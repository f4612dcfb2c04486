"""Getting to a decision, with the planner being watched there."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise
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
    """That came with what was seen; None before the first decision."""

    def start(self) -> Tensor:
        """The best plan of the first scoring, `[H, A]`; the executed one where nothing was scored."""
        if not self.scored:
            return self.plan
        first = self.scored[0]
        return first.actions[0, int(first.score[0].argmax())]

    def candidates(self) -> Tensor | None:
        """Where the last gradient step led, `[N, H, A]`; without one the last that were scored side by side, if any."""
        climbed = [after.actions[0] for before, after in pairwise(self.scored) if before.climbed]
        several = climbed or [scoring.actions[0] for scoring in self.scored if scoring.actions.shape[1] > 1]
        return several[-1] if several else None

    def as_json(self) -> dict[str, Any]:
        """The search in numbers."""
        return {
            "seed": self.seed,
            "decision": self.number,
            "plan": self.plan.tolist(),
            "score": plain(self.score),
            "scores": [plain(scoring.score[0]) for scoring in self.scored],
            "climbed": [scoring.climbed for scoring in self.scored],
            "drawn": [scoring.noise is not None for scoring in self.scored],
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
        UserError: nothing is planned in it, or not at every one of the decisions.
    """
    planner = watchable(actor, numbers)
    yield from (decision for _, decision in _played(env, actor, planner, seed, numbers) if decision is not None)


def watchable(actor: Actor, numbers: Collection[int]) -> BasePlanner:
    """The planner that searches at every one of these decisions.

    Raises:
        UserError: nothing is planned, or not at every one of them.
    """
    planner = _searching(actor)
    if planner is None:
        raise UserError("there is nothing to look at where no planner of lightning_wm searches; type planner=grad_mpc")
    replan = planner.config.replan
    if late := [number for number in numbers if number % replan]:
        raise UserError(
            f"planner.replan={replan}: decision {late[0]} follows the plan of {late[0] - late[0] % replan}, without "
            "a search to look at; type planner.replan=1"
        )
    return planner


def reach(env: EnvBase, actor: Actor, seed: int, step: int) -> Decision:
    """Play the episode of a seed up to a decision and make it.

    Raises:
        UserError: the episode ends before, or nothing is planned in it.
    """
    planner = _searching(actor)
    if planner is None:
        raise UserError(
            f"inspect={step}: there is nothing to see where no planner of lightning_wm searches; type planner=grad_mpc"
        )
    number, last = step - step % planner.config.replan, 0
    for index, decision in _played(env, actor, planner, seed, {number}):
        if decision is not None:
            return decision
        last = index
    raise UserError(
        f"inspect={number}: the episode of seed {seed} ends after {last + 1} decisions; "
        f"expected 0 to {last}; type e.g. inspect={last // 2}"
    )


def _searching(actor: Actor) -> BasePlanner | None:
    planner = actor.planner if isinstance(actor, WorldModelActor) else None
    return planner if isinstance(planner, BasePlanner) else None


def _played(
    env: EnvBase, actor: Actor, planner: BasePlanner, seed: int, numbers: Collection[int]
) -> Iterator[tuple[int, Decision | None]]:
    """Every decision up to the last of the given numbers or the episode's end; looked at are those of the numbers."""
    seen: TensorDictBase = env.reset(seeds=[seed])
    actor.reset()
    actor.episode = 0
    reward: float | None = None
    for number in range(max(numbers, default=-1) + 1):
        planner.trace = trace = Trace() if number in numbers else None
        action = actor.act(seen).to("cpu", torch.float32)
        planner.trace = None
        yield number, None if trace is None else _decision(seed, number, seen, actor, trace, reward)
        seen["action"] = action
        after = env.step(seen)["next"]
        reward, seen = float(after["reward"]), after.exclude("reward")
        if bool(seen["done"].any()):
            return


def _decision(
    seed: int, number: int, seen: TensorDictBase, actor: Actor, trace: Trace, reward: float | None
) -> Decision:
    """What a watched planner has just decided."""
    assert trace.search is not None
    assert actor.plan is not None
    executed, score = actor.plan["actions"][0], float(actor.plan["stats", "score_best"][0])
    return Decision(seed, number, seen, executed, score, trace.scored, trace.search.probe(), reward)
