"""The distributions that a stochastic state can have, all with one set of verbs.

`raw` is the output `[..., outputs]` of the network that predicts a latent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_wm.models.distributions import categorical_kl, gaussian_kl, widen

Statistics = tuple[Tensor, ...]
"""What a distribution is described by, in at least float32."""


class Latent(Protocol):
    """The distribution of the stochastic state."""

    @property
    def width(self) -> int:
        """S: width of the stochastic state."""

    @property
    def outputs(self) -> int:
        """Width of `raw`."""

    @property
    def of_mode(self) -> slice:
        """The part of `raw` that the mode depends on."""

    def noise(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """What `draw` takes, `[*shape, S]` on the CPU in float32."""

    def draw(self, raw: Tensor, noise: Tensor | None) -> Tensor:
        """The stochastic state `[..., S]`, differentiable in `raw`; without noise the mode, from `of_mode` alone."""

    def statistics(self, raw: Tensor) -> Statistics:
        """The distribution's description, of `[..., outputs]`."""

    def mean(self, statistics: Statistics) -> Tensor:
        """Expected stochastic state `[..., S]`."""

    def kl(self, q: Statistics, p: Statistics) -> Tensor:
        """KL(q || p) `[...]` in nats."""


@dataclass(frozen=True)
class Gaussian:
    """Diagonal Gaussian with the deviation `softplus(x) + min_std`; its noise is standard normal."""

    stoch: int
    min_std: float

    @property
    def width(self) -> int:
        return self.stoch

    @property
    def outputs(self) -> int:
        return 2 * self.stoch

    @property
    def of_mode(self) -> slice:
        return slice(self.stoch)

    def noise(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        return torch.randn(*shape, self.stoch, generator=generator)

    def draw(self, raw: Tensor, noise: Tensor | None) -> Tensor:
        if noise is None:
            return raw[..., self.of_mode]
        mean, std = self._split(raw)
        return mean + std * noise

    def statistics(self, raw: Tensor) -> Statistics:
        return self._split(widen(raw))

    def mean(self, statistics: Statistics) -> Tensor:
        return statistics[0]

    def kl(self, q: Statistics, p: Statistics) -> Tensor:
        return gaussian_kl(*q, *p)

    def _split(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        mean, scale = raw.chunk(2, dim=-1)
        return mean, F.softplus(scale) + self.min_std


@dataclass(frozen=True)
class Categorical:
    """`stoch` one-hot vectors of `classes` each (arXiv:2301.04104, Sec. "World model learning").

    The gradient of a draw is that of the probabilities (straight through). The
    probabilities are mixed with a uniform share, so that no KL is infinite. The
    noise is Gumbel's: the largest of log-probability plus noise is a draw.
    """

    stoch: int
    classes: int
    uniform: float

    @property
    def width(self) -> int:
        return self.stoch * self.classes

    @property
    def outputs(self) -> int:
        return self.width

    @property
    def of_mode(self) -> slice:
        return slice(None)

    def noise(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        exponential = torch.empty(*shape, self.width).exponential_(generator=generator)
        return exponential.clamp_min_(torch.finfo(torch.float32).tiny).log_().neg_()

    def draw(self, raw: Tensor, noise: Tensor | None) -> Tensor:
        logits = self._split(widen(raw))
        probabilities = self._mixed(logits)
        favour = logits.detach() if noise is None else probabilities.detach().log() + self._split(noise)
        hard = torch.zeros_like(favour).scatter_(-1, favour.argmax(-1, keepdim=True), 1.0)
        # Exactly one-hot: the difference is exactly zero.
        return (hard + (probabilities - probabilities.detach())).flatten(-2).to(raw.dtype)

    def statistics(self, raw: Tensor) -> Statistics:
        return (self._mixed(self._split(widen(raw))).log(),)

    def mean(self, statistics: Statistics) -> Tensor:
        return statistics[0].exp().flatten(-2)

    def kl(self, q: Statistics, p: Statistics) -> Tensor:
        return categorical_kl(q[0], p[0]).sum(-1)

    def _split(self, flat: Tensor) -> Tensor:
        split: Tensor = flat.unflatten(-1, (self.stoch, self.classes))
        return split

    def _mixed(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1) * (1.0 - self.uniform) + self.uniform / self.classes
