"""What the ranks of a run do together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import lightning.pytorch as pl
import torch

from lightning_wm.errors import LightningWMError

T = TypeVar("T")


def from_ranks(trainer: pl.Trainer, own: T) -> list[T]:
    """What every rank comes with, in the order of ranks; every rank must call it at the same place."""
    if trainer.world_size == 1:
        return [own]
    everyone: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(everyone, own)
    return everyone


def raise_together(trainer: pl.Trainer, error: LightningWMError | None) -> None:
    """Raise where any rank comes with an error; every rank must call it at the same place.

    A rank that raised by itself would leave the others waiting in their next collective call, which ends in an
    error of theirs and another exit code.

    Raises:
        LightningWMError: this rank's own error, or the class and message of the first rank that has one.
    """
    if trainer.world_size > 1:
        errors = from_ranks(trainer, None if error is None else (type(error), str(error)))
        rank, first = next(((rank, other) for rank, other in enumerate(errors) if other is not None), (0, None))
        if error is None and first is not None:
            kind, message = first
            error = kind(f"on rank {rank}: {message}")
        if error is not None:
            error.everywhere = True
    if error is not None:
        raise error


def summed_over_ranks(trainer: pl.Trainer, numbers: Sequence[int]) -> list[int]:
    """Each number's sum over all ranks; every rank must call it at the same place."""
    if trainer.world_size == 1:
        return list(numbers)
    own = torch.tensor(numbers, dtype=torch.float64, device=trainer.strategy.root_device)
    total: torch.Tensor = trainer.strategy.reduce(own, reduce_op="sum")
    return [int(value) for value in total.tolist()]


def report(trainer: pl.Trainer, metrics: dict[str, float]) -> None:
    """Hand metrics to the Trainer's loggers at once, beside what `self.log` collects; on rank 0 alone."""
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step)
