"""What callbacks measure, on its way to every logger."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl


class Reporter:
    """Hands metrics to the Trainer's loggers at once, beside what `self.log` collects.

    Args:
        counters: of the run; every line carries them.
    """

    def __init__(self, counters: Any) -> None:
        self.counters = counters

    def __call__(self, trainer: pl.Trainer, metrics: dict[str, float]) -> None:
        """Log on rank 0."""
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=trainer.global_step)
