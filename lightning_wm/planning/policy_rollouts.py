"""Candidates from a policy: roll it out in imagination, with noise from each environment's generator."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, TransformedDistribution

from lightning_wm import rng
from lightning_wm.errors import UserError
from lightning_wm.planning.search import Search


def mode(distribution: Distribution) -> Tensor:
    """What a distribution does without noise: TorchRL's `deterministic_sample`, else the mode, else the mean.

    Under transforms it is the transformed mode of what is inside (tanh of a Normal's mean), which needs no search.
    """
    sample: Tensor | None = getattr(distribution, "deterministic_sample", None)
    if sample is not None:
        return sample
    if isinstance(distribution, Independent):
        return mode(distribution.base_dist)
    if isinstance(distribution, TransformedDistribution):
        return _transformed(distribution, mode(distribution.base_dist))
    try:
        return distribution.mode
    except NotImplementedError:
        return distribution.mean


def _transformed(distribution: TransformedDistribution, value: Tensor) -> Tensor:
    for transform in distribution.transforms:
        value = transform(value)
    return value


def draw(distribution: Distribution, noise: Tensor) -> Tensor:
    """A sample `[M, A]` that is a function of standard normal noise `[M, A]`: no global random state.

    Raises:
        UserError: the distribution is no Normal, nor one inside Independent or under transforms.
    """
    if isinstance(distribution, Normal):
        return distribution.loc + distribution.scale * noise
    if isinstance(distribution, Independent):
        return draw(distribution.base_dist, noise)
    if isinstance(distribution, TransformedDistribution):
        return _transformed(distribution, draw(distribution.base_dist, noise))
    raise UserError(
        f"a planner cannot draw from the policy's {type(distribution).__name__}: expected a Normal, "
        "bare, inside Independent or transformed (TanhNormal)"
    )


def rollouts(search: Search, number: int, modes: int = 1) -> tuple[Tensor, Tensor]:
    """Plans `[E, N, H, A]` of the policy, and whether its first answer was finite `[E, N]`.

    The first `modes` plans follow its mode, the others its samples. Uses H-1 imagined steps of N candidates. What the
    policy answers that is not finite becomes 0.

    Args:
        number: N.
        modes: 0 or 1; further ones would equal the first.
    """
    problem, horizon = search.problem, search.horizon
    assert problem.policy is not None
    size = (horizon, number, problem.action)
    noise = rng.normal(size, search.generators, search.like) if modes < number else None  # E, H, N, A
    state, latent = search.rows(number)
    actions: list[Tensor] = []
    finite: list[Tensor] = []
    for step in range(horizon):
        distribution = problem.policy(state)
        parts = [mode(distribution).reshape(-1, *size[1:])[:, :modes]] if modes else []
        if noise is not None:
            parts.append(draw(distribution, noise[:, step].flatten(0, 1)).reshape(-1, *size[1:])[:, modes:])
        action = torch.cat(parts, 1)  # E, N, A
        finite.append(action.isfinite())
        actions.append(torch.where(finite[-1], action, 0.0).clamp(-1, 1))
        if step < horizon - 1:
            state = search.imagine(state, actions[-1].flatten(0, 1), None if latent is None else latent[step])
    return torch.stack(actions, 2), finite[0].all(-1)
