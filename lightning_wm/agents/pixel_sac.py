"""Soft actor-critic from pixels: what CURL and DrQ share, an encoder that the critics alone move."""

from __future__ import annotations

from abc import abstractmethod
from copy import deepcopy
from dataclasses import field

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torchrl.modules import ProbabilisticActor, ValueOperator
from torchrl.objectives import SACLoss

from lightning_wm.agents.memoryless import LastFrames
from lightning_wm.agents.soft_actor_critic import SACConfig, SoftActorCritic, critic_network, policy_network
from lightning_wm.config import ReplayConfig
from lightning_wm.config.fields import Count, Factor, Positive, settings
from lightning_wm.data.views import Transitions
from lightning_wm.errors import UserError
from lightning_wm.models.frame_encoder import FrameEncoder, FrameEncoderConfig, trunk
from lightning_wm.models.networks import follow
from lightning_wm.protocols import Spaces, State


@settings("agent")
class PixelSACConfig(SACConfig):
    """Networks and how they are optimised."""

    alpha_learning_rate: Positive = 1e-4
    """Adam's step size of the temperature's logarithm."""
    units: Count = 1024
    """Width of the hidden layers of actor and critics."""
    frames: Count = 3
    """k: pictures that are seen at once."""
    encoder: FrameEncoderConfig = field(default_factory=FrameEncoderConfig)
    encoder_tau: Factor = 0.025
    """Share of the encoder in its slow copy at each update."""


class PixelSACLoss(SACLoss):  # type: ignore[misc]
    """SAC's loss whose policy learns from what the encoder says without moving it (arXiv:1910.01741, 5)."""

    def actor_loss(self, tensordict: TensorDictBase) -> tuple[Tensor, dict[str, Tensor]]:
        """See `SACLoss.actor_loss`."""
        measured: tuple[Tensor, dict[str, Tensor]] = super().actor_loss(tensordict.detach())
        return measured


class PixelSAC(SoftActorCritic):
    """Critics on an encoder's vectors; the policy on the same convolutions, through a layer of its own.

    The critics' targets are those of the slow critics on the slow encoder.
    """

    Loss = PixelSACLoss
    config: PixelSACConfig

    @abstractmethod
    def augmented(self, images: Tensor) -> Tensor:
        """Images `[B, C, X, Y]` as the losses see them, `[K*B, C, x, y]`: K of all of them after another."""

    @abstractmethod
    def looked_at(self, images: Tensor) -> Tensor:
        """Images `[M, C, X, Y]` as the policy sees them when it acts, `[M, C, x, y]`."""

    def checked(self, spaces: Spaces | None) -> Spaces:
        """The spaces, which have pixels alone."""
        if spaces is None or spaces.pixels is None or spaces.observation is not None:
            raise UserError(f"agent={self.config.name} learns from pixels alone; type observation=pixels")
        return spaces

    def networks(self) -> tuple[ProbabilisticActor, ValueOperator]:
        """Policy and critic, and the encoder that they see through."""
        assert self.spaces.pixels is not None
        c, (channels, *sides) = self.config, self.spaces.pixels
        shape = self.looked_at(torch.zeros(1, c.frames * channels, *sides, dtype=torch.uint8)).shape[1:]
        self.encoder = FrameEncoder(c.encoder, (shape[0], shape[1], shape[2]))
        self.slow_encoder = deepcopy(self.encoder).requires_grad_(False)
        own = trunk(c.encoder, self.encoder.outputs)
        actor = policy_network(c, c.encoder.features, self.spaces.action, "features", own)
        return actor, critic_network(c, c.encoder.features + self.spaces.action, "embedding")

    def view(self, config: ReplayConfig) -> Transitions:
        """n-step transitions of stacked frames."""
        return Transitions(config.batch, self.config.steps, self.config.discount, self.config.frames)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by part."""
        return {**super().groups(), "encoder": list(self.encoder.parameters())}

    def rows(self, batch: TensorDictBase) -> TensorDictBase:
        """The transitions `[K*B]` with what the convolutions see, for the policy, and vectors, for the critics."""
        now, later = (self.encoder.scaled(self.augmented(batch[entry])) for entry in ("pixels", ("next", "pixels")))
        plain = batch.exclude("pixels", ("next", "pixels"))
        rows: TensorDictBase = torch.cat([plain] * (len(now) // len(plain)))
        features = self.encoder.look(now)
        rows["features"], rows["embedding"] = features.detach(), self.encoder.trunk(features)
        with torch.no_grad():
            rows["next", "features"], rows["next", "embedding"] = self.encoder.look(later), self.slow_encoder(later)
        return rows

    def follow_slowly(self) -> None:
        """Move the slow critics and the slow encoder."""
        super().follow_slowly()
        follow(self.slow_encoder, self.encoder, self.config.encoder_tau)

    # ---- acting

    def seen(self, state: State) -> Tensor:
        """What the convolutions see of the last frames."""
        return self.encoder.look(self.encoder.scaled(self.looked_at(state["frames"])))

    def memory(self, like: Tensor) -> LastFrames:
        """The last k frames."""
        return LastFrames(self.spaces, self.config.frames, like)
