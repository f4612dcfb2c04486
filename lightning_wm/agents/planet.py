"""Learning a world model and nothing else: the agent of PlaNet and of Grad-MPC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, cast

import torch
from tensordict import TensorDictBase
from torch import Tensor

from lightning_wm import rng
from lightning_wm.agents.adversary import challenged
from lightning_wm.agents.base import AgentConfig, BaseAgent, restore_batch_size
from lightning_wm.config.fields import Count, Share, settings
from lightning_wm.errors import UserError
from lightning_wm.models.foresight import foreseen, within_an_episode
from lightning_wm.planning.problem import problem_for
from lightning_wm.playing.actor import WorldModelActor
from lightning_wm.protocols import Compiles, Planner, Spaces, State, TrainedModel
from lightning_wm.registry import build, register

if TYPE_CHECKING:
    from lightning_wm.config import Config as RunConfig


@settings("agent")
class PlaNetConfig(AgentConfig):
    """How the world model is optimised."""

    name: str = "planet"
    open_loop_observed: Count = 5
    """Steps that are filtered before the open-loop prediction error is measured."""
    open_loop_predicted: Count = 15
    """Steps that are then predicted from actions alone."""
    adversary: Share = 0.0
    """Actions of replay are moved by up to this much to where the model's loss grows fastest; 0 leaves them."""


@register("agent", "planet")
class PlaNet(BaseAgent):
    """Trains a world model on batches `[B, T]` of replay (arXiv:1811.04551, Eq. 3).

    Args:
        config: how it is optimised.
        model: a `protocols.TrainedModel`.
        seed: of the stream model.
    """

    Config = PlaNetConfig
    config: PlaNetConfig
    model: TrainedModel

    def __init__(self, config: PlaNetConfig | None = None, model: TrainedModel | None = None, seed: int = 0) -> None:
        super().__init__(config or self.Config(), seed)
        self.model = cast("TrainedModel", model)

    @classmethod
    def from_config(cls, config: RunConfig, spaces: Spaces) -> Self:
        """The agent of a whole configuration, with its model."""
        return cls(config.agent, build("model", config.model, spaces), seed=config.seed)

    def groups(self) -> dict[str, list[torch.nn.Parameter]]:
        """Parameters by part."""
        return {"model": list(self.model.parameters())}

    def compile_update(self) -> None:
        """Compile the model's heads and losses.

        Raises:
            UserError: the model has no `compile_update`.
        """
        if not isinstance(self.model, Compiles):
            raise UserError(f"{type(self.model).__name__} has no compile_update; type trainer.compile=false")
        self.model.compile_update()

    # ---- learning

    def losses(self, batch: TensorDictBase, generator: torch.Generator) -> dict[str, Tensor]:
        """The model's losses, and those of what is learned beside it, from `[B, T]`."""
        challenged = self.challenged(batch)
        states, measured = self.model.observe(challenged, generator=generator)
        if challenged is not batch:  # what was earned was earned by replay's own actions
            same = rng.generator(self.seed, "model", self.global_rank, self.global_step)
            with torch.no_grad():
                states, _ = self.model.observe(batch, generator=same)
        return {**measured, **self.behave(states, batch)}

    def challenged(self, batch: TensorDictBase) -> TensorDictBase:
        """What the model learns from: the batch itself, or with an adversary's actions."""
        if not self.config.adversary:
            return batch
        generator = rng.generator(self.seed, "model", self.global_rank, self.global_step, 2)
        return challenged(self.model, batch, self.config.adversary, generator)

    def behave(self, states: State, batch: TensorDictBase) -> dict[str, Tensor]:
        """Losses of what is learned beside the model; nothing here.

        Args:
            states: posterior states `[B*T, ...]`.
            batch: `[B, T]`.
        """
        return {}

    # ---- acting

    def actor(
        self, planner: Planner | None, seed: int = 0, rank: int = 0, noise: float = 0.0, explore: bool = False
    ) -> WorldModelActor:
        """What plays with this world model and a planner; see `protocols.Agent`."""
        if planner is None:
            raise UserError("this agent learns no policy, so it needs a planner; type planner=grad_mpc")
        learned, curiosity = self.learned(explore), self.curiosity(explore)
        problem = problem_for(planner, self.model, self.config.name, curiosity=curiosity, **learned)
        return WorldModelActor(self.model, planner, problem, seed=seed, rank=rank, noise=noise)

    def learned(self, explore: bool = False) -> dict[str, Any]:
        """What a planner may use beside the model: `policy` and `values` of `problem_of`; nothing here."""
        return {}

    def curiosity(self, explore: bool) -> float:
        """Weight of the ensemble's disagreement in what is planned for; nothing here."""
        return 0.0

    # ---- how far it can see

    @torch.no_grad()
    def validation_step(self, batch: TensorDictBase, index: int) -> None:
        restore_batch_size(batch)
        error = self.open_loop_error(batch)
        if error is not None:
            self.log("model/open_loop_error", error, batch_size=1)

    def open_loop_error(self, batch: TensorDictBase) -> Tensor | None:
        """Mean squared error of decoded observations that were predicted from actions alone.

        State vectors in the space of the loss, pixels in [-0.5, 0.5]; windows
        in which an episode ends count for nothing. None without such a window.
        """
        observed, predicted = self.config.open_loop_observed, self.config.open_loop_predicted
        predicted = min(predicted, batch.shape[1] - observed)
        if predicted < 1:
            return None
        batch = batch[:, : observed + predicted]
        batch = batch[within_an_episode(batch)]
        if not len(batch):
            return None
        ahead = enumerate(foreseen(self.model, batch, observed)[observed:], observed)
        return torch.stack([self.model.observation_error(state, batch[:, step]) for step, state in ahead]).mean()
