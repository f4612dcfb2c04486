"""What a model does not know: predictors that agree only where there was data (arXiv:2005.05960, Sec. 3)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from lightning_wm.models.distributions import widen
from lightning_wm.models.networks import ACTIVATIONS


class Ensemble(nn.Module):
    """`members` perceptrons of equal shape, computed as one; each has initial weights of its own.

    They predict the posterior from the deterministic state alone: what they
    disagree on is a function of one state and needs no further model step.

    Args:
        members: K, at least 2.
        inputs: D.
        units: width of the hidden layers.
        layers: number of hidden layers.
        outputs: S.
        activation: a name of `networks.ACTIVATIONS`.
    """

    def __init__(self, members: int, inputs: int, units: int, layers: int, outputs: int, activation: str) -> None:
        super().__init__()
        widths = [inputs, *[units] * layers, outputs]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for before, after in pairwise(widths):
            # As nn.Linear draws them.
            bound = 1.0 / math.sqrt(before)
            self.weights.append(nn.Parameter(torch.empty(members, before, after).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(members, 1, after).uniform_(-bound, bound)))
        self.members = members
        self.activation = ACTIVATIONS[activation]()

    def forward(self, deter: Tensor) -> Tensor:
        """Predictions `[K, M, S]` from `[M, D]`."""
        values = deter.expand(self.members, *deter.shape)
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            values = torch.baddbmm(bias, values if index == 0 else self.activation(values), weight)
        return values

    def loss(self, deter: Tensor, target: Tensor) -> Tensor:
        """Negative log-likelihood of unit Gaussians in nats, a scalar: the mean over members and `[M]` rows.

        Neither `deter` `[M, D]` nor `target` `[M, S]` gets a gradient.
        """
        error = widen(self(deter.detach())) - widen(target.detach())
        return 0.5 * error.square().sum(-1).mean()

    def disagreement(self, deter: Tensor) -> Tensor:
        """Variance over members, mean over dimensions, `[M]`; differentiable in `deter` `[M, D]`."""
        return widen(self(deter)).var(0).mean(-1)
