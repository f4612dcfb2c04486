"""What is read from a state: observations, reward and whether the episode goes on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchrl.modules.models.model_based import two_hot_cross_entropy, two_hot_decode

from lightning_wm.models.config import ModelConfig
from lightning_wm.models.distributions import symexp, widen
from lightning_wm.models.networks import mlp, perceptron
from lightning_wm.models.pixels import PatchDecoder, averaged_shape


def reward_head(config: ModelConfig, features: int) -> TwoHotHead | NormalHead:
    """The head that `config.reward_head` names, on features `[M, F]`."""
    c, two_hot = config, config.reward_head == "two_hot"
    network = perceptron(c, features, c.bins if two_hot else 1, c.head_layers)
    if c.zero_reward:
        nn.init.zeros_(network[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(network[-1].bias)  # type: ignore[arg-type]
    return TwoHotHead(network, c.bins, c.bin_limit, "model.bin_limit") if two_hot else NormalHead(network)


def pixel_decoder(config: ModelConfig, shape: tuple[int, int, int], features: int) -> ConvDecoder | PatchDecoder | None:
    """What rebuilds pictures of a shape (C, X, Y) from features `[M, F]`; None where nothing does."""
    if config.pixels.loss != "reconstruction":
        return None
    if config.pixels.encoder == "patches":
        return PatchDecoder(features, config.pixels, averaged_shape(shape))
    return ConvDecoder(features, config.depth)


def code_reader(config: ModelConfig, features: int, code: int) -> nn.Sequential | None:
    """What is held against a picture's code `[M, E]`; None where a decoder does that.

    From features `[M, F]`, or for `contrast` from the deterministic state `[M, D]` alone.
    """
    if config.pixels.loss == "reconstruction":
        return None
    return mlp(
        config.deter if config.pixels.loss == "contrast" else features,
        config.pixels.units,
        1,
        code,
        config.activation,
        norm=True,
    )


class TwoHotHead(nn.Module):
    """A scalar as a distribution over bins that are even in symlog space (arXiv:2301.04104, Eq. 9-10).

    Args:
        network: maps features `[M, F]` to logits `[M, bins]`.
        bins: number of bins, odd so that zero is one of them.
        limit: outermost bins in symlog units; targets beyond symexp(limit) are clipped to it.
        setting: the key that `limit` comes from.
    """

    def __init__(self, network: nn.Module, bins: int, limit: float, setting: str = "limit") -> None:
        super().__init__()
        self.network, self.limit, self.setting = network, limit, setting
        self.support: Tensor
        self.largest: Tensor
        self.register_buffer("support", symexp(torch.linspace(-limit, limit, bins)), persistent=False)
        self.register_buffer("largest", torch.zeros(()), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Expected value `[M]`."""
        return self.decoded(self.network(features))

    def decoded(self, logits: Tensor) -> Tensor:
        """Expected value `[...]` of logits `[..., bins]`."""
        value: Tensor = two_hot_decode(widen(logits), self.support)
        return value

    def loss(self, features: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy `[M]` in nats to the two-hot code of `target` `[M]`; `largest` remembers its magnitude."""
        return self.losses(features, [target])[0]

    def losses(self, features: Tensor, targets: Sequence[Tensor]) -> list[Tensor]:
        """`loss` to each of several targets, from one pass of the network."""
        with torch.no_grad():
            self.largest.copy_(torch.stack([self.largest, *(target.abs().amax() for target in targets)]).amax(0))
        logits = widen(self.network(features))
        return [two_hot_cross_entropy(logits, widen(target), self.support) for target in targets]


class NormalHead(nn.Module):
    """A scalar as the mean of a Gaussian with unit variance (arXiv:1811.04551, Sec. 2)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor) -> Tensor:
        """Expected value `[M]`."""
        value: Tensor = self.network(features).squeeze(-1)
        return value

    def loss(self, features: Tensor, target: Tensor) -> Tensor:
        """Negative log-likelihood `[M]` in nats, without its constant."""
        return 0.5 * F.mse_loss(widen(self(features)), widen(target), reduction="none")


class ConvDecoder(nn.Module):
    """Features `[M, F]` to the mean image `[M, 3, 64, 64]` (arXiv:1811.04551, App. A)."""

    def __init__(self, features: int, depth: int) -> None:
        super().__init__()
        self.project = nn.Linear(features, 32 * depth)
        widths = [32 * depth, 4 * depth, 2 * depth, depth, 3]
        layers: list[nn.Module] = []
        for before, after, kernel in zip(widths, widths[1:], (5, 5, 6, 6), strict=False):
            layers += [nn.ConvTranspose2d(before, after, kernel, stride=2), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers[:-1]).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, features: Tensor) -> Tensor:
        image: Tensor = self.layers[1:](self._unfold(self.project(features)))
        return image

    def _unfold(self, seed: Tensor) -> Tensor:
        """The first transposed convolution of one pixel `[M, 32*depth]`, `[M, 4*depth, 5, 5]` in channels_last.

        It is a matrix product, and as such takes a tenth of the convolution's time on a CPU.
        """
        first = self.layers[0]
        weight = first.weight.permute(0, 2, 3, 1)  # a view, as the memory lies
        values = (seed @ weight.flatten(1)).unflatten(1, weight.shape[1:]) + first.bias
        image: Tensor = values.permute(0, 3, 1, 2)
        return image
