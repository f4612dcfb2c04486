"""What a world model is trained on, in nats per step unless it says otherwise."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_wm.models.config import ModelConfig
from lightning_wm.models.distributions import widen
from lightning_wm.models.heads import NormalHead, TwoHotHead
from lightning_wm.models.latents import Latent, Statistics


def summed(measured: Mapping[str, Tensor]) -> Tensor:
    """What is trained: the sum of the entries that start with `loss/`."""
    return torch.stack([value for name, value in measured.items() if name.startswith("loss/")]).sum()


def reconstruction(decoded: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
    """Negative log-likelihood of unit Gaussians, without its constant; each tensor `[M, ...]`."""
    first = widen(next(iter(decoded.values())))
    total = first.new_zeros(())
    for name, mean in decoded.items():
        target = targets[name]
        total = total + 0.5 * F.mse_loss(widen(mean), widen(target), reduction="sum") / target.shape[0]
    return total


def mean_where(real: Tensor, values: Tensor) -> Tensor:
    """Mean of `values` where `real`, of the same shape, is 1 and not 0; 0 where it is nowhere."""
    return (values * real).sum() / real.sum().clamp_min(1.0)


def unexplained(decoded: Tensor, target: Tensor, variance: Tensor) -> Tensor:
    """Share of the variance of pictures `[M, ...]` that is not rebuilt, of `variance` in all; 1 for the mean."""
    squares = F.mse_loss(widen(decoded), widen(target), reduction="sum") / target.shape[0]
    return squares / variance


def barlow(read: Tensor, code: Tensor, off_diagonal: float = 5e-4) -> Tensor:
    """Redundancy reduction between what was read from a state and the code, `[M, E]` (arXiv:2103.03230, Eq. 1).

    The cross-correlation of their dimensions over the M is held to the identity. The code moves by what else depends
    on it, not by this (R2-Dreamer).
    """
    left, right = (_standardised(widen(values)) for values in (read, code.detach()))
    correlation = left.t() @ right / left.shape[0]  # E, E
    diagonal = correlation.diagonal()
    others = correlation.square().sum() - diagonal.square().sum()
    return (1.0 - diagonal).square().sum() + off_diagonal * others


def contrast(read: Tensor, code: Tensor, temperature: float = 0.1) -> Tensor:
    """Nats to tell the code `[M, E]` that belongs to each row of `read` from all M (InfoNCE, arXiv:1807.03748)."""
    logits = F.normalize(widen(read), dim=1) @ F.normalize(widen(code), dim=1).t() / temperature  # M, M
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


CODES = {"barlow": barlow, "contrast": contrast}
"""What holds a state to a picture's code without a decoder."""


def code_error(read: Tensor, code: Tensor) -> Tensor:
    """1 - cosine between what was read from a state and the code, `[M]`."""
    return 1.0 - F.cosine_similarity(widen(read), widen(code), dim=-1)


def _standardised(values: Tensor) -> Tensor:
    centred = values - values.mean(0)
    return centred / centred.square().mean(0).add(1e-8).sqrt()


def observation_error(decoded: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
    """Mean squared error `[M]`, each kind of observation weighted alike."""
    errors = [(widen(decoded[name]) - widen(target)).square().flatten(1).mean(1) for name, target in targets.items()]
    return torch.stack(errors).mean(0)


def reward(head: TwoHotHead | NormalHead, features: Tensor, rewards: Tensor, is_init: Tensor) -> Tensor:
    """The head's loss of `[M, F]` and `[M, 1]`; the reward at an episode's first observation belongs to no action."""
    real = 1.0 - is_init.squeeze(-1).to(features.dtype)
    nats = head.loss(features, rewards.squeeze(-1).to(features.dtype))
    return mean_where(real, nats)


def continuation(logits: Tensor, terminated: Tensor) -> Tensor:
    """Cross-entropy of the probability to go on; both `[M, 1]`."""
    logits = widen(logits.squeeze(-1))
    return F.binary_cross_entropy_with_logits(logits, 1.0 - terminated.squeeze(-1).to(logits.dtype))


def balanced_kl(latent: Latent, posterior: Statistics, prior: Statistics, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """The KL, and its balanced, thresholded loss (arXiv:2301.04104, Eq. 5)."""
    dynamics = latent.kl(_stopped(posterior), prior)
    representation = latent.kl(posterior, _stopped(prior))
    held = [nats.clamp_min(config.free_nats) for nats in (dynamics, representation)]
    return dynamics.mean(), (config.kl_dynamics * held[0] + config.kl_representation * held[1]).mean()


def _stopped(statistics: Statistics) -> Statistics:
    return tuple(value.detach() for value in statistics)
