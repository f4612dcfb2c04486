"""What a planner optimises, from a world model, an objective, and what an agent has learned beside the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from lightning_wm.errors import UserError
from lightning_wm.planning.objective import Objective
from lightning_wm.planning.settings import PlannerConfig
from lightning_wm.planning.terms import ActionCost, Disagreement, Smoothness, TerminalValue, ValueDoubt
from lightning_wm.protocols import (
    Disagrees,
    Planner,
    PredictsTermination,
    Problem,
    StartsFromPolicy,
    State,
    Term,
    Unrolls,
    Valued,
    WorldModel,
)

Policy = Callable[[State], Distribution]
Values = Callable[[State], Tensor]


@dataclass(frozen=True)
class MeanValue:
    """The mean of critics `[K, M]` as a value `[M]`; equal for equal critics, as compiled scores are kept by it."""

    values: Values

    def __call__(self, state: State) -> Tensor:
        """Value `[M]`."""
        return self.values(state).mean(0)


def problem_for(planner: Planner, model: WorldModel, agent: str, *, curiosity: float = 0.0, **learned: Any) -> Problem:
    """The problem that a planner's own objective makes of a world model.

    Args:
        agent: name of the agent that trained the model.
        curiosity: weight of the ensemble's disagreement in the running reward, beside the objective's own.
        learned: keywords of `problem_of`.

    Raises:
        UserError: the planner needs what was not learned; the message says what to type.
    """
    if isinstance(planner, StartsFromPolicy) and planner.needs_policy and learned.get("policy") is None:
        raise UserError(no_policy(planner, f"this run learned none (agent={agent})"))
    problem = problem_of(model, objective_of(planner), **learned)
    return replace(problem, terms=(*problem.terms, Disagreement(-curiosity))) if curiosity else problem


def objective_of(planner: Planner) -> Objective:
    """What its settings say that plans are judged by; the defaults where a planner has no such settings."""
    return planner.config.objective if isinstance(planner.config, PlannerConfig) else Objective()


def no_policy(planner: Planner, instead: str) -> str:
    """What to tell the user of a planner that starts from a policy where there is none.

    Args:
        instead: what there is ("this run learned none (agent=planet)").
    """
    return (
        f"planner={planner.config.name} starts from a policy, but {instead}; type agent=dreamer when training, "
        "or planner=grad_mpc"
    )


def problem_of(
    model: WorldModel,
    objective: Objective | None = None,
    *,
    policy: Policy | None = None,
    values: Values | None = None,
    discount: float = 1.0,
) -> Problem:
    """The problem of acting well in a world model.

    Args:
        model: a `WorldModel`, with `value` and `disagreement` where it has them.
        objective: what plans are judged by; None for the sum of rewards.
        policy: distribution over actions of a state, for candidates and as the fallback.
        values: critics that were trained beside the model, states to `[K, M]`; without them the model's own `value`.
        discount: of the agent; an objective of its own discount overrules it.

    Raises:
        UserError: a term asks for a head that the model does not have.
    """
    objective = objective or Objective(continues=False)
    own = model.value if isinstance(model, Valued) else None
    value = own if values is None else MeanValue(values)
    disagreement = model.disagreement if isinstance(model, Disagrees) else None
    if objective.terminal_value and value is None:
        raise UserError(
            f"planner.objective.terminal_value=true, but {type(model).__name__} has no value head; "
            "train with an agent that learns a value (agent=dreamer), or type planner.objective.terminal_value=false"
        )
    if objective.disagreement and disagreement is None:
        raise UserError(
            f"planner.objective.disagreement={objective.disagreement}, but {type(model).__name__} has no ensemble; "
            "type planner.objective.disagreement=0"
        )
    if objective.value_doubt:
        _check_critics(model, values, objective.value_doubt)
    return Problem(
        action=model.spaces.action,
        imagine=model.imagine,
        reward=model.reward,
        continues=model.continues if _weighed(objective, model) else None,
        value=value,
        values=values,
        disagreement=disagreement,
        policy=policy,
        noise=model.noise,
        unroll=model.unroll if isinstance(model, Unrolls) else None,
        discount=discount if objective.discount is None else objective.discount,
        terms=terms_of(objective),
    )


def _weighed(objective: Objective, model: WorldModel) -> bool:
    """Whether rewards are weighed by the probability that the episode goes on."""
    if objective.continues is not None:
        return objective.continues
    return model.predicts_termination if isinstance(model, PredictsTermination) else True


def terms_of(objective: Objective) -> tuple[Term, ...]:
    """The terms of an objective whose weights are not zero."""
    terms: list[tuple[float, Term]] = [
        (float(objective.terminal_value), TerminalValue()),
        (objective.action_cost, ActionCost(objective.action_cost)),
        (objective.smoothness, Smoothness(objective.smoothness)),
        (objective.disagreement, Disagreement(objective.disagreement)),
        (objective.value_doubt, ValueDoubt(objective.value_doubt)),
    ]
    return tuple(term for weight, term in terms if weight)


def _check_critics(model: WorldModel, values: Values | None, weight: float) -> None:
    """Critics that can disagree are at least two; how many there are only their answer tells."""
    count = 0
    if values is not None:
        with torch.no_grad():
            count = len(values(model.initial(1)))
    if count < 2:
        there = "are no critics" if count == 0 else "is a single critic, which cannot disagree with itself"
        raise UserError(
            f"planner.objective.value_doubt={weight:g}, but there {there}; train with an agent that learns several "
            "(agent=dreamer agent.critic.members=2), or type planner.objective.value_doubt=0"
        )
