"""CURL: soft actor-critic from crops, whose encoder also learns to tell pictures apart (arXiv:2004.04136)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from tensordict import TensorDictBase
from torch import Tensor, nn

from lightning_wm.agents.pixel_sac import PixelSAC, PixelSACConfig
from lightning_wm.config.fields import Count, Weight, settings
from lightning_wm.errors import UserError
from lightning_wm.models.augmentation import centre_crop, random_crop
from lightning_wm.models.distributions import widen
from lightning_wm.protocols import Spaces
from lightning_wm.registry import register

_SAME = 0.5  # levels of 255


@settings("agent")
class CURLConfig(PixelSACConfig):
    """Networks and how they are optimised."""

    name: str = "curl"
    crop: Count = 84
    """Side of the squares that are cut out of the pictures, in pixels."""
    contrast: Weight = 30.0
    """Weight of the contrastive loss; 0 learns without it. At 30 it moves the encoder about as the critics do."""


@register("agent", "curl")
class CURL(PixelSAC):
    """SAC on random crops; two crops of a picture are to be more alike than crops of two.

    Args:
        config: networks and how they are optimised.
        spaces: pixels (C, X, Y) and A actions.
        seed: of the stream model.

    Raises:
        UserError: there are no pixels, or they are fewer than a crop has.
    """

    Config = CURLConfig
    config: CURLConfig

    def __init__(self, config: CURLConfig | None = None, spaces: Spaces | None = None, seed: int = 0) -> None:
        super().__init__(config, spaces, seed)
        features = self.config.encoder.features
        self.similarity = nn.Parameter(torch.rand(features, features)) if self.config.contrast else None
        """W of the bilinear similarity q W k."""

    def checked(self, spaces: Spaces | None) -> Spaces:
        """The spaces, whose pictures are as large as a crop."""
        spaces = super().checked(spaces)
        assert spaces.pixels is not None
        crop, (height, width) = self.config.crop, spaces.pixels[1:]
        if crop > min(height, width):
            raise UserError(
                f"agent.crop={crop}: larger than the pictures of {height} x {width} pixels; expected at most "
                f"{min(height, width)}; type agent.crop={max(1, min(height, width) * 7 // 8)} or "
                f"observation.render.size={math.ceil(crop * 100 / 84)}"
            )
        return spaces

    def augmented(self, images: Tensor) -> Tensor:
        """Random crops `[B, C, crop, crop]`."""
        return random_crop(images, self.config.crop)

    def looked_at(self, images: Tensor) -> Tensor:
        """The crop in the middle."""
        return centre_crop(images, self.config.crop)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by part."""
        return {**super().groups(), **({} if self.similarity is None else {"similarity": [self.similarity]})}

    def beside(self, batch: TensorDictBase, rows: TensorDictBase) -> dict[str, Tensor]:
        """The contrastive loss, and how often a crop is most alike to another of the same picture."""
        if self.similarity is None:
            return {}
        with torch.no_grad():
            keys = self.slow_encoder(self.encoder.scaled(self.augmented(batch["pixels"])))
        loss, chosen = contrast(rows["embedding"], keys, self.similarity)
        return {"loss/contrast": self.config.contrast * loss, **accuracies(batch["pixels"], chosen)}


def contrast(queries: Tensor, keys: Tensor, similarity: Tensor) -> tuple[Tensor, Tensor]:
    """InfoNCE (arXiv:2004.04136, Eq. 4) in nats, and which key `[B]` is the most alike to each query.

    Args:
        queries: `[B, features]`.
        keys: `[B, features]`; key i is query i's own, the others are its negatives.
        similarity: W, `[features, features]`; query i and key j are alike by q_i W k_j.
    """
    logits = widen(queries @ similarity @ keys.T)  # B, B
    own = torch.arange(len(logits), device=logits.device)
    return F.cross_entropy(logits, own), logits.detach().argmax(1)


def accuracies(images: Tensor, chosen: Tensor) -> dict[str, Tensor]:
    """Shares of images `[B, C, X, Y]` whose chosen one `[B]` is their own, and that or a twin."""
    own = chosen == torch.arange(len(chosen), device=chosen.device)
    right = {"accuracy": own, "accuracy_but_twins": twins(images, chosen)}
    return {f"contrast/{name}": these.float().mean() for name, these in right.items()}


def twins(images: Tensor, chosen: Tensor) -> Tensor:
    """Whether each image `[B, C, X, Y]` is the same as the chosen one or hardly differs from it: `[B]`.

    By less than half a level of 255 on average, as of a robot that rests or has hardly moved.
    """
    same = chosen == torch.arange(len(chosen), device=chosen.device)
    (other,) = (~same).nonzero(as_tuple=True)  # few of them: to compare all would be a tenth of an update
    apart = images[other].float() - images[chosen[other]].float()
    same[other] = apart.abs().flatten(1).mean(1) < _SAME
    return same
