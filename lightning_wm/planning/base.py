"""What planners share: the mode they run in, memory, the fallback, the plan they hand out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from lightning_wm.errors import UserError
from lightning_wm.models.ambient import settled
from lightning_wm.planning import starts
from lightning_wm.planning.objective import score
from lightning_wm.planning.policy_rollouts import mode
from lightning_wm.planning.problem import no_policy
from lightning_wm.planning.search import Observer, Score, Search, check_differentiable
from lightning_wm.planning.settings import PlannerConfig, WarmStarted
from lightning_wm.protocols import ORIGINS, PlannerSettings, Problem, State

RANDOM, PREVIOUS, POLICY, ZERO, FITTED = range(len(ORIGINS))


@dataclass(frozen=True)
class SearchResult:
    """What a search ends with, before it becomes a plan."""

    candidates: Tensor
    """`[E, N, H, A]` in [-1, 1]."""
    score: Tensor
    """`[E, N]`, -inf where not finite."""
    origin: Tensor
    """`[E, N]`, indices into `ORIGINS`."""
    plan: Tensor
    """`[E, H, A]`, what is executed, in [-1, 1]."""
    plan_score: Tensor
    """`[E]`, the score of `plan`; -inf where no score is finite."""
    first: Tensor
    """`[E]`, the best score before anything was improved."""
    memory: dict[str, Tensor]
    """What the next plan starts from, `[E, ..., H, A]`, not yet shifted; names as in `slots`."""
    by_policy: Tensor | None = None
    """`[E]`, whether `plan` is the policy's own; None where none is."""


class BasePlanner:
    """A planner as its `search`; see `protocols.Planner` for what `plan` takes and returns."""

    Config: ClassVar[type[Any]]
    config: PlannerSettings
    differentiates = False
    """Whether the search takes gradients through the model."""
    needs_policy = False
    """Whether the search starts from a policy and cannot do without."""
    trace: Observer | None = None
    """Looks on while the planner searches; see `lightning_wm.inspection`."""

    def __init__(self, config: PlannerSettings | None = None) -> None:
        self.config = type(self).Config() if config is None else config
        self._warned = False
        self._checked: Problem | None = None

    def search(self, search: Search, memory: TensorDictBase | None) -> SearchResult:
        """Look for good plans; runs without gradients and outside inference mode."""
        raise NotImplementedError(f"{type(self).__name__}.search: write the planner here")

    def slots(self, action: int) -> dict[str, tuple[int, ...]]:
        """Shapes `(..., H, A)` of what is remembered from one plan to the next."""
        return {"actions": (self.config.horizon, action)}

    def scorer(self) -> Score:
        """The function that scores plans, `objective.score` or a compiled form of it."""
        return score

    def memory(self, environments: int, action: int, like: Tensor) -> TensorDict:
        """An empty warm start of batch `[E]`: zeros, and `valid` False."""
        empty = {name: like.new_zeros(environments, *shape) for name, shape in self.slots(action).items()}
        valid = torch.zeros(environments, dtype=torch.bool, device=like.device)
        return TensorDict({**empty, "valid": valid}, [environments])

    def plan(
        self, problem: Problem, state: State, memory: TensorDictBase | None, generators: Sequence[torch.Generator]
    ) -> TensorDict:
        """Plan for E environments; works in every gradient mode and leaves the model's gradients alone."""
        with settled(), torch.no_grad():
            own = {name: value.clone() for name, value in state.items()}
            self._check(problem, own)
            settings = self.config
            latents = settings.latents if isinstance(settings, PlannerConfig) else "mean"
            search = Search(problem, own, generators, settings.horizon, latents, self.scorer(), self.trace)
            warm = isinstance(settings, WarmStarted) and settings.warm_start
            return self._plan(search, self.search(search, memory.clone() if memory is not None and warm else None))

    def _check(self, problem: Problem, state: State) -> None:
        """Once per problem: a penalty's gradient, or that of `continues`, would hide that the reward has none."""
        if self.needs_policy and problem.policy is None:
            raise UserError(no_policy(self, "the problem has none"))
        if self.differentiates and problem is not self._checked and (problem.terms or problem.continues):
            check_differentiable(problem, state)
        self._checked = problem

    def _plan(self, search: Search, result: SearchResult) -> TensorDict:
        batch = [search.environments]
        failed = result.plan_score == -torch.inf  # E
        plan = torch.where(failed[:, None, None], self._fallback(search, failed), result.plan)
        count = torch.ones_like(failed, dtype=torch.int64)
        by_policy = torch.zeros_like(failed) if result.by_policy is None else result.by_policy
        stats = {
            "model_steps": count * search.model_steps,
            "sequential_calls": count * search.sequential_calls,
            "score_first": result.first,
            "score_best": result.plan_score,
            "fallback": failed,
            "by_policy": torch.where(failed, search.problem.policy is not None, by_policy),
        }
        remembered = {name: starts.shift(value, self.config.replan) for name, value in result.memory.items()}
        candidates = {"action": result.candidates, "score": result.score, "origin": result.origin}
        return TensorDict(
            {
                "action": plan[:, 0],
                "actions": plan,
                "memory": TensorDict({**remembered, "valid": ~failed}, batch),
                "candidates": TensorDict(candidates, list(result.score.shape)),
                "stats": TensorDict(stats, batch),
            },
            batch,
        )

    def _fallback(self, search: Search, failed: Tensor) -> Tensor:
        """`[E, H, A]`: the policy's action first where there is a policy, zeros otherwise."""
        plan = search.like.new_zeros(search.environments, search.horizon, search.problem.action)
        if not failed.any():
            return plan
        policy = search.problem.policy
        if policy is not None:
            action = mode(policy(search.state))
            plan[:, 0] = torch.where(action.isfinite(), action, 0.0).clamp(-1, 1)
        if not self._warned:
            self._warned = True
            what = "zero actions" if policy is None else "the policy"
            warnings.warn(
                f"{self.config.name}: no candidate's score is finite in {int(failed.sum())} of {len(failed)} "
                f"environments; acting by {what} there. The model's predictions are NaN or infinite: "
                "look at its losses. Said once; stats.fallback counts on.",
                RuntimeWarning,
                stacklevel=4,
            )
        return plan
