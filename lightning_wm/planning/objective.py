"""What a plan is worth: imagine it, add up what the model predicts.

    score(a_1..a_H) = sum_k discount^k * prod_{i<=k} continues(s_i) * reward(s_{k+1})  +  terms,   k = 0..H-1

Plain tensors inside the time loop, heads once on all `H*M` states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lightning_wm.config.fields import Factor, Weight, settings
from lightning_wm.protocols import Problem, State, Trajectory


@settings("planner.objective")
class Objective:
    """What a plan is judged by."""

    discount: Factor | None = None
    """Factor per agent step, in (0, 1]; null: the agent's, whose value is of it, or 1 where the agent has none."""
    continues: bool | None = None
    """Weigh rewards by the predicted probability that the episode has not ended; null: where the model predicts it."""
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
    return {name: torch.stack([state[name] for state in states]) for name in states[0]}


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
