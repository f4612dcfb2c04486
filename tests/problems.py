"""Problems with known answers for planners: linear-quadratic, a double well, a small recurrent model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal

from lightning_wm import rng
from lightning_wm.planning.terms import TerminalValue
from lightning_wm.protocols import Problem, Spaces, State


def generators(count: int, *counters: int) -> list[torch.Generator]:
    """One generator per environment, as the actor makes them."""
    return [rng.generator(0, "planner", episode, *counters) for episode in range(count)]


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
        plan = torch.linalg.solve(curvature, -reach.T @ free @ self.start.T)  # H*A, E
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
class DoubleWell:
    """A point that moves by 0.4 a in a step; reward peaks of 1 at x = -0.5 and 3 at x = 1.5, nothing between.

    From x = -0.3 the gradient points to the near, lower peak; the far one is worth more over 12 steps.
    """

    environments: int = 2

    @property
    def problem(self) -> Problem:
        """What a planner gets."""
        return Problem(action=1, imagine=self.imagine, reward=self.reward)

    @property
    def state(self) -> State:
        """Where the plans start."""
        return {"x": torch.full((self.environments, 1), -0.3, dtype=torch.float64)}

    def imagine(self, state: State, action: Tensor, noise: Tensor | None = None) -> State:
        """One step."""
        return {"x": state["x"] + 0.4 * action}

    def reward(self, state: State) -> Tensor:
        """`[M]`."""
        x = state["x"][:, 0]
        return (-8 * (x + 0.5).square()).exp() + 3 * (-8 * (x - 1.5).square()).exp()


def arbitrary_policy(action: int) -> Callable[[State], Distribution]:
    """A linear-Gaussian policy on a state's first entries that is good for nothing in particular."""

    def policy(state: State) -> Distribution:
        seen = state["x"] if "x" in state else state["stoch"]
        return Normal(0.5 * seen[:, :action], 0.3)

    return policy


class Recurrent(nn.Module):
    """A random recurrent latent model with a Gaussian part: a world model's shape without its training."""

    def __init__(self, action: int = 2, deter: int = 16, stoch: int = 4, hidden: int = 16) -> None:
        super().__init__()
        self.spaces = Spaces(action=action, observation=stoch)
        self.enter = nn.Linear(stoch + action, hidden)
        self.cell = nn.GRUCell(hidden, deter)
        self.prior = nn.Sequential(nn.Linear(deter, hidden), nn.ELU(), nn.Linear(hidden, 2 * stoch))
        self.head = nn.Sequential(nn.Linear(deter + stoch, hidden), nn.ELU(), nn.Linear(hidden, 1))
        self.ending = nn.Linear(deter + stoch, 1)
        self.deter, self.stoch = deter, stoch

    def initial(self, batch: int) -> State:
        """Random states `[batch, ...]`, different in every row."""
        like = self.enter.weight
        one = torch.Generator().manual_seed(7)
        return {
            "deter": torch.randn(batch, self.deter, generator=one, dtype=torch.float64).to(like).tanh().detach(),
            "stoch": torch.randn(batch, self.stoch, generator=one, dtype=torch.float64).to(like).detach(),
        }

    def imagine(self, state: State, action: Tensor, noise: Tensor | None = None) -> State:
        """One step of the prior."""
        deter = self.cell(nn.functional.elu(self.enter(torch.cat([state["stoch"], action], -1))), state["deter"])
        mean, raw = self.prior(deter).chunk(2, -1)
        return {"deter": deter, "stoch": mean if noise is None else mean + nn.functional.softplus(raw) * noise}

    def noise(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """`[*shape, stoch]`."""
        return torch.randn(*shape, self.stoch, generator=generator)

    def features(self, state: State) -> Tensor:
        """`[M, D+S]`."""
        return torch.cat([state["deter"], state["stoch"]], -1)

    def reward(self, state: State) -> Tensor:
        """`[M]`."""
        return self.head(self.features(state)).squeeze(-1)

    def continues(self, state: State) -> Tensor:
        """`[M]`, in [0, 1]."""
        return self.ending(self.features(state)).squeeze(-1).sigmoid()


def recurrent(double: bool = True, **sizes: int) -> Recurrent:
    """A `Recurrent` whose random weights are large enough that actions matter."""
    with rng.scope(0, "init"):
        model = Recurrent(**sizes)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2.0)
    return model.double() if double else model
