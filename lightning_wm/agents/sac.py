"""Soft actor-critic from the state vector."""

from __future__ import annotations

from tensordict import TensorDictBase
from torch import Tensor
from torchrl.modules import ProbabilisticActor, ValueOperator

from lightning_wm.agents.memoryless import Memoryless
from lightning_wm.agents.soft_actor_critic import SACConfig, SoftActorCritic, critic_network, policy_network
from lightning_wm.errors import UserError
from lightning_wm.protocols import Spaces, State
from lightning_wm.registry import register


@register("agent", "sac")
class SAC(SoftActorCritic):
    """Soft actor-critic from the state vector of O numbers; see `SoftActorCritic`."""

    Config = SACConfig

    def checked(self, spaces: Spaces | None) -> Spaces:
        """The spaces, which have a state vector alone."""
        if spaces is None or spaces.observation is None or spaces.pixels is not None:
            raise UserError("agent=sac learns from the state vector alone; type observation=state")
        return spaces

    def networks(self) -> tuple[ProbabilisticActor, ValueOperator]:
        """Policy and critic of the state vector."""
        assert self.spaces.observation is not None
        actor = policy_network(self.config, self.spaces.observation, self.spaces.action)
        return actor, critic_network(self.config, self.spaces.observation + self.spaces.action)

    def rows(self, batch: TensorDictBase) -> TensorDictBase:
        """The transitions as they are."""
        return batch.copy()

    def seen(self, state: State) -> Tensor:
        """The state vector `[M, O]`."""
        return state["observation"]

    def memory(self, like: Tensor) -> Memoryless:
        """The state vector is all."""
        return Memoryless(self.spaces, like)
