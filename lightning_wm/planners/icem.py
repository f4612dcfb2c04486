"""iCEM: the cross-entropy method with coloured noise and a memory (arXiv:2008.06389, Alg. 1).

    a^j = mean + std * coloured noise;  fewer candidates in every iteration;  a few elites stay in the race,
    from iteration to iteration and, moved on in time, from decision to decision;  execute the best seen

Deviations: elites that stay take the place of drawn candidates instead of adding to them; the actions that the
horizon moves on to begin at zero instead of random; the previous mean is itself a candidate of the first iteration.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from tensordict import TensorDictBase
from torch import Tensor

from lightning_wm.config.fields import Count, Natural, Positive, Share, Weight, settings
from lightning_wm.planning import starts
from lightning_wm.planning.base import PREVIOUS, RANDOM, BasePlanner, Found, pick, valid_rows
from lightning_wm.planning.gaussian import fit, keep
from lightning_wm.planning.search import Search
from lightning_wm.planning.selection import choose, safe
from lightning_wm.planning.settings import PlannerConfig
from lightning_wm.registry import register


@settings("planner")
class ICEMConfig(PlannerConfig):
    """The cross-entropy method with coloured noise and kept elites."""

    name: str = "icem"
    iterations: Count = 5
    """Times that the distribution is fitted to the elites."""
    candidates: Count = 100
    """N: action sequences of the first iteration."""
    elites: Count = 10
    """K: best candidates that the distribution is fitted to."""
    execute: Literal["best", "mean", "sample"] = "best"
    """`best` candidate seen, `mean` of the fitted distribution, or `sample`, one of the last elites."""
    warm_start: bool = True
    """Start from the previous mean and elites, moved on in time."""
    init_std: Positive = 0.5
    """Standard deviation of the first iteration."""
    min_std: Weight = 1e-6
    """The standard deviation's floor."""
    colour: Weight = 2.0
    """Exponent b of the noise's spectrum 1/f^b: 0 white, 2 red (smooth)."""
    shrink: Annotated[float, Field(ge=1)] = 1.25
    """Factor by which every iteration has fewer candidates, never fewer than twice the elites."""
    keep: Natural = 5
    """Elites that stay in the race."""
    momentum: Share = 0.1
    """Share of the old mean and standard deviation in the new."""

    def kept(self) -> int:
        """Elites that stay: at most as many as there are."""
        return min(self.keep, self.elites)

    def population(self, iteration: int) -> int:
        """Candidates of an iteration."""
        fewest = min(2 * self.elites, self.candidates)
        return max(fewest, int(self.candidates * self.shrink**-iteration))


@register("planner", "icem")
class ICEM(BasePlanner):
    """iCEM, Alg. 1 of arXiv:2008.06389; `ICEMConfig` has its settings."""

    Config = ICEMConfig
    config: ICEMConfig

    def slots(self, action: int) -> dict[str, tuple[int, ...]]:
        """The mean, and the elites that stay."""
        return {**super().slots(action), "elites": (self.config.kept(), self.config.horizon, action)}

    def search(self, search: Search, memory: TensorDictBase | None) -> Found:
        """Draw, put the kept elites in, score, fit, again; the mean joins the last iteration."""
        c, like, action = self.config, search.like, search.problem.action
        mean, warm = valid_rows(memory, "actions", like.new_zeros(search.environments, c.horizon, action))
        shape = (search.environments, c.kept(), c.horizon, action)
        stay, _ = valid_rows(memory, "elites", like.new_zeros(shape))
        std, stays = torch.full_like(mean, c.init_std), warm
        best, best_score = mean, like.new_full(warm.shape, -torch.inf)
        first = best_score
        for iteration in range(c.iterations):
            candidates = self.draw(search, mean, std, iteration)
            add_mean = torch.full_like(warm, iteration == c.iterations - 1) | (warm & (iteration == 0))
            origin = torch.full(candidates.shape[:2], RANDOM, device=mean.device)
            candidates, origin = starts.put(candidates, origin, -1, mean, add_mean, PREVIOUS)
            for slot in range(c.kept()):
                candidates, origin = starts.put(candidates, origin, slot, stay[:, slot], stays, PREVIOUS)
            score = search.score(candidates)
            top, index = score.topk(min(c.elites, score.shape[1]), dim=1)
            elites = pick(candidates, index)  # E, K, H, A
            mean, std = self.blend(fit(elites, top.isfinite(), mean, std), mean, std)
            best, best_score = keep(best, best_score, elites[:, 0], top[:, 0])
            first = top[:, 0] if iteration == 0 else first
            stay, stays = elites[:, : c.kept()], torch.ones_like(warm)
        plan, plan_score = best, best_score
        if c.execute == "mean":
            plan, plan_score = safe(search, mean, best, best_score)
        elif c.execute == "sample":
            plan, plan_score = choose(search, candidates, score, "sample", c.elites)
        return Found(candidates, score, origin, plan, plan_score, first, {"actions": mean, "elites": stay})

    def draw(self, search: Search, mean: Tensor, std: Tensor, iteration: int) -> Tensor:
        """Candidates `[E, N, H, A]` of an iteration, clamped to [-1, 1]."""
        c, number = self.config, self.config.population(iteration)
        noise = starts.noise(number, c.horizon, search.problem.action, search.generators, search.like, c.colour)
        return noise.mul_(std[:, None]).add_(mean[:, None]).clamp_(-1, 1)

    def blend(self, new: tuple[Tensor, Tensor], mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """New mean and standard deviation with `momentum` of the old."""
        share = self.config.momentum
        return new[0].lerp(mean, share), new[1].lerp(std, share).clamp(min=self.config.min_std)
