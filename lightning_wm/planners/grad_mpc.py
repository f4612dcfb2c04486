"""Grad-MPC: gradient ascent on imagined action sequences (arXiv:2312.17227).

    a^j_{1:H} ~ N(0, std^2)                                   J candidates
    a^j <- a^j + step * grad_a score(s, a^j)                   I times
    execute the first action of argmax_j score

Deviations from the paper: a mean is executed, of the candidates on the peak that most are on (in the closed loop it
beats the best one, which chatters; docs/planners/grad_mpc.md has the numbers), L-BFGS steps instead of plain ones,
actions projected onto their bounds, the prior's mode instead of sampled latents, the shifted previous plan as one
candidate, and every candidate keeps the best it has seen.
"""

from __future__ import annotations

from typing import Literal

import torch
from tensordict import TensorDictBase
from torch import Tensor

from lightning_wm.config.fields import Count, Positive, Weight, settings
from lightning_wm.planning import starts
from lightning_wm.planning.ascent import Ascent, ascend
from lightning_wm.planning.base import PREVIOUS, RANDOM, BasePlanner, SearchResult
from lightning_wm.planning.compiled import compiled_score
from lightning_wm.planning.gaussian import with_zero
from lightning_wm.planning.search import Score, Search
from lightning_wm.planning.selection import choose
from lightning_wm.planning.settings import PlannerConfig
from lightning_wm.registry import register


@settings("planner")
class GradMPCConfig(Ascent, PlannerConfig):
    """Gradient ascent on action sequences."""

    name: str = "grad_mpc"
    execute: Literal["best", "mean", "basin", "vote", "sample"] = "vote"
    iterations: Count = 14
    step_size: Positive = 0.5
    optimiser: Literal["adam", "sgd", "lbfgs"] = "lbfgs"
    momentum: Weight = 0.9
    bound: Literal["tanh", "clip"] = "clip"
    candidates: Count = 12
    """N: action sequences that are improved side by side."""
    elites: Count | None = None
    """Best candidates that `execute: mean` averages, `basin` and `vote` choose among and `sample` draws from; null: a
    third of the candidates, for `basin` and `vote` all."""
    warm_start: bool = True
    """Start one candidate from the previous plan, moved on in time."""
    zero: bool = False
    """Start one candidate from zero actions."""
    init_std: Positive = 0.5
    """Standard deviation of the starts, before the bound."""
    colour: Weight = 0.0
    """Exponent b of the starts' spectrum 1/f^b: 0 white, 1 pink, 2 red (smooth)."""
    compile: bool = False
    """Compile score and gradient with torch.compile: half a minute once per shape, seconds where it is in the cache."""


@register("planner", "grad_mpc")
class GradMPC(BasePlanner):
    """Grad-MPC, Sec. 3.1 of arXiv:2312.17227; `GradMPCConfig` has its settings."""

    Config = GradMPCConfig
    config: GradMPCConfig
    differentiates = True

    def scorer(self) -> Score:
        """The objective, compiled where the settings say so."""
        return compiled_score if self.config.compile else super().scorer()

    def starts(self, search: Search, memory: TensorDictBase | None) -> tuple[Tensor, Tensor]:
        """Candidates `[E, N, H, A]` before the first step and their origins `[E, N]`."""
        c, action = self.config, search.problem.action
        drawn = starts.noise(c.candidates, c.horizon, action, search.generators, search.like, c.colour)
        candidates = c.actions(c.init_std * drawn)
        origin = torch.full(candidates.shape[:2], RANDOM, device=candidates.device)
        previous, valid = starts.valid_rows(memory, "actions", candidates[:, 0])
        candidates, origin = starts.put(candidates, origin, 0, previous, valid, PREVIOUS)
        if c.zero:
            candidates, origin = with_zero(candidates, origin, slot=-1)
        return candidates, origin

    def search(self, search: Search, memory: TensorDictBase | None) -> SearchResult:
        """Draw candidates, climb, choose."""
        c = self.config
        candidates, origin = self.starts(search, memory)
        candidates, score, first = ascend(search, candidates, c)
        plan, plan_score = choose(search, candidates, score, c.execute, c.elites)
        return SearchResult(candidates, score, origin, plan, plan_score, first.amax(1), {"actions": plan})
