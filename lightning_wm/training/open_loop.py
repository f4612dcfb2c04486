"""Films of what a model expects from actions alone, beside what happened, at every evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDictBase
from torch import Tensor

from lightning_wm.agents.planet import PlaNet
from lightning_wm.envs.layout import ObservationLayout, entries
from lightning_wm.errors import LightningWMError
from lightning_wm.models.foresight import foreseen, within_an_episode
from lightning_wm.protocols import Decodes, Recognises, State, TrainedModel
from lightning_wm.runs.directory import OPEN_LOOP
from lightning_wm.training.frames import Frame, compared, paired, traced
from lightning_wm.training.posed import Posed
from lightning_wm.training.state import RunState
from lightning_wm.training.trackers import trackers
from lightning_wm.training.video import write_film

SEQUENCES = 3
"""Of pictures, below one another."""
FPS = 10


@dataclass(frozen=True)
class Prediction:
    """Windows `[B, T]` of replay, seen for a few steps and then predicted."""

    truth: dict[str, Tensor]
    """`observation` `[B, T, O]` and/or `pixels` `[B, T, 3, X, Y]` in [0, 1]."""
    imagined: dict[str, Tensor]
    """The same, as the model decodes it; without a decoder the pictures of other windows that fit best."""
    seen: int
    """Steps that the model has seen; what it shows of them is reconstructed."""


@torch.no_grad()
def predict(model: TrainedModel, batch: TensorDictBase, seen: int, most: int = SEQUENCES) -> Prediction | None:
    """Filter the first steps of windows and imagine the others; None without a window inside a single episode.

    Args:
        model: decodes its states, or recognises pictures.
        batch: `[B, T]` of replay.
        seen: steps that are filtered.
        most: windows.
    """
    whole = within_an_episode(batch)
    if not bool(whole.any()) or batch.shape[1] <= seen:
        return None
    chosen = whole & (whole.cumsum(0) <= most)
    windows, show = batch[chosen], _shower(model, batch[~chosen].flatten(0, 1))
    if show is None:
        return None
    states = foreseen(model, windows, seen)
    together = {name: torch.stack([each[name] for each in states], 1).flatten(0, 1) for name in states[0]}
    shown = show(together)  # B*T, ...
    imagined = {name: value.unflatten(0, windows.shape).float().cpu() for name, value in shown.items()}
    truth = {name: windows[name].float().cpu() for name in imagined}
    if "pixels" in truth:
        truth["pixels"] = truth["pixels"] / 255.0
    return Prediction(truth, imagined, seen)


def _shower(model: TrainedModel, others: TensorDictBase) -> Callable[[State], dict[str, Tensor]] | None:
    """What stands for a state: what is decoded of it, or of other windows' pictures `[N]` the one that fits best."""
    if isinstance(model, Decodes):
        return model.decode
    if isinstance(model, Recognises) and len(others):
        return lambda state: {"pixels": others["pixels"][model.likeness(state, others).argmax(1)] / 255.0}
    return None


def frames(prediction: Prediction, layout: ObservationLayout | None = None, posed: Posed | None = None) -> list[Frame]:
    """Pictures side by side; a state vector's first window as the simulator's pictures, or as curves.

    Args:
        prediction: what is shown.
        layout: names the curves.
        posed: draws state vectors; None for curves, which there are too where it cannot.
    """
    if "pixels" in prediction.truth:
        return compared(_array(prediction.truth["pixels"]), _array(prediction.imagined["pixels"]), prediction.seen)
    truth, imagined = (_array(side["observation"][0]) for side in (prediction.truth, prediction.imagined))
    drawn = posed.pictures(np.concatenate([truth, imagined])) if posed is not None else None
    if drawn is not None:
        return paired(drawn[: len(truth)], drawn[len(truth) :], prediction.seen)
    return traced(truth, imagined, prediction.seen, entries(layout, truth.shape[1]))


def _array(values: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = values.numpy()
    return array


class OpenLoopFilm(pl.Callback):
    """Writes `videos/open-loop-<env steps>.mp4` at every validation, on rank 0; says once why it cannot.

    Args:
        folder: of the run's films.
        state: of the run.
        layout: names the numbers of a state vector.
        posed: draws state vectors; None for curves.
    """

    def __init__(
        self, folder: Path, state: RunState, layout: ObservationLayout | None = None, posed: Posed | None = None
    ) -> None:
        self.folder, self.state, self.layout, self.posed = folder, state, layout, posed
        self._failed = False

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: TensorDictBase,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx or self._failed or not trainer.is_global_zero or not isinstance(pl_module, PlaNet):
            return
        prediction = predict(pl_module.model, batch, pl_module.config.open_loop_observed)
        if prediction is None:
            return
        path = self.folder / f"{OPEN_LOOP}-{self.state.counters.env_steps}.mp4"
        try:
            write_film(path, frames(prediction, self.layout, self.posed), FPS)
            for tracker in trackers(trainer.loggers):
                tracker.log_film("model/open_loop", path)
        except LightningWMError as error:
            self._failed = True
            pl_module.print(f"no open-loop film: {error}")

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.posed is not None:
            self.posed.close()
