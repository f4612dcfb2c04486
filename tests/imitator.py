"""An agent without a model: it learns the actions that replay holds, from single transitions."""

from __future__ import annotations

from typing import Self

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from lightning_wm import rng
from lightning_wm.agents.base import AgentConfig, BaseAgent
from lightning_wm.config import Config, ReplayConfig
from lightning_wm.config.fields import Count, settings
from lightning_wm.data.views import Transitions
from lightning_wm.playing.observation import ObservationIntake
from lightning_wm.protocols import Planner, Spaces
from lightning_wm.registry import register


@settings("agent")
class ImitatorConfig(AgentConfig):
    """How it is optimised."""

    name: str = "imitator"
    steps: Count = 3
    """n of the view."""


class ImitatorActor:
    """Acts by the network, with noise that is keyed by episode and decision."""

    plan: TensorDict | None = None
    milliseconds = 0.0

    def __init__(self, policy: nn.Module, spaces: Spaces, seed: int, rank: int, noise: float) -> None:
        self.policy, self.intake = policy, ObservationIntake(spaces)
        self.seed, self.rank, self.noise = seed, rank, noise
        self.episode, self._decision = 0, 0

    def reset(self, mask: Tensor | None = None) -> None:
        self._decision = 0

    @torch.no_grad()
    def act(self, observation: object) -> Tensor:
        action: Tensor = self.policy(self.intake.take(observation).rows["observation"])
        numbers = range(self.episode, self.episode + len(action))
        keyed = [rng.generator(self.seed, "exploration", self.rank, number, self._decision) for number in numbers]
        self._decision += 1
        return (action + self.noise * rng.normal(action.shape[1:], keyed, action)).clamp(-1.0, 1.0)


@register("agent", "imitator")
class Imitator(BaseAgent):
    """One network from observations to actions."""

    Config = ImitatorConfig
    config: ImitatorConfig

    def __init__(self, config: ImitatorConfig, spaces: Spaces, seed: int = 0) -> None:
        super().__init__(config, seed)
        self.spaces = spaces
        assert spaces.observation is not None
        self.policy = nn.Sequential(nn.Linear(spaces.observation, 16), nn.Tanh(), nn.Linear(16, spaces.action))

    @classmethod
    def from_config(cls, config: Config, spaces: Spaces) -> Self:
        return cls(config.agent, spaces, config.seed)

    def view(self, config: ReplayConfig) -> Transitions:
        return Transitions(config.batch, self.config.steps)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {"policy": list(self.policy.parameters())}

    def losses(self, batch: TensorDictBase, generator: torch.Generator) -> dict[str, Tensor]:
        assert batch["next", "observation"].shape == batch["observation"].shape
        return {"loss/imitation": (self.policy(batch["observation"]) - batch["action"]).square().mean()}

    def actor(
        self, planner: Planner | None, seed: int = 0, rank: int = 0, noise: float = 0.0, explore: bool = False
    ) -> ImitatorActor:
        return ImitatorActor(self.policy, self.spaces, seed, rank, noise)
