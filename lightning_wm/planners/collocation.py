"""Collocation: states and actions are optimised together, the dynamics are a soft constraint.

    maximise over s, a   score(s, a) - penalty * sum_k |f(stop(s_k), a_k) - s_{k+1}|^2       all steps at once
    s <- s + noise, where the model moves s at all;  every few iterations the actions climb their real rollout, and
    s is set to it

After GRASP (arXiv:2602.00475: the stopped gradient, the noise on states, the synchronisation) and LatCo
(arXiv:2106.13229: rewards of latent states instead of a goal). Deviations: candidates side by side; Adam on states and
actions; a constant penalty where LatCo adapts a multiplier; every candidate is judged by its rollout only, and the best
one that was ever judged is kept.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from tensordict import TensorDictBase
from torch import Tensor

from lightning_wm import rng
from lightning_wm.config.fields import Count, Positive, Weight, settings
from lightning_wm.errors import UserError
from lightning_wm.planning import starts
from lightning_wm.planning.ascent import Adam, Ascent, ascend
from lightning_wm.planning.base import PREVIOUS, RANDOM, BasePlanner, SearchResult
from lightning_wm.planning.objective import score
from lightning_wm.planning.search import Search
from lightning_wm.planning.selection import choose
from lightning_wm.planning.settings import PlannerConfig
from lightning_wm.protocols import State
from lightning_wm.registry import register


@settings("planner")
class CollocationConfig(PlannerConfig):
    """States and actions optimised together."""

    name: str = "collocation"
    iterations: Count = 20
    """Steps on states and actions together; each is one call of the model for all steps of all candidates."""
    candidates: Count = 8
    """N: trajectories that are improved side by side."""
    elites: Count = 3
    """Best candidates that `execute: mean` averages and `sample` draws from."""
    warm_start: bool = True
    """Start one candidate from the previous plan, moved on in time."""
    init_std: Positive = 0.5
    """Standard deviation of the starts, before the bound."""
    synchronise: Count = 10
    """Iterations after which states are set to the rollout of the actions."""
    climbs: Count = 5
    """Gradient steps through that rollout before."""
    step_size: Positive = 0.1
    """Of the actions' steps (Adam), before the bound."""
    state_step: Positive = 0.05
    """Of the states' steps (Adam)."""
    state_noise: Weight = 0.05
    """Standard deviation of the noise on the states before the first iteration; it falls by equal steps to 0 after the
    last, which adds none."""
    penalty: Weight = 1.0
    """Weight of the squared distance between a state and what the model makes of the one before."""
    through_states: bool = False
    """Take the penalty's gradient through the state that the model is called with too, as LatCo does."""
    bound: Literal["tanh", "clip"] = "tanh"
    """How actions stay in [-1, 1]: `tanh` or `clip` (projection)."""


@register("planner", "collocation")
class Collocation(BasePlanner):
    """Collocation in latent space; `CollocationConfig` has its settings."""

    Config = CollocationConfig
    config: CollocationConfig
    differentiates = True

    def search(self, search: Search, memory: TensorDictBase | None) -> SearchResult:
        """Relax, synchronise, again; choose among what was judged by rollouts."""
        c, how = self.config, Ascent(self.config.climbs, self.config.step_size, bound=self.config.bound)
        drawn = starts.noise(c.candidates, c.horizon, search.problem.action, search.generators, search.like)
        current = how.actions(c.init_std * drawn)
        origin = torch.full(current.shape[:2], RANDOM, device=current.device)
        previous, valid = starts.valid_rows(memory, "actions", current[:, 0])
        current, origin = starts.put(current, origin, 0, previous, valid, PREVIOUS)
        current, best_score, first = ascend(search, current, how)
        best = current
        for begin in range(0, c.iterations, c.synchronise):
            relaxed = self._relax(search, current, how, range(begin, min(begin + c.synchronise, c.iterations)))
            current, current_score, _ = ascend(search, relaxed, how)
            better = current_score > best_score
            best = torch.where(better[:, :, None, None], current, best)
            best_score = torch.where(better, current_score, best_score)
        plan, plan_score = choose(search, best, best_score, c.execute, min(c.elites, c.candidates))
        return SearchResult(best, best_score, origin, plan, plan_score, first.amax(1), {"actions": plan})

    def _relax(self, search: Search, actions: Tensor, how: Ascent, iterations: range) -> Tensor:
        """Actions `[E, N, H, A]` after steps on states and actions together, from the actions' rollout on."""
        c, rollout = self.config, search.unroll(actions)
        if more := rollout.keys() - search.state.keys():
            answers = ", ".join(sorted(more))
            raise UserError(f"collocation moves states, and {answers} would be moved as one; type planner=grad_mpc")
        fixed = {name: value for name, value in rollout.items() if not value.is_floating_point()}
        names = [name for name in rollout if name not in fixed]
        moving = [_moving(rollout[name], search.state[name]) for name in names]
        values = [how.free(actions), *(rollout[name] for name in names)]
        optimisers, sizes = [Adam(value) for value in values], [c.step_size, *[c.state_step] * len(names)]
        for iteration in iterations:
            with torch.enable_grad():
                leaves = [value.detach().requires_grad_() for value in values]
                states = {**fixed, **dict(zip(names, leaves[1:], strict=True))}
                gradients: tuple[Tensor | None, ...] = torch.autograd.grad(
                    self._relaxed(search, how.actions(leaves[0]), states).sum(), leaves, allow_unused=True
                )
            left = 1 - (iteration + 1) / c.iterations
            for index, gradient in enumerate(gradients):
                if gradient is None:
                    continue
                step = optimisers[index].step(torch.where(gradient.isfinite(), gradient, 0.0))
                moved = values[index] + sizes[index] * step
                if index and c.state_noise:
                    moved = moved + c.state_noise * left * _noise(moved, search)
                values[index] = torch.where(moving[index - 1], moved, values[index]) if index else moved
            values[0] = how.project(values[0])
        return how.actions(values[0])

    def _relaxed(self, search: Search, actions: Tensor, states: State) -> Tensor:
        """The objective of states `[H, E*N, ...]` less the penalty of what the model says about them, `[E*N]`."""
        plans = actions.flatten(0, 1)  # E*N, H, A
        state, noise = search.rows(actions.shape[1])
        given = replace(search.problem, unroll=lambda *_: states)
        before = {name: torch.cat([value[None], states[name][:-1]]) for name, value in state.items()}
        if not self.config.through_states:
            before = {name: value.detach() for name, value in before.items()}
        flat = {name: value.flatten(0, 1) for name, value in before.items()}
        ahead = plans.transpose(0, 1).flatten(0, 1)  # H*E*N, A
        after = search.imagine(flat, ahead, None if noise is None else noise.flatten(0, 1))
        apart = torch.zeros_like(plans[:, 0, 0])
        for name, value in states.items():
            if value.is_floating_point():
                gap = after[name].view_as(value) - value
                apart = apart + gap.square().transpose(0, 1).flatten(1).sum(1)
        return score(given, state, plans, noise) - self.config.penalty * apart


def _moving(states: Tensor, start: Tensor) -> Tensor:
    """Which entries of imagined states `[H, E*N, ...]` ever leave their start `[E, ...]`: bool, `[E*N, ...]`.

    A goal or a mass that a state carries stays what it is: it is neither optimised nor disturbed.
    """
    environments = len(start)
    apart = states.unflatten(1, (environments, -1)) != start[:, None]  # H, E, N, ...
    moving: Tensor = apart.any(2).any(0).repeat_interleave(states.shape[1] // environments, 0)
    return moving


def _noise(states: Tensor, search: Search) -> Tensor:
    """Standard normal noise `[H, E*N, ...]`, every environment's from its own generator."""
    horizon, rows = states.shape[:2]
    number = rows // search.environments
    drawn = rng.normal((horizon, number, *states.shape[2:]), search.generators, states)  # E, H, N, ...
    return drawn.transpose(0, 1).flatten(1, 2)
