"""DrQ: soft actor-critic on shifted pictures, values averaged over several shifts of each (arXiv:2004.13649)."""

from __future__ import annotations

from dataclasses import field
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.objectives.value import TD0Estimator

from lightning_wm.agents.pixel_sac import PixelSAC, PixelSACConfig
from lightning_wm.config.fields import Count, Factor, Natural, Positive, settings
from lightning_wm.errors import UserError
from lightning_wm.models.augmentation import random_shift
from lightning_wm.models.frame_encoder import FrameEncoderConfig
from lightning_wm.protocols import Spaces
from lightning_wm.registry import register


@settings("agent")
class DrQConfig(PixelSACConfig):
    """Networks and how they are optimised."""

    name: str = "drq"
    alpha_learning_rate: Positive = 1e-3
    """Adam's step size of the temperature's logarithm."""
    encoder: FrameEncoderConfig = field(default_factory=lambda: FrameEncoderConfig(squash=True))
    encoder_tau: Factor = 0.005
    """Share of the encoder in its slow copy at each update."""
    shift: Natural = 4
    """Pixels that a picture is moved by at most, each way."""
    augmentations: Count = 2
    """K = M: shifts of each transition that the critics' targets and losses are averaged over."""


class MeanTarget(TD0Estimator):  # type: ignore[misc]
    """Targets of K*B transitions, K of all of them after another, averaged over the K (arXiv:2004.13649, Eq. 1).

    Args:
        copies: K.
    """

    def __init__(self, *, copies: int, **fields: Any) -> None:
        super().__init__(**fields)
        self.copies = copies

    def value_estimate(self, tensordict: TensorDictBase, *args: Any, **fields: Any) -> Tensor:
        """`[K*B, 1]`."""
        target: Tensor = super().value_estimate(tensordict, *args, **fields)
        mean: Tensor = target.unflatten(0, (self.copies, -1)).mean(0)
        return mean.repeat(self.copies, 1)


@register("agent", "drq")
class DrQ(PixelSAC):
    """SAC on random shifts.

    Args:
        config: networks and how they are optimised.
        spaces: pixels (C, X, Y) and A actions.
        seed: of the stream model.

    Raises:
        UserError: there are no pixels, or a shift leaves nothing of them.
    """

    Config = DrQConfig
    config: DrQConfig

    def checked(self, spaces: Spaces | None) -> Spaces:
        """The spaces, whose pictures are larger than a shift."""
        spaces = super().checked(spaces)
        assert spaces.pixels is not None
        shift, side = self.config.shift, min(spaces.pixels[1:])
        if shift >= side:
            raise UserError(
                f"agent.shift={shift}: leaves nothing of pictures of {side} pixels; expected less than {side}; "
                f"type agent.shift={side // 21}"
            )
        return spaces

    def augmented(self, images: Tensor) -> Tensor:
        """K random shifts of all images, `[K*B, C, X, Y]`."""
        return torch.cat([random_shift(images, self.config.shift) for _ in range(self.config.augmentations)])

    def looked_at(self, images: Tensor) -> Tensor:
        """The images as they are."""
        return images

    def estimator(self) -> dict[str, Any]:
        """Averages the targets."""
        copies = self.config.augmentations
        return {"value_type": MeanTarget, "gamma": self.config.discount, "copies": copies, "value_network": None}
