"""What a model does not know: predictors that agree only where there was data (arXiv:2005.05960, Sec. 3)."""

from __future__ import annotations

from torch import Tensor

from lightning_wm.models.distributions import widen
from lightning_wm.models.networks import Stacked


class Ensemble(Stacked):
    """Perceptrons that predict the posterior from the deterministic state alone.

    What they disagree on is a function of one state and needs no further model step. They see D numbers and predict S.
    """

    def loss(self, deter: Tensor, target: Tensor) -> Tensor:
        """Negative log-likelihood of unit Gaussians in nats, a scalar: the mean over members and `[M]` rows.

        Neither `deter` `[M, D]` nor `target` `[M, S]` gets a gradient.
        """
        error = widen(self(deter.detach())) - widen(target.detach())
        return 0.5 * error.square().sum(-1).mean()

    def disagreement(self, deter: Tensor) -> Tensor:
        """Variance over members, mean over dimensions, `[M]`; differentiable in `deter` `[M, D]`."""
        return widen(self(deter)).var(0).mean(-1)
