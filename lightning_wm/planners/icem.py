"""iCEM: the cross-entropy method with coloured noise and a memory (arXiv:2008.06389, Alg. 1).

    a^j = mean + std * coloured noise;  fewer candidates in every iteration;  a few elites stay in the race,
    from iteration to iteration and, moved on in time, from decision to decision;  execute the best seen

Deviations: elites that stay take the place of drawn candidates instead of adding to them; the actions that the
horizon moves on to begin at zero instead of random; the previous mean is itself a candidate of the first iteration.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from tensordict import TensorDictBase
from torch import Tensor

from lightning_wm.config.fields import Count, Natural, Share, Weight, settings
from lightning_wm.planning import starts
from lightning_wm.planning.base import FITTED, PREVIOUS, RANDOM, BasePlanner, SearchResult
from lightning_wm.planning.gaussian import SamplerConfig, around, begin, refine, with_zero
from lightning_wm.planning.search import Search
from lightning_wm.registry import register


@settings("planner")
class ICEMConfig(SamplerConfig):
    """The cross-entropy method with coloured noise and kept elites."""

    name: str = "icem"
    iterations: Count = 5
    candidates: Count = 100
    """N: action sequences of the first iteration."""
    elites: Count = 10
    warm_start: bool = True
    """Start from the previous mean and elites, moved on in time."""
    colour: Weight = 2.0
    """Exponent b of the noise's spectrum 1/f^b: 0 white, 2 red (smooth)."""
    shrink: Annotated[float, Field(ge=1)] = 1.25
    """Factor by which every iteration has fewer candidates, never fewer than twice the elites."""
    keep: Natural = 5
    """Elites that stay in the race; at most half of the candidates."""
    momentum: Share = 0.1
    """Share of the old mean and standard deviation in the new."""

    def kept(self) -> int:
        """Elites that stay: at most as many as there are, and half of the candidates."""
        return min(self.keep, self.elites, self.candidates // 2)

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
        remembered, _ = starts.valid_rows(memory, "elites", like.new_zeros(shape))

        def draw(mean: Tensor, std: Tensor, iteration: int, elites: Tensor | None) -> tuple[Tensor, Tensor]:
            candidates, origin = around(search, mean, std, c.population(iteration), c.colour)
            if c.zero:
                candidates, origin = with_zero(candidates, origin, slot=min(c.kept(), candidates.shape[1] - 1))
            last = torch.full_like(warm, iteration == c.iterations - 1)
            candidates, origin = starts.put(candidates, origin, -1, mean, last, FITTED)
            candidates, origin = starts.put(candidates, origin, -1, mean, warm & (iteration == 0), PREVIOUS)
            first = (remembered, warm, PREVIOUS)
            stay, stays, source = first if elites is None else (elites, torch.ones_like(warm), RANDOM)
            for slot in range(c.kept()):
                candidates, origin = starts.put(candidates, origin, slot, stay[:, slot], stays, source)
            return candidates, origin

        fitted = refine(search, mean, std, c.iterations, c.elites, draw, self.blend)
        return fitted.result(search, c.execute, elites=fitted.elites[:, : c.kept()])

    def blend(self, new_mean: Tensor, new_std: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """New mean and standard deviation `[E, H, A]` with `momentum` of the old."""
        share = self.config.momentum
        return new_mean.lerp(mean, share), new_std.lerp(std, share).clamp(min=self.config.min_std)
