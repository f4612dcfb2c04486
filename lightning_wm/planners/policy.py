"""The learned policy acts by itself: no search, and no model step."""

from __future__ import annotations

from typing import Literal

import torch
from tensordict import TensorDictBase

from lightning_wm.config.fields import Count, settings
from lightning_wm.planning.base import POLICY, BasePlanner, SearchResult
from lightning_wm.planning.policy_rollouts import rollouts
from lightning_wm.planning.search import Search
from lightning_wm.planning.settings import check_replan
from lightning_wm.registry import register


@settings("planner")
class PolicyOnlyConfig:
    """The learned policy, without planning."""

    name: str = "policy"
    """The planner's name."""
    horizon: Count = 1
    """H: actions that are taken from the policy at once; beyond the first, in imagined states."""
    execute: Literal["mean", "sample"] = "mean"
    """`mean`, what the policy does without noise (its mode), or a `sample` of it."""
    replan: Count = 1
    """Decisions that a plan serves; 1 asks the policy at every decision."""

    def __post_init__(self) -> None:
        """Refuse plans that are too short."""
        check_replan(self.horizon, self.replan)


@register("planner", "policy")
class PolicyOnly(BasePlanner):
    """The policy's own action; with a horizon of one the model is never called, and scores are 0."""

    Config = PolicyOnlyConfig
    config: PolicyOnlyConfig
    needs_policy = True

    def search(self, search: Search, memory: TensorDictBase | None) -> SearchResult:
        """One rollout of the policy; -inf where its answer to the present state is not finite."""
        plans, finite = rollouts(search, 1, modes=int(self.config.execute == "mean"))  # E, 1, H, A
        score = torch.where(finite, 0.0, -torch.inf).to(plans)  # E, 1
        origin = torch.full(score.shape, POLICY, device=score.device)
        plan, plan_score = plans[:, 0], score[:, 0]
        by_policy = torch.ones_like(plan_score, dtype=torch.bool)
        return SearchResult(plans, score, origin, plan, plan_score, plan_score, {"actions": plan}, by_policy)
