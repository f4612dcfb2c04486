"""Lightning's side of replay: batches that are keyed by the update they are for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only
from tensordict import TensorDict, TensorDictBase

from lightning_wm.config.schema import ReplayConfig
from lightning_wm.data.replay import Replay
from lightning_wm.data.views import View, Windows
from lightning_wm.errors import ConfigError, UserError
from lightning_wm.protocols import Spaces
from lightning_wm.rng import generator

VALIDATION = 10**9
"""First counter of validation batches, beyond any update."""


class ReplayBatches:
    """A source of batches for Lightning's loops.

    It has a length, so Lightning fetches a batch when it needs it and not one
    ahead. It has a (void) state, because what it gives depends on counters that
    are in the checkpoint anyway: it can be resumed anywhere.
    """

    def __init__(self, draw: Callable[[int], TensorDict], length: int) -> None:
        self._draw = draw
        self._length = length

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self._length

    def __iter__(self) -> Iterator[TensorDict]:
        """Batches `[B, T]`, each drawn at the moment it is asked for."""
        for number in range(self._length):
            yield self._draw(number)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: see the class."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to load."""


class ReplayDataModule(LightningDataModule):
    """Batches of replay, as many an epoch as there are updates in a turn.

    Batch u is drawn with the key (seed, replay, rank, u), where u is the
    Trainer's `global_step` when it is fetched. Every rank owns `folder/rankR`.

    A checkpoint holds replay's counts, and a fit that goes on from one takes
    replay back to them. Lightning saves a datamodule's state for rank 0 alone:
    with several ranks the callback `TurnCheckpoint` saves and restores them.
    """

    def __init__(
        self,
        config: ReplayConfig,
        spaces: Spaces,
        folder: Path | str | None = None,
        seed: int = 0,
        updates: int = 100,
        *,
        pretrain: int = 0,
        validation_batches: int = 2,
        slack: int | None = None,
        view: View | None = None,
    ) -> None:
        """Nothing is opened before `replay` is first used.

        Args:
            config: capacity, B and T.
            spaces: what the environment shows and takes.
            folder: where the shards lie (`rank0/`, …); None for a temporary folder.
            seed: seed of the stream `replay`.
            updates: batches of an epoch.
            pretrain: batches of epoch 0 instead, if not 0; needs `Trainer(reload_dataloaders_every_n_epochs=1)`,
                since Lightning otherwise fixes the number for a whole fit.
            validation_batches: batches of a validation epoch, the same keys every time.
            slack: see `Replay.create`.
            view: what a batch is; None for windows of `config.batch` and `config.length`.

        Raises:
            ConfigError: `updates` is not positive.
        """
        super().__init__()
        if updates < 1:
            raise ConfigError([f"trainer.updates_per_turn must be at least 1, got {updates}"])
        self.config = config
        self.spaces = spaces
        self.folder = None if folder is None else Path(folder)
        self.seed = seed
        self.updates = updates
        self.pretrain = pretrain
        self.validation_batches = validation_batches
        self.slack = slack
        self.view = view or Windows(config.batch, config.length)
        self.seconds = 0.0
        """Wall time spent on drawing batches so far."""
        self._replay: Replay | None = None
        self._shape = torch.Size()

    @property
    def rank(self) -> int:
        """This process among all that train."""
        return int(self.trainer.global_rank if self.trainer else vars(rank_zero_only).get("rank", 0))

    @property
    def replay(self) -> Replay:
        """This rank's replay, opened or made on first use."""
        if self._replay is None:
            shard = None if self.folder is None else self.folder / f"rank{self.rank}"
            self._replay = Replay.create(shard, self.spaces, self.config.capacity, self.slack)
        return self._replay

    def train_dataloader(self) -> ReplayBatches:
        """The batches of one epoch.

        Raises:
            UserError: the fit goes on from a checkpoint that says nothing of replay.
        """
        self._refuse_other_replay()
        first = self.pretrain > 0 and self.trainer is not None and self.trainer.current_epoch == 0
        return ReplayBatches(self._train_batch, self.pretrain if first else self.updates)

    def val_dataloader(self) -> ReplayBatches:
        """The batches of one validation epoch, from the same replay."""
        return ReplayBatches(lambda number: self._batch(VALIDATION + number), self.validation_batches)

    def state_dict(self) -> dict[str, Any]:
        """Counts of this rank's replay, which is on the disk when this returns; with several ranks their number."""
        ranks = self.trainer.world_size if self.trainer else 1
        return {"ranks": ranks} | (self.replay.state() if ranks == 1 else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take replay back to what `state_dict` described, where a fit goes on from it.

        Raises:
            UserError: replay is another one, or has moved on too far.
        """
        fitting = self.trainer is None or self.trainer.state.fn == TrainerFn.FITTING
        if fitting and state_dict.get("ranks") == 1 == (self.trainer.world_size if self.trainer else 1):
            self.replay.restore(state_dict)

    def _refuse_other_replay(self) -> None:
        if self.trainer is None or self.trainer.ckpt_path is None or self.replay.restored:
            return
        raise UserError(
            f"{self.trainer.ckpt_path} says nothing of the replay of rank {self.rank}, which may have moved on since; "
            "expected a checkpoint that was saved with a ReplayDataModule and, on several ranks, the callback "
            "TurnCheckpoint, which is to be there now too; where replay is to stay as it is, call "
            "data.replay.restore(data.replay.state()) before fit"
        )

    def transfer_batch_to_device(self, batch: object, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch, asynchronously where memory is page-locked; pixels travel as uint8."""
        if not isinstance(batch, TensorDictBase):
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        if not batch.batch_size:  # double and half precision plugins drop it
            batch.batch_size = self._shape
        return batch.to(device, non_blocking=device.type == "cuda")

    def _train_batch(self, number: int) -> TensorDict:
        if self.trainer is None:
            return self._batch(number)
        several = self.trainer.accumulate_grad_batches
        update = self.trainer.global_step
        if several == 1:
            return self._batch(update)
        # with gradient accumulation several batches share an update
        fetched = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        return self._batch(update, fetched % several)

    def _batch(self, *counters: int) -> TensorDict:
        self.replay.storage.pin = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        begin = time.perf_counter()
        drawn = generator(self.seed, "replay", self.rank, *counters)
        batch = self.view.sample(self.replay, drawn)
        self._shape = batch.batch_size
        self.seconds += time.perf_counter() - begin
        return batch
