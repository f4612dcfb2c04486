"""How each latent is drawn and differentiated inside the scan, whose steps write where they are told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_wm.models.latents import Categorical, Gaussian

Row = tuple[Tensor, ...]
"""Views of one step's `raw` `[B, outputs]`."""


class Draws(Protocol):
    """A latent as the scan takes it; `raw` is what `Latent.draw` takes."""

    def rows(self, raws: Tensor) -> Iterable[Row]:
        """`[T, B, outputs]` as the views of each step that the others take."""

    def draw_(self, row: Row, noise: Tensor | None, out: Tensor) -> Tensor:
        """`Latent.draw` into `out` `[B, S]`."""

    def slopes(self, raws: Tensor, noise: Tensor | None) -> Iterable[Tensor | None]:
        """For each step, what `pull_` needs beside gradients, computed for all steps at once."""

    def pull_(self, row: Row, gradient: Tensor, slope: Tensor | None) -> None:
        """Add to a row of raw's gradient what the gradient `[B, S]` of the drawn state makes of it."""


class GaussianDraws(NamedTuple):
    """Of `latents.Gaussian`."""

    latent: Gaussian

    def rows(self, raws: Tensor) -> Iterable[Row]:
        s = self.latent.width
        return zip(raws[..., :s].unbind(), raws[..., s:].unbind(), strict=True)

    def draw_(self, row: Row, noise: Tensor | None, out: Tensor) -> Tensor:
        mean, scale = row
        if noise is None:
            return out.copy_(mean)
        return torch.addcmul(mean, F.softplus(scale).add_(self.latent.min_std), noise, out=out)

    def slopes(self, raws: Tensor, noise: Tensor | None) -> Iterable[Tensor | None]:
        return [None] * len(raws) if noise is None else (noise * raws[..., self.latent.width :].sigmoid()).unbind()

    def pull_(self, row: Row, gradient: Tensor, slope: Tensor | None) -> None:
        mean, scale = row
        mean.add_(gradient)
        if slope is not None:
            scale.addcmul_(gradient, slope)


class CategoricalDraws(NamedTuple):
    """Of `latents.Categorical`."""

    latent: Categorical

    def rows(self, raws: Tensor) -> Iterable[Row]:
        return zip(self._split(raws).unbind(), strict=True)

    def draw_(self, row: Row, noise: Tensor | None, out: Tensor) -> Tensor:
        (logits,), c = row, self.latent
        favour = logits
        if noise is not None:
            favour = logits.softmax(-1).mul_(1.0 - c.uniform).add_(c.uniform / c.classes)
            favour.log_().add_(noise.view_as(logits))
        out.zero_().view_as(logits).scatter_(-1, favour.argmax(-1, keepdim=True), 1.0)
        return out

    def slopes(self, raws: Tensor, noise: Tensor | None) -> Iterable[Tensor | None]:
        return self._split(raws).softmax(-1).unbind()

    def pull_(self, row: Row, gradient: Tensor, slope: Tensor | None) -> None:
        (logits,), share = row, 1.0 - self.latent.uniform
        assert slope is not None  # straight through: with noise and without
        weighted = slope * gradient.view_as(logits)
        logits.add_(weighted, alpha=share).addcmul_(slope, weighted.sum(-1, keepdim=True), value=-share)

    def _split(self, raws: Tensor) -> Tensor:
        split: Tensor = raws.unflatten(-1, (self.latent.stoch, self.latent.classes))
        return split


DRAWS: dict[type, Callable[[Any], Draws]] = {Gaussian: GaussianDraws, Categorical: CategoricalDraws}
"""The latents that the scan knows, as it takes them."""
