"""Model predictive path integral control as TD-MPC2 plans with it (arXiv:2310.16828, App. C; arXiv:1509.01149).

    a^j ~ N(mean, std^2), clamped, some from the policy;  weights exp(temperature * (score - max)) of the elites;
    mean, std <- weighted;  I times;  execute an elite drawn by its weight

Deviations: the horizon is 12 where there is no terminal value (TD-MPC2's 3 stands on one); no noise is added to the
executed action (exploration belongs to collecting, not to planning).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from tensordict import TensorDictBase
from torch import Tensor

from lightning_wm.config.fields import Count, Natural, Positive, Weight, settings
from lightning_wm.planning import starts
from lightning_wm.planning.base import POLICY, PREVIOUS, BasePlanner, SearchResult
from lightning_wm.planning.gaussian import SamplerConfig, around, begin, refine, with_zero
from lightning_wm.planning.policy_rollouts import rollouts
from lightning_wm.planning.search import Search
from lightning_wm.planning.selection import draw_index, pick
from lightning_wm.registry import register


@settings("planner")
class MPPIConfig(SamplerConfig):
    """Model predictive path integral control."""

    name: str = "mppi"
    horizon: Count = 12
    """H: agent steps that are imagined; TD-MPC2's 3 needs `objective.terminal_value`."""
    iterations: Count = 6
    candidates: Count = 512
    """N: action sequences in each iteration, those of the policy included."""
    elites: Count = 64
    """K: best candidates that the distribution is fitted to."""
    execute: Literal["best", "mean", "sample"] = "sample"
    """`sample`, an elite drawn by its weight; `best` candidate seen; `mean` of the fitted distribution."""
    policy_candidates: Natural = 24
    """Candidates that are rollouts of the policy, where there is one."""
    temperature: Positive = 0.5
    """Factor on the score before the exponential: larger is greedier (TD-MPC2's name)."""
    init_std: Positive = 2.0
    """Standard deviation of the first iteration, and the largest of all."""
    min_std: Weight = 0.05

    def __post_init__(self) -> None:
        """Refuse a floor of the deviation that is above its ceiling, too."""
        super().__post_init__()
        if self.min_std > self.init_std:
            raise ValueError(
                f"planner.min_std={self.min_std}: above planner.init_std={self.init_std}; expected at most that"
            )


@register("planner", "mppi")
class MPPI(BasePlanner):
    """MPPI, App. C of arXiv:2310.16828; `MPPIConfig` has its settings."""

    Config = MPPIConfig
    config: MPPIConfig

    def search(self, search: Search, memory: TensorDictBase | None) -> SearchResult:
        """Draw, score, weigh, fit, again."""
        c = self.config
        mean, std, warm = begin(search, memory, c.init_std)
        guided = self.guided(search)
        drawn = c.candidates - (0 if guided is None else guided.shape[1])

        def draw(mean: Tensor, std: Tensor, iteration: int, _: Tensor | None) -> tuple[Tensor, Tensor]:
            """The policy's candidates last, the warm mean itself first."""
            candidates, origin = around(search, mean, std, c.candidates)
            if guided is not None:
                candidates[:, -guided.shape[1] :] = guided
                origin[:, -guided.shape[1] :] = POLICY
            if c.zero and drawn > 1:  # beside the mean, and no rollout's place
                candidates, origin = with_zero(candidates, origin, slot=min(c.candidates // 2, drawn - 1))
            return starts.put(candidates, origin, 0, mean, warm & (iteration == 0), PREVIOUS)

        def settle(mean: Tensor, std: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
            return mean, std.clamp(c.min_std, c.init_std)

        def weigh(score: Tensor) -> Tensor:
            return weights(score, c.temperature)

        fitted = refine(search, mean, std, c.iterations, c.elites, draw, settle, weigh)
        result = fitted.result(search, "best" if c.execute == "sample" else c.execute)
        if c.execute != "sample":
            return result
        chosen = draw_index(search, weigh(fitted.elite_score))[:, None]
        plan, plan_score = pick(fitted.elites, chosen)[:, 0], fitted.elite_score.gather(1, chosen)[:, 0]
        return replace(result, plan=plan, plan_score=plan_score)

    def guided(self, search: Search) -> Tensor | None:
        """Candidates `[E, P, H, A]` of the policy, drawn once per plan; None without a policy."""
        number = min(self.config.policy_candidates, self.config.candidates - 1)
        return rollouts(search, number)[0] if search.problem.policy is not None and number > 0 else None


def weights(score: Tensor, temperature: float) -> Tensor:
    """Weights `[E, K]` of scores `[E, K]`: 1 for the best, 0 for what is not finite.

    The maximum is subtracted, so no score overflows the exponential.
    """
    usable = score.isfinite()
    best = torch.where(usable, score, -torch.inf).amax(1, keepdim=True)
    return torch.where(usable, (temperature * (score - best)).exp(), 0.0)
