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
from lightning_wm.planning.base import PREVIOUS, BasePlanner, SearchResult, valid_rows
from lightning_wm.planning.gaussian import around, begin, refine
from lightning_wm.planning.search import Search
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

    def search(self, search: Search, memory: TensorDictBase | None) -> SearchResult:
        """Draw, put the kept elites in, score, fit, again; the mean joins the last iteration."""
        c, like = self.config, search.like
        mean, std, warm = begin(search, memory, c.init_std)
        shape = (search.environments, c.kept(), c.horizon, search.problem.action)
        remembered, _ = valid_rows(memory, "elites", like.new_zeros(shape))

        def draw(mean: Tensor, std: Tensor, iteration: int, elites: Tensor | None) -> tuple[Tensor, Tensor]:
            candidates, origin = around(search, mean, std, c.population(iteration), c.colour)
            add_mean = torch.full_like(warm, iteration == c.iterations - 1) | (warm & (iteration == 0))
            candidates, origin = starts.put(candidates, origin, -1, mean, add_mean, PREVIOUS)
            stay, stays = (remembered, warm) if elites is None else (elites, torch.ones_like(warm))
            for slot in range(c.kept()):
                candidates, origin = starts.put(candidates, origin, slot, stay[:, slot], stays, PREVIOUS)
            return candidates, origin

        fitted = refine(search, mean, std, c.iterations, c.elites, draw, self.blend)
        plan, plan_score = fitted.executed(search, c.execute)
        kept = {"actions": fitted.mean, "elites": fitted.elites[:, : c.kept()]}
        return SearchResult(fitted.candidates, fitted.score, fitted.origin, plan, plan_score, fitted.first, kept)

    def blend(self, new_mean: Tensor, new_std: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """New mean and standard deviation `[E, H, A]` with `momentum` of the old."""
        share = self.config.momentum
        return new_mean.lerp(mean, share), new_std.lerp(std, share).clamp(min=self.config.min_std)
