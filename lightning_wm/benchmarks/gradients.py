"""How far a model's gradient of the return points where the simulator's does, by horizon.

At decisions of real episodes, for a plan near what the planner executes there:

    g_k = d/da sum_{i<=k} r_i  of the first k actions: by autograd through the model, and by central differences of the
    simulator's own rewards, from the very state that it is in

Their cosine says what a step of gradient ascent is worth in the world that it is for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_wm import rng
from lightning_wm.benchmarks.returns import planner_of
from lightning_wm.config.schema import EPISODE, TaskConfig
from lightning_wm.console.meter import Meter
from lightning_wm.envs import most_decisions
from lightning_wm.envs.actions import scaled
from lightning_wm.envs.simulator import Rewinds, Simulator
from lightning_wm.errors import UserError
from lightning_wm.inspection.decision import Decision, decisions
from lightning_wm.planning.objective import score
from lightning_wm.registry import build
from lightning_wm.runs.loading import LoadedRun

HORIZONS = (1, 2, 3, 6, 12, 24)
"""Those up to the planner's are measured."""
DIFFERENCE = 0.05
"""Of an action, to either side."""
AROUND = 0.3
"""Standard deviation of the noise that is added to the executed plan: where candidates are while they climb."""
DECISIONS = 8
"""Looked at in each episode, evenly spaced."""


@dataclass(frozen=True)
class Compared:
    """Both sides at one decision, for one horizon."""

    horizon: int
    cosine: float
    """Of the two gradients, over all k actions; nan where one of them is zero."""
    ratio: float
    """Length of the model's gradient over the simulator's; nan where that is zero."""
    predicted: float
    """Sum of rewards under the model."""
    real: float
    """Sum of the simulator's."""


class Branch:
    """Futures of a simulator, played from one state as often as wanted; `close` leaves it as it was found.

    Args:
        simulator: stands at a decision.
        task: for the action repeat.
    """

    def __init__(self, simulator: Simulator, task: TaskConfig) -> None:
        if not isinstance(simulator, Rewinds):
            raise UserError(
                f"task {task.name}: {type(simulator).__name__} cannot be put back into a state; expected a task of "
                "dm_control, or a simulator with state() and restore(state)"
            )
        self._simulator: Any = simulator
        self._repeat, self._begun = task.action_repeat, simulator.state()

    def rewards(self, actions: Tensor) -> NDArray[np.float64]:
        """Of each action `[H]` of a plan `[H, A]` in [-1, 1]; 0 after the episode's end."""
        self._simulator.restore(self._begun)
        earned = np.zeros(len(actions))
        low, high = self._simulator.low, self._simulator.high
        for step, action in enumerate(actions):
            control = scaled(action[None], low, high, np.ones(1, bool))[0]
            for _ in range(self._repeat):
                reward, terminated, truncated = self._simulator.step(control)
                earned[step] += reward
                if terminated or truncated:
                    return earned
        return earned

    def close(self) -> None:
        """Put the simulator back."""
        self._simulator.restore(self._begun)

    def differences(self, actions: Tensor) -> NDArray[np.float64]:
        """Central differences `[H, A, H]` of every reward with respect to every action of a plan `[H, A]`."""
        slopes = np.zeros((*actions.shape, len(actions)))
        for index in np.ndindex(*actions.shape):
            sides = [actions.clone() for _ in range(2)]
            sides[0][index] += DIFFERENCE
            sides[1][index] -= DIFFERENCE
            up, down = map(self.rewards, sides)
            slopes[index] = (up - down) / (2 * DIFFERENCE)
        return slopes


def compare(loaded: LoadedRun, written: str, episodes: int, seed: int, meter: Meter | None = None) -> list[Compared]:
    """Both gradients at decisions of whole episodes.

    Args:
        loaded: a run with a world model.
        written: the planner that plays, as `bench planner` takes it.
        episodes: how many.
        seed: of the first episode; the others follow it.
        meter: shows how far it is.

    Raises:
        UserError: the planner plans nothing, or the simulator cannot be put back.
    """
    config = planner_of(loaded, written)
    found: list[Compared] = []
    with closing(loaded.environments(1)) as env:
        length = most_decisions(env, 1) or EPISODE // loaded.config.task.action_repeat
        numbers = np.linspace(0, length - 1 - config.horizon, DECISIONS).astype(int)
        if meter is not None:
            meter.begin("gradients", episodes, episodes * len(numbers))
        for episode in range(seed, seed + episodes):
            actor = loaded.agent.actor(build("planner", config), seed=episode)
            for decision in decisions(env, actor, episode, {int(number) for number in numbers}):
                with closing(Branch(env.simulators[0], loaded.config.task)) as branch:
                    found += _at(decision, branch)
                if meter is not None:
                    meter.decided()
            if meter is not None:
                meter.played(episode - seed + 1)
    return found


def _at(decision: Decision, branch: Branch) -> Iterator[Compared]:
    """The horizons of one decision."""
    draw = rng.generator(decision.seed, "planner", 0, decision.number, 2)
    noise = torch.randn(decision.plan.shape, generator=draw).to(decision.plan)
    actions = (decision.plan + AROUND * noise).clamp(-1 + DIFFERENCE, 1 - DIFFERENCE).cpu().double()
    rewards, slopes = branch.rewards(actions), branch.differences(actions)
    for horizon in (k for k in HORIZONS if k <= len(actions)):
        predicted, model = _imagined(decision, actions[:horizon])
        real = slopes[:horizon, :, :horizon].sum(-1)
        lengths = np.linalg.norm(model), np.linalg.norm(real)
        cosine = float((model * real).sum() / (lengths[0] * lengths[1])) if all(lengths) else float("nan")
        ratio = float(lengths[0] / lengths[1]) if lengths[1] else float("nan")
        yield Compared(horizon, cosine, ratio, predicted, float(rewards[:horizon].sum()))


def _imagined(decision: Decision, actions: Tensor) -> tuple[float, NDArray[np.float64]]:
    """The model's sum of rewards for actions `[k, A]`, and its gradient `[k, A]`."""
    problem = replace(decision.search.problem, terms=(), continues=None, discount=1.0)
    with torch.enable_grad():
        leaf = actions.to(decision.plan)[None].requires_grad_()
        value = score(problem, decision.search.state, leaf).sum()
        (gradient,) = torch.autograd.grad(value, leaf)
    return float(value.detach()), gradient[0].double().cpu().numpy()
