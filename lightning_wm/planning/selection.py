"""What is executed of the candidates: the best, the mean of the elites or of those on one peak, or one of them."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_wm.planning.search import Search


def choose(
    search: Search, candidates: Tensor, score: Tensor, execute: str, elites: int | None
) -> tuple[Tensor, Tensor]:
    """The plan `[E, H, A]` that is executed and its score `[E]`.

    Where the mean's own score is not finite the best candidate is executed instead. Of equal scores the first
    candidate's counts as the better.

    Args:
        candidates: `[E, N, H, A]`.
        score: `[E, N]`, -inf where not finite.
        execute: `best`; `mean`, of the `elites` best; `basin`, of those among them that are on the best one's peak;
            `sample`, one of the `elites` best, drawn uniformly.
        elites: K; None for a third of the candidates, of `basin` for all.
    """
    count = candidates.shape[1]
    elites = elites or (count if execute == "basin" else third(count))
    ranked, order = score.sort(dim=1, descending=True, stable=True)
    number = 1 if execute == "best" else elites
    top, index = ranked[:, :number], order[:, :number]  # E, K
    plans = pick(candidates, index)  # E, K, H, A
    if execute == "basin":
        return safe(search, average(plans, same_basin(search, plans, top)), plans[:, 0], top[:, 0])
    if execute == "mean":
        return safe(search, average(plans, top.isfinite()), plans[:, 0], top[:, 0])
    if execute == "sample":
        chosen = draw_index(search, top.isfinite().to(candidates))  # E
        return pick(plans, chosen[:, None])[:, 0], top.gather(1, chosen[:, None])[:, 0]
    return plans[:, 0], top[:, 0]


def same_basin(search: Search, plans: Tensor, score: Tensor) -> Tensor:
    """Which plans `[E, K, H, A]` are on the peak of the first: `[E, K]`.

    Half-way to it the score is at least the mean of both ends, as everywhere on a peak that is concave; between two
    peaks it is less, and a mean over them would be worth less than either.

    Args:
        score: `[E, K]`, of the plans.
    """
    halfway = search.score((plans + plans[:, :1]) / 2)
    ends = (score + score[:, :1]) / 2
    rounding = 8 * torch.finfo(score.dtype).eps * ends.abs()
    same = (halfway >= ends - rounding) & score.isfinite()
    return same | (torch.arange(score.shape[1], device=score.device) == 0) & score[:, :1].isfinite()


def average(plans: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean `[E, H, A]` of plans `[E, K, H, A]` with weights `[E, K]`; 0 where all weights are 0."""
    weights = weights.to(plans)
    weights = weights / weights.sum(1, keepdim=True).clamp(min=torch.finfo(plans.dtype).tiny)
    return (weights[:, :, None, None] * plans).sum(1)


def safe(search: Search, plan: Tensor, best: Tensor, best_score: Tensor) -> tuple[Tensor, Tensor]:
    """`plan` `[E, H, A]` and its score `[E]`, or the best candidate's where that score is not finite."""
    score = search.score(plan[:, None])[:, 0]
    usable = score.isfinite()
    return torch.where(usable[:, None, None], plan, best), torch.where(usable, score, best_score)


def draw_index(search: Search, weights: Tensor) -> Tensor:
    """One index `[E]` per environment with chances in proportion to weights `[E, K]`, from its own generator."""
    ladder = weights.cumsum(1)
    chance = torch.stack([torch.rand(1, generator=own) for own in search.generators]).to(weights)  # E, 1
    index = torch.searchsorted(ladder, chance * ladder[:, -1:], right=True)
    return index[:, 0].clamp(max=weights.shape[1] - 1)


def third(candidates: int) -> int:
    """A third of the candidates, at least one: the elites where their number is not set."""
    return -(-candidates // 3)


def pick(actions: Tensor, index: Tensor) -> Tensor:
    """Candidates `[E, K, H, A]` of `[E, N, H, A]` at index `[E, K]`."""
    return actions.gather(1, index[:, :, None, None].expand(-1, -1, *actions.shape[2:]))
