"""What a policy would do, imagined: rollouts, lambda-returns and what is learned from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lightning_wm.models.behaviour import PolicyHead
from lightning_wm.planning.objective import flat, stacked, stepwise
from lightning_wm.protocols import Features, Follows, State, TrainedModel


class DreamModel(TrainedModel, Features, Protocol):
    """A world model with features that a policy can act on."""


@dataclass(frozen=True)
class Dream:
    """Imagined trajectories of H steps from M states."""

    features: Tensor
    """`[H+1, M, F]`, the starts first."""
    states: State
    """After each action, every tensor `[H*M, ...]`, time first."""
    mean: Tensor
    """`[H, M, A]` of the policy, before the bound."""
    std: Tensor
    """`[H, M, A]`."""
    raw: Tensor
    """`[H, M, A]` draws of the policy before the bound, a differentiable function of mean and std."""


def dream(
    model: DreamModel, policy: PolicyHead, start: State, drawn: Tensor, noise: Tensor, through_dynamics: bool = True
) -> Dream:
    """Follow the policy in imagination (arXiv:1912.01603, Sec. 3).

    The policy takes its features as given: how they came about is credited through the returns alone. So the
    actions are found first, without a graph, and the policy's graph is built for all steps at once; gradients
    through the dynamics come from how the states depend on these actions.

    Args:
        model: imagines; freeze its parameters around this call.
        policy: acts.
        start: `[M, ...]`, detached.
        drawn: standard normal noise of the policy, `[H, M, A]`.
        noise: what `model.imagine` takes as noise, `[H, M, ...]`.
        through_dynamics: let gradients pass from states to the actions that led to them.
    """
    size = tuple(drawn.shape[:2])

    def choose(step: int, features: Tensor) -> Tensor:
        mean, std = policy.statistics(features)
        return policy.bound(mean + std * drawn[step])

    with torch.no_grad():
        states, attach = _follow(model, start, choose, noise)
        seen = torch.cat([model.features(start)[None], model.features(flat(states)).unflatten(0, size)])
    mean, std = policy.statistics(seen[:-1])
    raw = mean + std * drawn
    if not through_dynamics:
        return Dream(seen, flat(states), mean, std, raw)
    after = flat(attach(policy.bound(raw)))
    features = torch.cat([seen[:1], model.features(after).unflatten(0, size)])
    return Dream(features, after, mean, std, raw)


def _follow(
    model: DreamModel, start: State, choose: Callable[[int, Tensor], Tensor], noise: Tensor
) -> tuple[State, Callable[[Tensor], State]]:
    """The states `[H, M, ...]` that a policy leads to, and how they depend on its actions `[H, M, A]`."""
    # Its steps write into tensors of one dtype.
    if isinstance(model, Follows) and not torch.is_autocast_enabled(noise.device.type):
        return model.follow(start, choose, noise)
    state, states = start, []
    for step in range(len(noise)):
        state = model.imagine(state, choose(step, model.features(state)), noise[step])
        states.append(state)
    return stacked(states), lambda actions: stepwise(model.imagine, start, actions.transpose(0, 1), noise)


def lambda_returns(reward: Tensor, discount: Tensor, value: Tensor, lam: float) -> Tensor:
    """lambda-returns (arXiv:2301.04104, Eq. 7; arXiv:1912.01603, Eq. 6).

        G_k = r_{k+1} + d_{k+1} ((1 - lambda) V(s_{k+1}) + lambda G_{k+1}),   G_H = V(s_H)

    Args:
        reward: r of the states 1..H, `[H, M]`.
        discount: d, the discount times the probability that the episode goes on after them, `[H, M]`.
        value: V of them, `[H, M]`.
        lam: lambda, in [0, 1].

    Returns:
        G of the states 0..H-1, `[H, M]`.
    """
    last, returns = value[-1], []
    for step in reversed(range(reward.shape[0])):
        last = reward[step] + discount[step] * ((1.0 - lam) * value[step] + lam * last)
        returns.append(last)
    return torch.stack(returns[::-1])


def survival(discount: Tensor) -> Tensor:
    """How much the states 0..H-1 count, `[H, M]`: the product of the discounts before them, without gradients."""
    before = torch.cat([torch.ones_like(discount[:1]), discount[:-1]])
    return before.cumprod(0).detach()
