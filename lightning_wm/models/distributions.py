"""Densities, divergences and scalar codes of the model's heads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchrl.modules import symexp, symlog
from torchrl.modules.models.model_based import two_hot_cross_entropy, two_hot_decode

__all__ = ["NormalHead", "TwoHotHead", "categorical_kl", "gaussian_kl", "symexp", "symlog", "widen"]


def widen(value: Tensor) -> Tensor:
    """At least float32: losses, divergences, means and deviations are never computed in half precision."""
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def gaussian_kl(mean_q: Tensor, std_q: Tensor, mean_p: Tensor, std_p: Tensor) -> Tensor:
    """KL(q || p) of diagonal Gaussians in nats, summed over the last dimension."""
    ratio = std_q / std_p
    shift = (mean_q - mean_p) / std_p
    return (0.5 * (ratio.square() + shift.square() - 1.0) - ratio.log()).sum(-1)


def categorical_kl(log_q: Tensor, log_p: Tensor) -> Tensor:
    """KL(q || p) in nats of categoricals given by their log-probabilities over the last dimension."""
    return (log_q.exp() * (log_q - log_p)).sum(-1)


class TwoHotHead(nn.Module):
    """A scalar as a distribution over bins that are even in symlog space (arXiv:2301.04104, Eq. 9-10).

    Args:
        network: maps features `[M, F]` to logits `[M, bins]`.
        bins: number of bins, odd so that zero is one of them.
        limit: outermost bins in symlog units; targets beyond symexp(limit) are clipped to it.
    """

    def __init__(self, network: nn.Module, bins: int, limit: float) -> None:
        super().__init__()
        self.network = network
        self.support: Tensor
        self.register_buffer("support", symexp(torch.linspace(-limit, limit, bins)), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Expected value `[M]`."""
        value: Tensor = two_hot_decode(widen(self.network(features)), self.support)
        return value

    def loss(self, features: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy `[M]` in nats to the two-hot code of `target` `[M]`."""
        nats: Tensor = two_hot_cross_entropy(widen(self.network(features)), widen(target), self.support)
        return nats


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
