"""The weight of what is rebuilt, steered so that the latent carries as many nats as are asked for."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_wm.errors import UserError
from lightning_wm.models.config import ModelConfig
from lightning_wm.models.over_ranks import gathered

RATE = 0.003
"""Largest change of the weight's logarithm in one update: the KL follows a weight within some hundred updates."""

REACH = math.log(100.0)
"""How far the logarithm goes from its start: a latent that has nothing more to say does not drive it on."""


class SteeredWeight(nn.Module):
    """A weight that grows while the KL is below `target` and shrinks while it is above.

        log w <- log w + RATE clip((target - KL) / target, -1, 1)

    A Lagrange multiplier's ascent as in GECO (arXiv:1810.00597, Alg. 1), with the KL as what is constrained. The
    logarithm is a buffer, so a resumed run goes on with it.

    Args:
        start: w before the first update.
        target: nats per agent step.
    """

    log: Tensor

    def __init__(self, start: float, target: float) -> None:
        super().__init__()
        self.start, self.target = math.log(start), target
        self.register_buffer("log", torch.tensor(self.start))

    @torch.no_grad()
    def follow(self, kl: Tensor) -> None:
        """Take in the mean KL of a batch in nats; ranks take the mean of theirs. One that is not finite counts not."""
        short = (self.target - gathered(kl.detach()[None]).mean()) / self.target
        step = RATE * short.clamp(-1.0, 1.0).nan_to_num(0.0)
        self.log.copy_((self.log + step).clamp(self.start - REACH, self.start + REACH))

    def forward(self) -> Tensor:
        """w."""
        return self.log.exp()


def steered_weight(config: ModelConfig, weighed: bool) -> SteeredWeight:
    """The weight that `config` asks for.

    Args:
        config: with `kl_target` above 0.
        weighed: whether anything is rebuilt with that weight.

    Raises:
        UserError: nothing is, or it begins at 0.
    """
    if not weighed:
        raise UserError(
            f"model.kl_target={config.kl_target}: there is nothing to steer, since no state vector and no picture is "
            "rebuilt with the weight model.reconstruction_scale; type model.kl_target=0"
        )
    if not config.reconstruction_scale:
        raise UserError(
            f"model.kl_target={config.kl_target} steers model.reconstruction_scale from where it begins, and 0 leads "
            "nowhere; type model.reconstruction_scale=1"
        )
    return SteeredWeight(config.reconstruction_scale, config.kl_target)
