"""Actions of replay moved to where the model foretells worst, so that plans find less to exploit."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor

from lightning_wm.models.freezing import frozen
from lightning_wm.models.losses import summed
from lightning_wm.protocols import TrainedModel


def challenged(model: TrainedModel, batch: TensorDictBase, radius: float, generator: torch.Generator) -> TensorDictBase:
    """The batch with its actions moved uphill on the model's loss, within their bounds.

    A fast gradient sign step per window (arXiv:2512.09929, Sec. 4; arXiv:1412.6572), whose length is uniform between 0
    and the radius: what was seen stays what is to be foretold, so the model learns to change little where actions do.
    The source moves latents as well; here they are inferred, not given.

    Args:
        model: what is to learn; its parameters, gradients and statistics stay as they are.
        batch: `[B, T]` of replay.
        radius: longest step, in units of the action, which lies within -1 and 1.
        generator: draws the lengths.
    """
    slope = _slope(model, batch)  # B, T, A
    length = radius * torch.rand(len(batch), 1, 1, generator=generator).to(slope)
    action = batch["action"]
    moved = (action + length * slope.sign()).clamp(-1.0, 1.0)
    # Where a batch holds an action out of bounds, it stays there.
    return batch.replace({"action": torch.where(action.abs() <= 1.0, moved, action)})


@torch.enable_grad()
def _slope(model: TrainedModel, batch: TensorDictBase) -> Tensor:
    """Gradient of the loss with respect to the actions, without sampling."""
    action, training = batch["action"].detach().clone().requires_grad_(), model.training
    model.train(False)  # a second look at the same batch is not to count in the statistics
    try:
        with frozen(model):
            _, measured = model.observe(batch.replace({"action": action}))
            slope: Tensor = torch.autograd.grad(summed(measured), action)[0]
    finally:
        model.train(training)
    return slope
