"""The score around a plan: its gradient, its curvature, and two cuts through it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_wm.errors import UserError
from lightning_wm.inspection.decision import Decision, plain
from lightning_wm.planning.search import Search, check_differentiable

POINTS = 25
"""Of a cut, along each direction; odd, so that the plan is one of them."""
STEP = 0.01
"""Of an action, for the differences that the curvature is taken from."""


@dataclass(frozen=True)
class Cut:
    """Scores on a plane through the plan; actions that leave [-1, 1] on it are clamped."""

    directions: Tensor
    """`[2, H, A]`, orthogonal; one unit along each moves the action that moves most by 1, half of its range."""
    axis: Tensor
    """Units along either direction, `[POINTS]`; 0 is the plan."""
    scores: Tensor
    """`[POINTS, POINTS]`, second direction first; -inf where not finite."""

    def as_json(self) -> dict[str, Any]:
        """The cut in numbers."""
        return {"directions": self.directions.tolist(), "axis": self.axis.tolist(), "scores": plain(self.scores)}


@dataclass(frozen=True)
class Landscape:
    """The score around the executed plan."""

    gradient_start: Tensor | None
    """With respect to the actions at the best start, `[H, A]`; None for a model without gradients."""
    gradient_end: Tensor | None
    """At the executed plan, `[H, A]`."""
    random: Cut
    """In two random directions."""
    leading: Cut
    """In the two directions of largest curvature; without gradients, those the last candidates spread in most."""
    curvature: Tensor | None
    """Eigenvalues of the score's Hessian at the plan, largest size first, `[H*A]`; in score per action squared."""

    def as_json(self) -> dict[str, Any]:
        """The landscape in numbers."""
        norms = [None if g is None else g.norm(dim=1).tolist() for g in (self.gradient_start, self.gradient_end)]
        return {
            "gradient_norm": {"start": norms[0], "end": norms[1]},
            "slices": {"random": self.random.as_json(), "leading": self.leading.as_json()},
            "leading": "spread of the candidates" if self.curvature is None else "curvature",
            "curvature": None if self.curvature is None else self.curvature.tolist(),
        }


def survey(decision: Decision, generator: torch.Generator) -> Landscape:
    """Look around a decision's plan; `generator` draws the random directions."""
    search, plan = decision.search, decision.plan
    drawn = torch.randn(2, *plan.shape, generator=generator).to(plan)
    random = cut(search, plan, orthogonal(drawn))
    try:
        check_differentiable(search.problem, search.state)  # a penalty's gradient would hide that the reward has none
        start, end = gradients(search, torch.stack([decision.start(), plan]))
        values, vectors = hessian(search, plan)
    except UserError:  # a model without gradients can be looked at too
        return Landscape(None, None, random, cut(search, plan, spread(decision)), None)
    return Landscape(start, end, random, cut(search, plan, orthogonal(vectors[:2])), values)


def gradients(search: Search, plans: Tensor) -> Tensor:
    """Of the score with respect to the actions, `[K, H, A]` at plans `[K, H, A]`.

    Raises:
        UserError: the model has none.
    """
    return search.gradient(plans[None], lambda actions: actions)[2][0]


def hessian(search: Search, plan: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues `[d]`, the largest in size first, and eigenvectors `[d, H, A]` for `d = H*A` actions.

    From central differences of the gradient, all in one call: models whose gradient is written by hand, or has
    kinks, have no second one.
    """
    size = plan.numel()
    moves = STEP * torch.eye(size, dtype=plan.dtype, device=plan.device).view(size, *plan.shape)
    ahead, behind = gradients(search, torch.cat([plan + moves, plan - moves])).flatten(1).double().chunk(2)
    matrix = (ahead - behind) / (2 * STEP)
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    order = values.abs().argsort(descending=True)
    return values[order], vectors.T[order].reshape(size, *plan.shape).to(plan)


def spread(decision: Decision) -> Tensor:
    """The principal directions `[2, H, A]` of the candidates at the end; without three of them two actions."""
    plan, candidates = decision.plan, decision.candidates()
    if candidates is None or len(candidates) < 3:
        return orthogonal(torch.eye(max(2, plan.numel()))[:2, : plan.numel()].reshape(2, *plan.shape).to(plan))
    flat = candidates.flatten(1)  # N, H*A
    principal = torch.linalg.svd(flat - flat.mean(0), full_matrices=False).Vh
    return orthogonal(principal[:2].reshape(-1, *plan.shape))


def orthogonal(directions: Tensor) -> Tensor:
    """Two orthogonal directions `[2, H, A]`, each with a largest entry of 1; the second 0 where there is one action."""
    flat = torch.nn.functional.pad(directions.flatten(1), (0, 0, 0, 2 - len(directions)))  # 2, H*A
    first = flat[0]
    second = flat[1] - (flat[1] @ first) / (first @ first) * first
    if flat.shape[1] == 1:
        second = torch.zeros_like(first)
    # The largest entry, sign included, so that a direction does not depend on the sign that a solver gave it.
    pair = torch.stack([first, second])
    peaks = pair.gather(1, pair.abs().argmax(1, keepdim=True))
    return (pair / torch.where(peaks == 0, 1.0, peaks)).view(2, *directions.shape[1:])


def cut(search: Search, plan: Tensor, directions: Tensor) -> Cut:
    """Scores on the plane through a plan `[H, A]` that two directions `[2, H, A]` span."""
    half = POINTS // 2
    axis = torch.arange(-half, half + 1, dtype=plan.dtype, device=plan.device) / half  # 0 exactly in the middle
    across, up = axis[None, :, None, None] * directions[0], axis[:, None, None, None] * directions[1]
    actions = (plan + across + up).clamp(-1, 1).flatten(0, 1)  # POINTS*POINTS, H, A
    return Cut(directions, axis, search.score(actions[None])[0].view(POINTS, POINTS))
