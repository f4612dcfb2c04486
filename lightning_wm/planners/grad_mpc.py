"""Grad-MPC: gradient ascent on imagined action sequences (arXiv:2312.17227).

    a^j_{1:H} ~ N(0, std^2)                                   J candidates
    a^j <- a^j + step * grad_a score(s, a^j)                   I times
    execute the first action of argmax_j score

Deviations from the paper: the mean of the best third of the candidates is executed (in the closed loop it beats the
best one, which chatters; docs/learning.md has the numbers), Adam instead of plain steps, tanh-bounded actions, the
prior's mode instead of sampled latents, the shifted previous plan as one candidate, and every candidate keeps the best
it has seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from tensordict import TensorDictBase
from torch import Tensor

from lightning_wm.planners import starts
from lightning_wm.planners.ascent import BOUNDS, OPTIMISERS, Ascent, ascend
from lightning_wm.planners.base import PREVIOUS, RANDOM, ZERO, BasePlanner, Found, valid_rows
from lightning_wm.planners.checks import check_choice, check_positive, check_range, check_shared
from lightning_wm.planners.choose import EXECUTE, choose, third
from lightning_wm.planners.compiled import CompiledScore
from lightning_wm.planners.objective import Objective
from lightning_wm.planners.search import Score, Search
from lightning_wm.protocols import Problem
from lightning_wm.registry import register


@dataclass(frozen=True)
class GradMPCConfig:
    """Gradient ascent on action sequences."""

    name: str = "grad_mpc"
    """The planner's name."""
    horizon: int = 12
    """H: agent steps that are imagined (PlaNet's 12, arXiv:1811.04551 App. A)."""
    iterations: int = 15
    """Gradient steps."""
    candidates: int = 8
    """N: action sequences that are improved side by side."""
    elites: int | None = None
    """Best candidates that `execute: mean` averages and `sample` draws from; null: a third of the candidates."""
    execute: str = "mean"
    """`best` candidate, `mean` of the elites or `sample`, one of the elites."""
    replan: int = 1
    """Decisions that a plan serves; 1 plans at every decision."""
    warm_start: bool = True
    """Start one candidate from the previous plan, moved on in time."""
    zero: bool = False
    """Start one candidate from zero actions."""
    latents: str = "mean"
    """`mean` imagines the prior's mode; `sample` its noise, drawn once per plan."""
    init_std: float = 0.5
    """Standard deviation of the starts, before the bound."""
    colour: float = 0.0
    """Exponent b of the starts' spectrum 1/f^b: 0 white, 1 pink, 2 red (smooth)."""
    step_size: float = 0.3
    """Of the first gradient step."""
    decay: float = 1.0
    """The last step's size as a share of the first's."""
    optimiser: str = "adam"
    """`adam` or `sgd`."""
    momentum: float = 0.9
    """Of `sgd`."""
    bound: str = "tanh"
    """How actions stay in [-1, 1]: `tanh` or `clip` (projection)."""
    normalise: bool = False
    """Divide each candidate's gradient by its root mean square."""
    clip_norm: float = 0.0
    """Largest norm of a candidate's gradient; 0 leaves it."""
    noise: float = 0.0
    """Standard deviation of noise added to what is optimised after each step, before the bound."""
    patience: int = 0
    """Steps without a new best after which an environment's plan is final; 0 takes all iterations."""
    compile: bool = False
    """Compile the score's gradient with torch.compile: minutes once per shape, seconds where it is in the cache."""
    objective: Objective = field(default_factory=Objective)
    """What a plan is judged by."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        check_shared(self)
        check_choice("execute", self.execute, EXECUTE)
        check_choice("latents", self.latents, ("mean", "sample"))
        check_choice("optimiser", self.optimiser, OPTIMISERS)
        check_choice("bound", self.bound, BOUNDS)
        check_positive(self, "init_std", "step_size", "decay")
        check_range(self, colour=0, momentum=0, clip_norm=0, noise=0, patience=0)


@register("planner", "grad_mpc")
class GradMPC(BasePlanner):
    """Grad-MPC, Sec. 3.1 of arXiv:2312.17227; `GradMPCConfig` has its settings."""

    Config = GradMPCConfig
    config: GradMPCConfig
    differentiates = True

    def __init__(self, config: GradMPCConfig | None = None) -> None:
        super().__init__(config)
        self._score = CompiledScore() if self.config.compile else None

    def scorer(self, problem: Problem) -> Score:
        """The objective, compiled where that is asked for."""
        return super().scorer(problem) if self._score is None else self._score

    def ascent(self) -> Ascent:
        """The settings of the gradient steps."""
        c = self.config
        return Ascent(
            c.iterations, c.step_size, c.decay, c.optimiser, c.momentum, c.bound, c.normalise, c.clip_norm,
            c.noise, c.patience,
        )  # fmt: skip

    def starts(self, search: Search, memory: TensorDictBase | None) -> tuple[Tensor, Tensor]:
        """Candidates `[E, N, H, A]` before the first step and their origins `[E, N]`."""
        c, action = self.config, search.problem.action
        drawn = starts.noise(c.candidates, c.horizon, action, search.generators, search.like, c.colour)
        candidates = self.ascent().actions(c.init_std * drawn)
        origin = torch.full(candidates.shape[:2], RANDOM, device=candidates.device)
        previous, valid = valid_rows(memory, "actions", candidates[:, 0])
        candidates, origin = starts.put(candidates, origin, 0, previous, valid, PREVIOUS)
        if c.zero:
            everywhere = torch.ones_like(valid)
            candidates, origin = starts.put(candidates, origin, -1, torch.zeros_like(previous), everywhere, ZERO)
        return candidates, origin

    def search(self, search: Search, memory: TensorDictBase | None) -> Found:
        """Draw candidates, climb, choose."""
        c = self.config
        candidates, origin = self.starts(search, memory)
        candidates, score, first = ascend(search, candidates, self.ascent())
        plan, plan_score = choose(search, candidates, score, c.execute, c.elites or third(c.candidates))
        return Found(candidates, score, origin, plan, plan_score, first.amax(1), {"actions": plan})
