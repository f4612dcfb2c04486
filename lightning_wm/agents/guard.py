"""Updates that are not finite stay out of a model; what was to blame is named and kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from tensordict import TensorDictBase
from torch import Tensor

from lightning_wm.errors import DiskError, NumericsError, UserError
from lightning_wm.runs.files import write_tensors

SCALER_STEPS = 16
"""A loss scaler (precision 16-mixed) begins at 2^16 and halves with every overflow: so many more may be skipped."""


class UpdateGuard:
    """Skips an update whose loss or gradient is not finite, counts it, and ends the run when they persist.

    A skipped update leaves weights, moments, Adam's step and the buffers that
    the forward pass moved (running statistics) as they were, on every rank.

    Args:
        patience: skipped updates in a row after which the run ends.
    """

    def __init__(self, patience: int = 3) -> None:
        self.patience = patience
        self.skipped = 0
        """In the whole run."""
        self.streak = 0
        """In a row, up to now."""
        self._batch: TensorDictBase | None = None
        self._measured: dict[str, Tensor] = {}
        self._before: list[tuple[Tensor, Tensor]] = []

    def begin(self, batch: TensorDictBase, moved: Iterable[Tensor]) -> None:
        """Remember what an update starts from; before the forward pass.

        Args:
            batch: what is learned from.
            moved: buffers that the forward pass may change.
        """
        self._batch = batch
        self._before = [(buffer, buffer.clone()) for buffer in moved]

    def tie(self, loss: Tensor, measured: Mapping[str, Tensor]) -> Tensor:
        """The loss, unchanged where it is finite; otherwise one whose whole gradient is not.

        So a rank's bad loss reaches the others with the all-reduced gradient, and all skip the same update.
        """
        self._measured = {name: value.detach() for name, value in measured.items()}
        return loss * (1.0 + 0.0 * loss.detach())

    def admits(self, norms: Iterable[Tensor]) -> bool:
        """Whether the gradient's norms, taken after the all-reduce, allow the update."""
        finite = bool(torch.stack(list(norms)).isfinite().all())
        if finite:
            self.streak = 0
        return finite

    def skip(self, module: pl.LightningModule, optimizer: torch.optim.Optimizer) -> None:
        """Undo the update and count it; called on every rank alike.

        Raises:
            NumericsError: it is the last of `patience` in a row; names the first bad tensor and the batch's file.
        """
        self.skipped += 1
        self.streak += 1
        if self.streak >= self.patience + (SCALER_STEPS if scales(module) else 0):
            error = NumericsError(self._verdict(module))
            error.everywhere = True
            raise error
        with torch.no_grad():
            for buffer, before in self._before:
                buffer.copy_(before)
        # Without gradients the optimiser leaves weights, moments and its step as they are, and the update still counts.
        optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, int]:
        """For the checkpoint."""
        return {"skipped": self.skipped, "streak": self.streak}

    def restore(self, state: Mapping[str, int]) -> None:
        """Go on from `state()`."""
        self.skipped, self.streak = int(state["skipped"]), int(state["streak"])

    # ---- who was it

    def _verdict(self, module: pl.LightningModule) -> str:
        trainer, rank = module.trainer, module.global_rank
        order, name = self._first(module)
        path = Path(trainer.default_root_dir) / f"bad_batch-rank{rank}.pt"
        kept = self._keep(path, module, name)
        faults = [(order, rank, name, kept)]
        if trainer.world_size > 1:  # after the file is written: rank 0's end takes the others with it
            gathered: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, faults[0])
            faults = gathered
        order, rank, name, kept = min(faults)
        where = f" on rank {rank}" if trainer.world_size > 1 else ""
        return (
            f"{self.streak} updates in a row were not finite (the last is update {module.global_step}); the first bad "
            f"tensor is {name}{where}; {kept}. Expected finite losses and gradients: lower agent.learning_rate, or "
            "look at that batch"
        )

    def _first(self, module: pl.LightningModule) -> tuple[int, str]:
        """Of the batch, the losses and the gradients, in this order, the first that is not finite."""
        batch = {} if self._batch is None else {f"batch/{k}": v for k, v in self._batch.flatten_keys("/").items()}
        gradients = {f"the gradient of {name}": p.grad for name, p in module.named_parameters() if p.grad is not None}
        for order, tensors in enumerate((batch, self._measured, gradients)):
            for name, value in tensors.items():
                if not bool(torch.isfinite(value).all()):
                    return order, name
        return 3, "the gradient's norm (every entry is finite)"

    def _keep(self, path: Path, module: pl.LightningModule, name: str) -> str:
        """Write the batch and the losses as plain tensors; says where they are."""
        batch = {} if self._batch is None else self._batch.to("cpu").to_dict()
        losses = {key: value.cpu() for key, value in self._measured.items()}
        content = {"update": module.global_step, "first": name, "losses": losses, "batch": batch}
        try:
            write_tensors(path, content)
        except (DiskError, UserError) as error:
            return f"its batch was not kept ({error})"
        return f"its batch is in {path}"


def scales(module: pl.LightningModule) -> bool:
    """Whether the module's Trainer scales the loss, as precision 16-mixed does."""
    trainer = module._trainer
    return trainer is not None and getattr(trainer.precision_plugin, "scaler", None) is not None
