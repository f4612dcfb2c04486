"""Problems whose dynamics are known, and whose optimum is known or can be searched for at length."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.distributions import Normal

from lightning_wm.planning.objective import score
from lightning_wm.planning.terms import TerminalValue
from lightning_wm.protocols import Problem, State


@dataclass(frozen=True)
class LinearQuadratic:
    """x' = F x + G a, reward of a step -(x'.x' + cost a.a); the optimum is one linear solve.

    The last action is part of the state, so that the reward is a function of the state alone.
    """

    dynamics: Tensor
    """F `[n, n]`."""
    control: Tensor
    """G `[n, A]`."""
    cost: float
    start: Tensor
    """x_0 `[E, n]`."""

    @property
    def problem(self) -> Problem:
        """What a planner gets."""
        return Problem(action=self.control.shape[1], imagine=self.imagine, reward=self.reward)

    @property
    def state(self) -> State:
        """Where the plans start, `[E, ...]`."""
        return {"x": self.start, "a": self.start.new_zeros(len(self.start), self.control.shape[1])}

    def imagine(self, state: State, action: Tensor, noise: Tensor | None = None) -> State:
        """One exact step."""
        return {"x": state["x"] @ self.dynamics.T + action @ self.control.T, "a": action}

    def reward(self, state: State) -> Tensor:
        """`[M]`."""
        return -(state["x"].square().sum(-1) + self.cost * state["a"].square().sum(-1))

    def value(self, actions: Tensor) -> Tensor:
        """Sum of rewards `[E]` of plans `[E, H, A]`, without any planner code."""
        x, total = self.start, torch.zeros(len(self.start), dtype=self.start.dtype)
        for action in actions.unbind(1):
            x = x @ self.dynamics.T + action @ self.control.T
            total = total - x.square().sum(1) - self.cost * action.square().sum(1)
        return total

    def optimum(self, horizon: int) -> Tensor:
        """The best plan without bounds, `[E, H, A]`: states are linear in all actions, so one solve finds them."""
        n, a = self.control.shape
        powers = [torch.linalg.matrix_power(self.dynamics, k) for k in range(horizon + 1)]
        free = torch.cat(powers[1:])  # H*n, n: the states without actions
        reach = torch.zeros(horizon * n, horizon * a, dtype=free.dtype)
        for k in range(horizon):
            for j in range(k + 1):
                reach[k * n : (k + 1) * n, j * a : (j + 1) * a] = powers[k - j] @ self.control
        curvature = reach.T @ reach + self.cost * torch.eye(horizon * a, dtype=free.dtype)
        plan: Tensor = torch.linalg.solve(curvature, -reach.T @ free @ self.start.T)  # H*A, E
        return plan.T.view(len(self.start), horizon, a)

    def riccati(self) -> tuple[Tensor, Tensor]:
        """The best gain K `[A, n]` (a = -K x) and value matrix P (-x'Px) over an endless horizon without bounds."""
        n, a = self.control.shape
        value, identity = torch.zeros(n, n, dtype=self.start.dtype), torch.eye(n, dtype=self.start.dtype)
        for _ in range(500):
            ahead = identity + value
            weight = self.control.T @ ahead @ self.control + self.cost * torch.eye(a, dtype=value.dtype)
            gain = torch.linalg.solve(weight, self.control.T @ ahead @ self.dynamics)
            value = self.dynamics.T @ ahead @ (self.dynamics - self.control @ gain)
        return gain, value

    def endless(self, share: float = 1.0, std: float = 0.1) -> Problem:
        """The problem with the value of what follows the horizon at its end, and a linear-Gaussian policy.

        With `share` 1 the policy's mode is the optimum of every horizon; the policy has that share of the best gain.
        """
        gain, matrix = self.riccati()
        return replace(
            self.problem,
            value=lambda state: -torch.einsum("mi,ij,mj->m", state["x"], matrix, state["x"]),
            policy=lambda state: Normal(-share * state["x"] @ gain.T, std),
            terms=(TerminalValue(),),
        )

    def share(self, actions: Tensor) -> Tensor:
        """How much of the way from doing nothing to the optimum plans `[E, H, A]` go, `[E]`; 1 is the optimum."""
        nothing, optimum = self.value(torch.zeros_like(actions)), self.value(self.optimum(actions.shape[1]))
        return (self.value(actions) - nothing) / (optimum - nothing)


def linear_quadratic(action: int, environments: int = 3, dimension: int | None = None) -> LinearQuadratic:
    """A stable random system in float64 whose optimal actions stay well inside [-1, 1]."""
    one = torch.Generator().manual_seed(action)
    n = dimension or max(2, action)
    rotation = torch.linalg.qr(torch.randn(n, n, generator=one, dtype=torch.float64))[0]
    control = torch.randn(n, action, generator=one, dtype=torch.float64) / n**0.5
    start = torch.randn(environments, n, generator=one, dtype=torch.float64)
    lq = LinearQuadratic(0.98 * rotation, control, 0.1, start)
    scale = 0.7 / lq.optimum(12).abs().amax((1, 2))
    return LinearQuadratic(lq.dynamics, control, 0.1, start * scale[:, None])


@dataclass(frozen=True)
class Rosenbrock:
    """A point that a step moves by 0.25 a; reward -((1 - u)^2 + 10 (v - u^2)^2) / 10: a bent valley with a flat floor.

    From (-1, 1), in the valley but at its other end, the way to (1, 1) leads round the bend.
    """

    environments: int = 3

    @property
    def problem(self) -> Problem:
        """What a planner gets."""
        return Problem(action=2, imagine=self.imagine, reward=self.reward)

    @property
    def state(self) -> State:
        """Where the plans start, `[E, 2]`."""
        across = torch.linspace(-0.2, 0.2, self.environments, dtype=torch.float64)
        return {"x": torch.stack([torch.full_like(across, -1.0), 1.0 + across], 1)}

    def imagine(self, state: State, action: Tensor, noise: Tensor | None = None) -> State:
        """One step."""
        return {"x": state["x"] + 0.25 * action}

    def reward(self, state: State) -> Tensor:
        """`[M]`."""
        u, v = state["x"].unbind(-1)
        return -((1 - u).square() + 10 * (v - u.square()).square()) / 10


@dataclass(frozen=True)
class Pendulum:
    """Gymnasium's Pendulum (g 10, mass and length 1, torque up to 2), a step of 0.2 s, from hanging almost at rest.

    The torque does not lift it: it has to be swung up within the 2.4 s of 12 steps.
    """

    environments: int = 3

    @property
    def problem(self) -> Problem:
        """What a planner gets."""
        return Problem(action=1, imagine=self.imagine, reward=self.reward)

    @property
    def state(self) -> State:
        """Where the plans start: angle from upright and its speed, `[E, 2]`."""
        off = torch.linspace(-0.5, 0.5, self.environments, dtype=torch.float64)
        return {"x": torch.stack([math.pi + off, off], 1), "reward": torch.zeros_like(off)}

    def imagine(self, state: State, action: Tensor, noise: Tensor | None = None) -> State:
        """Four steps of 0.05 s, as Gymnasium integrates them."""
        angle, speed = state["x"].unbind(-1)
        torque, reward = 2.0 * action[..., 0], torch.zeros_like(angle)
        for _ in range(4):
            wrapped = torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
            reward = reward - (wrapped.square() + 0.1 * speed.square() + 0.001 * torque.square())
            speed = (speed + 0.05 * (15.0 * angle.sin() + 3.0 * torque)).clamp(-8.0, 8.0)
            angle = angle + 0.05 * speed
        return {"x": torch.stack([angle, speed], -1), "reward": reward}

    def reward(self, state: State) -> Tensor:
        """`[M]`: the sum over the four steps."""
        return state["reward"]


def returns(problem: Problem, state: State, actions: Tensor) -> Tensor:
    """Sums of rewards `[E]` of plans `[E, H, A]`."""
    with torch.no_grad():
        return score(replace(problem, terms=(), value=None), state, actions)
