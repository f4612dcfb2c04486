"""Policy+Grad-MPC: gradient ascent on imagined plans that start from a learned policy (arXiv:2312.17227, Sec. 3.2).

    a^j_{1:H} = policy's rollout in imagination | previous plan, moved on | N(0, std^2)      by the shares of `mix`
    a^j <- a^j + step * grad_a [score(s, a^j) + discount^H value(s_H)]                       I times
    execute the first action of the mean of the best third, or the policy's where that mean is worth no more

Deviations: docs/planners/policy_grad_mpc.md lists them; `planner=dream_mpc` is Dream-MPC (arXiv:2605.04568) as settings
of this planner.
"""

from __future__ import annotations

from dataclasses import field
from typing import Literal

import torch
from tensordict import TensorDictBase
from torch import Tensor

from lightning_wm.config.fields import Count, Natural, Positive, Share, Weight, settings
from lightning_wm.planning import starts
from lightning_wm.planning.ascent import Ascent, ascend
from lightning_wm.planning.base import POLICY, PREVIOUS, RANDOM, BasePlanner, SearchResult
from lightning_wm.planning.mix import Mix
from lightning_wm.planning.objective import Objective
from lightning_wm.planning.policy_rollouts import rollouts
from lightning_wm.planning.search import Search
from lightning_wm.planning.selection import choose, gaining
from lightning_wm.planning.settings import PlannerConfig
from lightning_wm.registry import register


@settings("planner")
class PolicyGradMPCConfig(Ascent, PlannerConfig):
    """Gradient ascent on plans that start from a policy."""

    name: str = "policy_grad_mpc"
    horizon: Count = 12
    """H: agent steps that are imagined; the value stands for what follows."""
    execute: Literal["best", "mean", "basin", "vote", "sample"] = "mean"
    objective: Objective = field(default_factory=lambda: Objective(terminal_value=True))
    iterations: Count = 5
    step_size: Positive = 0.1
    decay: Positive = 0.1
    """The last step's size as a share of the first's: a good start bears small steps only."""
    optimiser: Literal["adam", "sgd", "lbfgs"] = "sgd"
    bound: Literal["tanh", "clip"] = "clip"
    normalise: bool = True
    """Divide each candidate's gradient by its root mean square: `step_size` is then what an action moves by."""
    candidates: Count = 8
    """N: action sequences that are improved side by side."""
    mix: Mix = field(default_factory=Mix)
    """Where the candidates come from."""
    elites: Count | None = None
    """Best candidates that `execute: mean` averages, `basin` and `vote` choose among and `sample` draws from; null: a
    third of the candidates, for `basin` and `vote` all."""
    warm_start: bool = True
    """Use the previous plan; without it, the candidates of `mix.previous` are random."""
    reuse: Share = 0.0
    """Share of the previous plan in every start from the policy (Dream-MPC's rho); 0 leaves the policy's."""
    policy_std: Weight = 0.0
    """Standard deviation of noise added to the policy's candidates, the first one excepted."""
    policy_draws: Natural = 16
    """Draws of the latents over which a plan has to be worth more than the first candidate, the policy's own rollout
    (with `reuse`, drawn towards the previous plan), which is executed where it is not; 0 does not ask."""
    init_std: Positive = 0.5
    """Standard deviation of the random candidates, before the bound."""
    colour: Weight = 0.0
    """Exponent b of the random candidates' spectrum 1/f^b: 0 white, 1 pink, 2 red (smooth)."""


@register("planner", "policy_grad_mpc")
class PolicyGradMPC(BasePlanner):
    """Policy+Grad-MPC, Sec. 3.2 of arXiv:2312.17227; `PolicyGradMPCConfig` has its settings."""

    Config = PolicyGradMPCConfig
    config: PolicyGradMPCConfig
    differentiates = True
    needs_policy = True

    def __init__(self, config: PolicyGradMPCConfig | None = None) -> None:
        super().__init__(config)
        self.needs_policy = self.config.mix.policy > 0

    def search(self, search: Search, memory: TensorDictBase | None) -> SearchResult:
        """Draw candidates, climb, choose."""
        c = self.config
        begun, origin = self.starts(search, memory)
        candidates, score, first = self.climb(search, begun)
        plan, plan_score = choose(search, candidates, score, c.execute, c.elites)
        by_policy = None
        if c.policy_draws and c.mix.policy:
            plan, plan_score, by_policy = gaining(search, plan, plan_score, begun[:, 0], first[:, 0], c.policy_draws)
        return SearchResult(candidates, score, origin, plan, plan_score, first.amax(1), {"actions": plan}, by_policy)

    def starts(self, search: Search, memory: TensorDictBase | None) -> tuple[Tensor, Tensor]:
        """Candidates `[E, N, H, A]` before the first step and their origins `[E, N]`: the policy's come first."""
        c = self.config
        guided, remembered, drawn = c.mix.counts(c.candidates)
        zeros = search.like.new_zeros(search.environments, c.horizon, search.problem.action)
        previous, warm = starts.valid_rows(memory, "actions", zeros)
        parts: list[Tensor] = []
        origin = torch.full((search.environments, c.candidates), RANDOM, device=zeros.device)
        origin[:, :guided] = POLICY
        origin[:, guided : guided + remembered] = torch.where(warm, PREVIOUS, RANDOM)[:, None]
        if guided:
            parts.append(self.guided(search, guided, previous, warm))
        if remembered + drawn:
            parts.append(self.drawn(search, remembered, drawn, previous, warm))
        return torch.cat(parts, 1), origin

    def guided(self, search: Search, number: int, previous: Tensor, warm: Tensor) -> Tensor:
        """Rollouts of the policy `[E, P, H, A]`, the first its mode's, drawn towards the previous plan by `reuse`."""
        c = self.config
        plans, _ = rollouts(search, number)
        if c.policy_std and number > 1:
            noise = starts.noise(number - 1, c.horizon, search.problem.action, search.generators, search.like)
            plans = torch.cat([plans[:, :1], plans[:, 1:] + c.policy_std * noise], 1)
        if c.reuse:
            share = warm.to(plans)[:, None, None, None] * c.reuse
            planned = torch.arange(c.horizon, device=plans.device) < c.horizon - c.replan  # what follows was never
            plans = plans.lerp(previous[:, None].expand_as(plans), share * planned[:, None])
        return plans.clamp(-1, 1)

    def drawn(self, search: Search, remembered: int, number: int, previous: Tensor, warm: Tensor) -> Tensor:
        """Noise around the previous plan, then around zero `[E, R + N, H, A]`; the first is the previous plan itself.

        Rows without a previous plan have noise around zero in all of them.
        """
        c, total = self.config, remembered + number
        noise = starts.noise(total, c.horizon, search.problem.action, search.generators, search.like, c.colour)
        plans = c.init_std * noise
        plans[:, :remembered] += previous[:, None]  # zeros in rows that are not warm
        if remembered:
            plans[:, 0] = torch.where(warm[:, None, None], previous, plans[:, 0])
        return plans.clamp(-1, 1)

    def climb(self, search: Search, begun: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Improved candidates `[E, N, H, A]`, their scores and those of their starts `[E, N]`; no candidate ends worse.

        Under `tanh` the ascent moves actions at the bound a little inwards, so the starts are scored as they are too.
        """
        c = self.config
        candidates, score, first = ascend(search, begun, c)
        if c.bound == "clip":
            return candidates, score, first
        first = search.score(begun)
        kept = first >= score
        return torch.where(kept[:, :, None, None], begun, candidates), torch.where(kept, first, score), first
