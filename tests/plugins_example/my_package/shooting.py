"""A planner written against `lightning_wm.protocols` alone: the best of N random plans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from lightning_wm.protocols import ORIGINS, Problem, State
from lightning_wm.registry import register


@dataclass(frozen=True)
class ShootingConfig:
    """How many plans are drawn, and how long they are."""

    name: str = "my_shooting"
    """The planner's name."""
    horizon: int = 6
    """H: steps of a plan."""
    candidates: int = 16
    """N: plans drawn for each decision."""
    replan: int = 1
    """Decisions that a plan serves."""

    def __post_init__(self) -> None:
        for name in ("horizon", "candidates", "replan"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")


@register("planner", "my_shooting")
class Shooting:
    """Draws uniform plans and starts the best one."""

    Config = ShootingConfig

    def __init__(self, config: ShootingConfig | None = None) -> None:
        self.config = config or ShootingConfig()

    def memory(self, environments: int, action: int, like: Tensor) -> TensorDict:
        """Nothing is remembered."""
        return TensorDict({"valid": torch.zeros(environments, dtype=torch.bool, device=like.device)}, [environments])

    @torch.no_grad()
    def plan(
        self, problem: Problem, state: State, memory: TensorDictBase | None, generators: Sequence[torch.Generator]
    ) -> TensorDict:
        """The best of N random plans for each environment."""
        E, N, H = len(generators), self.config.candidates, self.config.horizon
        like = next(iter(state.values()))
        drawn = torch.stack([torch.rand(N, H, problem.action, generator=one) for one in generators])
        actions = (2 * drawn - 1).to(like)  # E N H A
        score = self._score(problem, state, actions)  # E N
        best = score.argmax(1)
        plan = actions[torch.arange(E), best]  # E H A
        candidates = {"action": actions, "score": score, "origin": torch.full((E, N), ORIGINS.index("random"))}
        steps = torch.full((E,), N * H)
        stats = {
            "model_steps": steps,
            "sequential_calls": torch.full_like(steps, H),
            "score_first": score.amax(1),
            "score_best": score.amax(1),
            "fallback": torch.zeros(E, dtype=torch.bool),
        }
        return TensorDict(
            {
                "action": plan[:, 0],
                "actions": plan,
                "memory": self.memory(E, problem.action, like),
                "candidates": TensorDict(candidates, [E, N]),
                "stats": TensorDict(stats, [E]),
            },
            [E],
        )

    def _score(self, problem: Problem, state: State, actions: Tensor) -> Tensor:
        """Discounted sum of predicted rewards `[E, N]`; what is not finite is never chosen."""
        E, N, H, _ = actions.shape
        now = {name: value.repeat_interleave(N, 0) for name, value in state.items()}  # E*N ...
        total = actions.new_zeros(E * N)
        for step in range(H):
            now = problem.imagine(now, actions[:, :, step].flatten(0, 1), None)
            total = total + problem.discount**step * problem.reward(now)
        return total.view(E, N).nan_to_num(nan=-torch.inf, posinf=-torch.inf)
