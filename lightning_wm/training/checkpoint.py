"""A checkpoint at the end of every turn and after a signal; replay is referenced, never embedded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint

from lightning_wm.errors import Interrupted, LightningWMError, UserError
from lightning_wm.runs.checkpoint import Added, Rank, newest_first
from lightning_wm.training.ranks import from_ranks, raise_together
from lightning_wm.training.state import RunState, replay_data
from lightning_wm.training.tensorboard import EnvStepTensorBoard


class TurnCheckpoint(Checkpoint):
    """Writes `turn-NNNNN.ckpt` after every turn, keeps the newest two, and `best.ckpt` beside them.

    A signal that came while learning is found before the next update:
    `turn-NNNNN_MMMMM.ckpt`, M updates after the end of turn N, is written and
    the run ends. It goes on with that update.

    What it adds to Lightning's file under the key `lightning_wm`: counters
    and replay state of every rank, and the length of metrics.jsonl. On
    resume they are put back, and what was written later is discarded.

    Args:
        folder: for checkpoints.
        state: of the run; its counters are saved.
        metrics: the file whose length is noted, or None.
        keep: how many of the newest are kept.
    """

    def __init__(
        self,
        folder: Path,
        state: RunState,
        metrics: Path | None = None,
        keep: int = 2,
    ) -> None:
        self.folder, self.state, self.metrics, self.keep = folder, state, metrics, keep
        self._between = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.state.is_best:  # an evaluation was owed
            self._save_best(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        if signal := self.state.signals.agreed(trainer):
            self.state.tick()
            self._between = True
            self._save(trainer, f"turn-{self.state.counters.turns:05d}_{batch_idx:05d}.ckpt")
            raise Interrupted(signal)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # A turn that is killed before its own file is there is played again, best.ckpt included. Alone that is no run.
        first = self.state.counters.turns == 1
        if self.state.is_best and not first:
            self._save_best(trainer, pl_module)
        self._save(trainer, f"turn-{self.state.counters.turns:05d}.ckpt")
        if self.state.is_best and first:
            self._save_best(trainer, pl_module)
        if signal := self.state.signals.agreed(trainer):
            raise Interrupted(signal)

    def _save(self, trainer: pl.Trainer, name: str) -> None:
        """Write a checkpoint on rank 0, then remove the oldest."""
        trainer.save_checkpoint(self.folder / name, weights_only=False)
        if trainer.is_global_zero:
            for old in newest_first(self.folder)[self.keep :]:
                old.unlink()

    def _save_best(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Weights alone: for evaluation, not for going on."""
        checkpoint: dict[str, Any] = {"state_dict": pl_module.state_dict()}
        self.on_save_checkpoint(trainer, pl_module, checkpoint)
        if trainer.is_global_zero:
            trainer.strategy.checkpoint_io.save_checkpoint(checkpoint, self.folder / "best.ckpt")

    def _gather(self, trainer: pl.Trainer) -> list[dict[str, Any]]:
        """Counters of every rank and the state of its replay, which is then on the disk, in the order of ranks."""
        state, error = {"counters": dict(self.state.counters)}, None
        try:
            state["replay"] = replay_data(trainer).replay.state()
        except LightningWMError as met:
            error = met
        raise_together(trainer, error)
        return from_ranks(trainer, state)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        ranks = [Rank.model_validate(rank) for rank in self._gather(trainer)]
        added = Added(sealed=True, mid_turn=self._between, ranks=ranks, metrics_bytes=_synced(self.metrics))
        checkpoint["lightning_wm"] = added.as_json()
        if self._between:
            # The batch that Lightning has fetched is not begun: it is fetched again.
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
            for part in ("total", "current"):
                progress[part]["ready"] = progress[part]["completed"]
            progress["is_last_batch"] = False

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        saved = checkpoint["lightning_wm"]
        if len(saved["ranks"]) != trainer.world_size:
            raise UserError(
                f"the run was trained on {len(saved['ranks'])} ranks, now there are {trainer.world_size}; "
                f"type trainer.devices={len(saved['ranks'])}, or run=<a new folder>"
            )
        rank = saved["ranks"][trainer.global_rank]
        replay_data(trainer).replay.restore(rank["replay"])
        self.state.counters.restore(rank["counters"])
        for logger in trainer.loggers:
            if isinstance(logger, EnvStepTensorBoard):
                logger.resume(int(checkpoint["global_step"]))
        if trainer.is_global_zero and self.metrics is not None and self.metrics.exists():
            with self.metrics.open("r+b") as file:
                file.truncate(min(saved["metrics_bytes"], self.metrics.stat().st_size))


def _synced(path: Path | None) -> int:
    """Length of a file that is on the disk when this returns; 0 without one."""
    if path is None or not path.exists():
        return 0
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return file.seek(0, os.SEEK_END)
