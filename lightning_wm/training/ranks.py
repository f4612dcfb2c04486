"""What one rank has met ends all of them, with the same exit code."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch

from lightning_wm.errors import LightningWMError


def agree(trainer: pl.Trainer, error: LightningWMError | None) -> None:
    """Raise where any rank comes with an error; every rank must call it at the same place.

    A rank that raised by itself would leave the others waiting in their next collective call, which ends in an
    error of theirs and another exit code.

    Raises:
        LightningWMError: this rank's own error, or the class and message of the first rank that has one.
    """
    if trainer.world_size > 1:
        here = None if error is None else (type(error), str(error))
        met: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(met, here)
        first = next((rank for rank, one in enumerate(met) if one is not None), None)
        if error is None and first is not None:
            kind, message = met[first]
            error = kind(f"on rank {first}: {message}")
        if error is not None:
            error.everywhere = True
    if error is not None:
        raise error
