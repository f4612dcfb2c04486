"""Problems with known answers for planners: linear-quadratic, a double well, a small recurrent model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal

from lightning_wm import rng
from lightning_wm.benchmarks.known_problems import LinearQuadratic as LinearQuadratic
from lightning_wm.benchmarks.known_problems import linear_quadratic as linear_quadratic
from lightning_wm.protocols import Problem, Spaces, State


def generators(count: int, *counters: int) -> list[torch.Generator]:
    """One generator per environment, as the actor makes them."""
    return [rng.generator(0, "planner", episode, *counters) for episode in range(count)]


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
