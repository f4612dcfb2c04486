"""What is executed of the candidates: the best, one of the elites, or a mean: of the elites or of those on one peak."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_wm.planning.search import Search

_SURE = 3  # deviations; one returns 852 on a learned cartpole, three 855; no limit leaves the pendulum at 0.946


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
            `vote`, of those that are on the peak that most are on (`elected`); `sample`, one of the `elites` best,
            drawn uniformly.
        elites: K; None for a third of the candidates, of `basin` and `vote` for all.
    """
    count = candidates.shape[1]
    elites = elites or (count if execute in ("basin", "vote") else third(count))
    ranked, order = score.sort(dim=1, descending=True, stable=True)
    number = 1 if execute == "best" else elites
    top, index = ranked[:, :number], order[:, :number]  # E, K
    plans = pick(candidates, index)  # E, K, H, A
    if execute == "basin":
        return safe(search, average(plans, same_basin(search, plans, top))[:, None], plans[:, 0], top[:, 0])
    if execute == "vote" and number > 1:
        return vote(search, plans, top)
    if execute == "mean":
        return safe(search, average(plans, top.isfinite())[:, None], plans[:, 0], top[:, 0])
    if execute == "sample":
        chosen = draw_index(search, top.isfinite().to(candidates))  # E
        return pick(plans, chosen[:, None])[:, 0], top.gather(1, chosen[:, None])[:, 0]
    return plans[:, 0], top[:, 0]


def same_basin(
    search: Search, plans: Tensor, score: Tensor, of: Tensor | None = None, doubt: Tensor | None = None
) -> Tensor:
    """Which plans `[E, K, H, A]` are on the peak of one of them: `[E, K]`.

    Half-way to it the score is at least the mean of both ends, as everywhere on a peak that is concave; between two
    peaks it is less, and a mean over them would be worth less than either.

    Args:
        score: `[E, K]`, of the plans.
        of: index `[E]` of the one; None for the first.
        doubt: `[E]`, what half-way may lack and is on the same peak still; None for nothing.
    """
    of = torch.zeros_like(score[:, :1], dtype=torch.int64) if of is None else of[:, None]  # E, 1
    others = torch.arange(score.shape[1] - 1, device=score.device)
    others = others + (others >= of)  # E, K - 1
    end, other = score.gather(1, of), score.gather(1, others)
    halfway = search.score((pick(plans, others) + pick(plans, of)) / 2)
    ends = (other + end) / 2
    lacking = 8 * torch.finfo(score.dtype).eps * ends.abs()
    if doubt is not None:
        lacking = lacking + doubt[:, None]
    same = torch.zeros_like(score, dtype=torch.bool).scatter(1, of, end.isfinite())
    return same.scatter(1, others, (halfway >= ends - lacking) & other.isfinite())


def vote(search: Search, plans: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
    """The mean `[E, H, A]` of the plans on the peak that most are on, and its score `[E]`.

    Or of the better half of them, where that scores more: of plans that have not converged the mean of all cancels
    what is random in them, as long as none is so far behind that it drags the others back. The best of them stands in
    for the mean where the model is sure that it is better, by three deviations.

    Args:
        plans: `[E, K, H, A]`, the best first.
        score: `[E, K]`.
    """
    doubt = search.doubt(plans[:, 0])
    peak = elected(search, plans, score, doubt)
    first = peak.to(torch.int8).argmax(1)[:, None]  # the first that is: the best
    best, best_score = pick(plans, first)[:, 0], score.gather(1, first)[:, 0]
    means = torch.stack([average(plans, peak), average(plans, better_half(peak))], 1)
    return safe(search, means, best, best_score, _SURE * doubt)


def elected(search: Search, plans: Tensor, score: Tensor, doubt: Tensor) -> Tensor:
    """Which plans `[E, K, H, A]`, the best first, are on the peak that most are on: `[E, K]`.

    To choose from are the best one's peak and that of the best one beside it. A plan's vote for its peak is
    exp((score - best) / doubt): what the model cannot tell apart counts the same, so that a peak found by many wins
    over one that a single plan was promised hardly more on. Without doubt (known dynamics) the best one's peak wins.

    Args:
        score: `[E, K]`, of the plans.
        doubt: `[E]`, standard deviation of the best one's score over draws of the latents.
    """
    votes = ((score - score[:, :1]) / doubt[:, None].clamp(min=torch.finfo(score.dtype).tiny)).exp()
    first = same_basin(search, plans, score, doubt=doubt)
    others = score.isfinite() & ~first
    if not others.any():
        return first
    second = same_basin(search, plans, score, others.to(torch.int8).argmax(1), doubt) & others
    more = (votes * second).sum(1) > (votes * first).sum(1)
    return torch.where(more[:, None], second, first)


def better_half(chosen: Tensor) -> Tensor:
    """The first half, of an odd number the larger, of those chosen `[E, K]` from plans in order."""
    return chosen & (chosen.cumsum(1) <= (chosen.sum(1, keepdim=True) + 1) // 2)


def average(plans: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean `[E, H, A]` of plans `[E, K, H, A]` with weights `[E, K]`; 0 where all weights are 0."""
    weights = weights.to(plans)
    weights = weights / weights.sum(1, keepdim=True).clamp(min=torch.finfo(plans.dtype).tiny)
    return (weights[:, :, None, None] * plans).sum(1)


def safe(
    search: Search, means: Tensor, best: Tensor, best_score: Tensor, slack: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The best of `means` `[E, G, H, A]` and its score `[E]`, or the best candidate's where that is not finite.

    Args:
        slack: `[E]`, the most by which the score may be lower than the best candidate's; None for any.
    """
    score, index = search.score(means).sort(dim=1, descending=True, stable=True)
    plan, score = pick(means, index[:, :1])[:, 0], score[:, 0]
    usable = score.isfinite()
    if slack is not None:
        usable = usable & (score >= best_score - slack)
    return torch.where(usable[:, None, None], plan, best), torch.where(usable, score, best_score)


def gaining(
    search: Search, plan: Tensor, score: Tensor, policy: Tensor, policy_score: Tensor, draws: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The plan where it is worth more than the policy's own rollout on average over draws, else that rollout.

    With its score `[E]`, and whether it is the rollout `[E]`.

    A plan was improved on the prior's mode; what it gains there may be the mode's alone. Where the rollout's own score
    is not finite the plan is executed.

    Args:
        plan: `[E, H, A]`, with its score `[E]`.
        policy: `[E, H, A]`, the rollout of its mode, with its score `[E]`.
        draws: of the latents, the same for both.
    """
    expected = search.expected(torch.stack([plan, policy], 1), draws)
    gains = (expected[:, 0] > expected[:, 1]) | ~policy_score.isfinite()
    return torch.where(gains[:, None, None], plan, policy), torch.where(gains, score, policy_score), ~gains


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
