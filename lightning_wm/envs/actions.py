"""Actions from [-1, 1] to a simulator's own bounds."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def scaled(
    action: Tensor, low: NDArray[np.float64], high: NDArray[np.float64], live: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Actions `[E, A]` from [-1, 1], where they are clipped to, to the simulator's bounds.

    Args:
        action: `[E, A]`.
        low: lower bounds `[A]`.
        high: upper bounds `[A]`.
        live: rows `[E]` whose action will be used.

    Raises:
        ValueError: another shape, or a live row that is not finite.
    """
    values = action.detach().to("cpu", torch.float64).numpy()
    if values.shape != (len(live), len(low)):
        raise ValueError(f"the action has shape {list(values.shape)}, expected [{len(live)}, {len(low)}]")
    if not np.isfinite(values).all():
        bad = [row for row in np.flatnonzero(live) if not np.isfinite(values[row]).all()]
        if bad:
            raise ValueError(
                f"the action of environment {bad[0]} is not finite: {values[bad[0]].tolist()}; "
                f"expected {values.shape[1]} numbers in [-1, 1]"
            )
    half = (high - low) / 2
    clipped: NDArray[np.float64] = np.clip(low + half + half * values, low, high)
    return clipped
