"""A Lightning callback of the user's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as pl

from lightning_wm.registry import register


@dataclass(frozen=True)
class NotesConfig:
    """Where and how often a line is written."""

    path: str | None = None
    """The file; null writes none."""
    every: int = 1
    """Turns between two lines."""


@register("callback", "my_notes")
class Notes(pl.Callback):
    """Writes down the number of updates after every turn."""

    Config = NotesConfig

    def __init__(self, config: NotesConfig | None = None) -> None:
        self.config = config or NotesConfig()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Append one line."""
        if self.config.path is not None and trainer.current_epoch % self.config.every == 0:
            with Path(self.config.path).open("a", encoding="utf-8") as file:
                file.write(f"{trainer.global_step}\n")
