"""Divergences, and the precision and scale that heads and losses compute in."""

from __future__ import annotations

import torch
from torch import Tensor
from torchrl.modules import symexp, symlog

__all__ = ["categorical_kl", "gaussian_kl", "symexp", "symlog", "widen"]


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
