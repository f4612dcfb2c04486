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
    for name, target in targets.items():
        total = total + 0.5 * F.mse_loss(widen(decoded[name]), widen(target), reduction="sum") / target.shape[0]
    return total


def observation_error(decoded: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
    """Mean squared error `[M]`, each kind of observation weighted alike."""
    errors = [(widen(decoded[name]) - widen(target)).square().flatten(1).mean(1) for name, target in targets.items()]
    return torch.stack(errors).mean(0)


def reward(head: TwoHotHead | NormalHead, features: Tensor, rewards: Tensor, is_init: Tensor) -> Tensor:
    """The head's loss of `[M, F]` and `[M, 1]`; the reward at an episode's first observation belongs to no action."""
    real = 1.0 - is_init.squeeze(-1).to(features.dtype)
    nats = head.loss(features, rewards.squeeze(-1).to(features.dtype))
    return (nats * real).sum() / real.sum().clamp_min(1.0)


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
