"""What can be added to the predicted return; every term is larger when better."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lightning_wm.protocols import Problem, Trajectory


@dataclass(frozen=True)
class TerminalValue:
    """The value of the state that the plan ends in, discounted: what lies beyond the horizon.

    The last summand of Eq. 6 of arXiv:1912.01603, with the plan's actions in place of the policy's.
    """

    weight: float = 1.0

    def __call__(self, problem: Problem, trajectory: Trajectory) -> Tensor:
        """Score `[M]`: discount^H times the probability of getting there times the value."""
        assert problem.value is not None  # problem_of refuses it with a message
        return self.weight * trajectory.weights[-1] * problem.value(trajectory.last())


@dataclass(frozen=True)
class ValueDoubt:
    """Penalty on what the critics do not agree on: u = |mean| * std over them, of every state, the last one twice.

    The lambda u of Dream-MPC's score (arXiv:2605.04568), whose u = mean * std would reward doubt where values are
    negative; the critics' standard deviation is the population's.
    """

    weight: float

    def __call__(self, problem: Problem, trajectory: Trajectory) -> Tensor:
        """Score `[M]`: u of the state after step k weighs discount^k, as its reward does; the last one's as a value."""
        assert problem.values is not None  # problem_of refuses it with a message
        values = problem.values(trajectory.flat())  # K, H*M
        doubt = values.mean(0).abs() * values.std(0, correction=0)
        doubt = doubt.view(trajectory.actions.shape[1], -1)  # H, M
        weights = trajectory.weights
        return -self.weight * ((weights[:-1] * doubt).sum(0) + weights[-1] * doubt[-1])


@dataclass(frozen=True)
class ActionCost:
    """Penalty on effort: the sum over steps of the actions' squared length."""

    weight: float

    def __call__(self, problem: Problem, trajectory: Trajectory) -> Tensor:
        """Score `[M]`."""
        return -self.weight * trajectory.actions.square().sum((1, 2))


@dataclass(frozen=True)
class Smoothness:
    """Penalty on jerky plans: the squared differences of actions that follow each other."""

    weight: float

    def __call__(self, problem: Problem, trajectory: Trajectory) -> Tensor:
        """Score `[M]`; 0 for a horizon of one."""
        return -self.weight * trajectory.actions.diff(dim=1).square().sum((1, 2))


@dataclass(frozen=True)
class Disagreement:
    """Penalty on states that the ensemble does not agree on, weighted as their rewards are."""

    weight: float

    def __call__(self, problem: Problem, trajectory: Trajectory) -> Tensor:
        """Score `[M]`."""
        assert problem.disagreement is not None  # problem_of refuses it with a message
        steps = trajectory.actions.shape[1]
        doubt = problem.disagreement(trajectory.flat()).view(steps, -1)  # H, M
        return -self.weight * (trajectory.weights[:-1] * doubt).sum(0)
