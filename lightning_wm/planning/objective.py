"""What a plan is worth: imagine it, add up what the model predicts.

    score(a_1..a_H) = sum_k discount^k * prod_{i<=k} continues(s_i) * reward(s_{k+1})  +  terms,   k = 0..H-1

Plain tensors inside the time loop, heads once on all `H*M` states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_wm.config.fields import Factor, Weight, settings
from lightning_wm.errors import UserError
from lightning_wm.planning.terms import ActionCost, Disagreement, Smoothness, TerminalValue, ValueDoubt
from lightning_wm.protocols import Problem, State, Term, Trajectory


@settings("planner.objective")
class Objective:
    """What a plan is judged by."""

    discount: Factor = 1.0
    """Factor per agent step, in (0, 1]; 1 sums the horizon's rewards as PlaNet does."""
    continues: bool = False
    """Weigh rewards by the predicted probability that the episode has not ended."""
    terminal_value: bool = False
    """Add the value of the state that the plan ends in; the agent needs critics, or the model a value head."""
    action_cost: Weight = 0.0
    """Weight of the penalty on squared actions."""
    smoothness: Weight = 0.0
    """Weight of the penalty on squared differences of successive actions."""
    disagreement: Weight = 0.0
    """Weight of the penalty on what the model's ensemble does not agree on."""
    value_doubt: Weight = 0.0
    """Weight of the penalty on what the critics do not agree on: |mean| times standard deviation of their values."""


def problem_of(
    model: Any,
    *,
    discount: float = 1.0,
    continues: bool = False,
    terminal_value: bool = False,
    action_cost: float = 0.0,
    smoothness: float = 0.0,
    disagreement: float = 0.0,
    value_doubt: float = 0.0,
    policy: Callable[[State], torch.distributions.Distribution] | None = None,
    values: Callable[[State], Tensor] | None = None,
) -> Problem:
    """The problem of acting well in a world model; the keywords are the fields of `Objective`.

    Args:
        model: a `WorldModel`, with `value` and `disagreement` where it has them.
        policy: distribution over actions of a state, for candidates and as the fallback.
        values: critics that were trained beside the model, states to `[K, M]`; without them the model's own `value`.

    Raises:
        UserError: a term asks for a head that the model does not have.
    """
    value = getattr(model, "value", None) if values is None else lambda state: values(state).mean(0)
    if terminal_value and value is None:
        raise UserError(
            f"planner.objective.terminal_value=true, but {type(model).__name__} has no value head; "
            "train with an agent that learns a value (agent=dreamer), or type planner.objective.terminal_value=false"
        )
    if disagreement and getattr(model, "disagreement", None) is None:
        raise UserError(
            f"planner.objective.disagreement={disagreement}, but {type(model).__name__} has no ensemble; "
            "type planner.objective.disagreement=0"
        )
    if value_doubt:
        _check_critics(model, values, value_doubt)
    terms: list[tuple[float, Term]] = [
        (float(terminal_value), TerminalValue()),
        (action_cost, ActionCost(action_cost)),
        (smoothness, Smoothness(smoothness)),
        (disagreement, Disagreement(disagreement)),
        (value_doubt, ValueDoubt(value_doubt)),
    ]
    return Problem(
        action=model.spaces.action,
        imagine=model.imagine,
        reward=model.reward,
        continues=model.continues if continues else None,
        value=value,
        values=values,
        disagreement=getattr(model, "disagreement", None),
        policy=policy,
        noise=model.noise,
        unroll=unroll_of(model),
        discount=discount,
        terms=tuple(term for weight, term in terms if weight),
    )


def _check_critics(model: Any, values: Callable[[State], Tensor] | None, weight: float) -> None:
    """Critics that can disagree are at least two; how many there are only their answer says."""
    count = 0
    if values is not None:
        with torch.no_grad():
            count = len(values(model.initial(1)))
    if count < 2:
        found = "are no critics" if count == 0 else "is a single critic, which cannot disagree with itself"
        raise UserError(
            f"planner.objective.value_doubt={weight:g}, but there {found}; train with an agent that learns several "
            "(agent=dreamer agent.critic.members=2), or type planner.objective.value_doubt=0"
        )


def unroll_of(model: Any) -> Any:
    """The model's way to imagine whole plans at once, or None."""
    return model.unroll if getattr(model, "can_unroll", False) else None


def imagine(problem: Problem, state: State, actions: Tensor, noise: Tensor | None = None) -> State:
    """The states after each action, every tensor `[H, M, ...]`.

    Args:
        state: where the plans start, `[M, ...]`.
        actions: `[M, H, A]`.
        noise: of the stochastic state, `[H, M, ...]`; None follows the prior's mode.
    """
    if problem.unroll is not None:
        return problem.unroll(state, actions, noise)
    return stepwise(problem.imagine, state, actions, noise)


def stepwise(
    step: Callable[[State, Tensor, Tensor | None], State], state: State, actions: Tensor, noise: Tensor | None
) -> State:
    """`imagine` by one step of the prior after the other."""
    states = []
    for index, action in enumerate(actions.unbind(1)):  # M, A
        state = step(state, action, None if noise is None else noise[index])
        states.append(state)
    return stacked(states)


def stacked(states: Sequence[State]) -> State:
    """States of H steps as one, every tensor `[H, M, ...]`."""
    return {name: torch.stack([one[name] for one in states]) for name in states[0]}


def flat(states: State) -> State:
    """`[H, M, ...]` as one batch `[H*M, ...]`, time first."""
    return {name: value.flatten(0, 1) for name, value in states.items()}


def weights(problem: Problem, states: State, horizon: int, like: Tensor) -> Tensor:
    """Discount^k times the probability that the episode goes on after k steps, `[H+1, M]` (`[H+1, 1]` without)."""
    discount = problem.discount ** torch.arange(horizon + 1, device=like.device, dtype=like.dtype)[:, None]
    if problem.continues is None:
        return discount
    goes_on = problem.continues(flat(states)).view(horizon, -1)  # H, M
    survival = torch.cat([torch.ones_like(goes_on[:1]), goes_on]).cumprod(0)  # H+1, M
    return discount * survival


def score(problem: Problem, state: State, actions: Tensor, noise: Tensor | None = None) -> Tensor:
    """What each plan is worth under the model, `[M]`; differentiable in the actions.

    Rows do not influence each other.

    Args:
        state: where the plans start, `[M, ...]`.
        actions: `[M, H, A]`.
        noise: of the stochastic state, `[H, M, ...]`; None follows the prior's mode.
    """
    horizon = actions.shape[1]
    states = imagine(problem, state, actions, noise)
    trajectory = Trajectory(actions, states, weights(problem, states, horizon, actions))
    rewards = problem.reward(trajectory.flat()).view(horizon, -1)  # H, M
    total = (trajectory.weights[:-1] * rewards).sum(0)
    for term in problem.terms:
        total = total + term(problem, trajectory)
    return total
