"""TensorBoard: env steps on the x axis, training losses over updates, settings in the HParams table, films as GIFs."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from lightning_wm.errors import is_full, unwritable
from lightning_wm.runs.checkpoint import Counters
from lightning_wm.training.films import as_gif
from lightning_wm.training.loggers import measured
from lightning_wm.training.trackers import About, over_updates

RESULTS = ("evaluation/return", "final/return")
"""What the HParams table shows of every run."""
UPDATES = "updates"
"""Folder of what is drawn over updates: what lies beyond a checkpoint is hidden by one number for a whole folder."""


class EnvStepTensorBoard(TensorBoardLogger):
    """TensorBoard whose x axis is env steps, and updates for what is measured at updates.

    Args:
        folder: where event files go.
        counters: of the run.
        about: what is said of the run.
        updates: draw over updates.
    """

    def __init__(self, folder: Path, counters: Counters, about: About | None = None, updates: bool = False) -> None:
        super().__init__(save_dir=folder, name="", version="")
        self.counters, self.about = counters, about
        self.beside = None if updates else EnvStepTensorBoard(folder / UPDATES, counters, updates=True)
        self._loud = threading.excepthook

    @property
    def experiment(self) -> Any:
        """The writer, opened on first use.

        Raises:
            DiskError: it cannot be.
        """
        threading.excepthook = self._hush  # until `finalize`
        with self._writing():
            new = self._experiment is None
            writer = super().experiment
            if new and isinstance(writer, SummaryWriter):
                writer.purge_step = None  # said once: a file that is opened later must not hide this one's lines
                if self.about is not None:
                    self._introduce(writer, self.about)
            return writer

    def _introduce(self, writer: Any, about: About) -> None:
        """The settings, as text and as a row of the HParams table, whose columns of results are drawn later."""
        writer.add_text("config", f"```yaml\n{about.yaml}```")
        for summary in hparams(about.flat, dict.fromkeys(RESULTS, 0.0)):
            writer._get_file_writer().add_summary(summary)

    @rank_zero_only
    def log_hyperparams(self, params: object = None, *args: object, **kwargs: object) -> None:
        """Nothing to do: config.yaml has them."""

    def resume(self, updates: int) -> None:
        """Hide what an interrupted process wrote beyond the checkpoint; before the first line is written.

        Env steps are counted when they are done, so the checkpoint's own stay; the update of its number comes next.
        """
        self._kwargs["purge_step"] = self.counters.env_steps + 1 if self.beside is not None else updates
        if self.beside is not None:
            self.beside.resume(updates)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write scalars at the current number of env steps, those of updates at `step`."""
        values = measured(metrics)
        here = {name: value for name, value in values.items() if over_updates(name) == (self.beside is None)}
        with self._writing():
            for name, value in here.items():  # Lightning's own loop makes a ValueError of a full disk
                self.experiment.add_scalar(name, value, self.counters.env_steps if self.beside is not None else step)
        if self.beside is not None and len(here) < len(values):
            self.beside.log_metrics(metrics, step)

    def log_film(self, name: str, path: Path) -> None:
        """Show a film, smaller, as a moving picture."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        picture = as_gif(path)
        image = Summary.Image(
            height=picture.height, width=picture.width, colorspace=3, encoded_image_string=picture.content
        )
        with self._writing():
            writer = self.experiment._get_file_writer()
            writer.add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), self.counters.env_steps)
            self.experiment.flush()

    def log_result(self, results: Mapping[str, float]) -> None:
        """Write the final evaluation, which the HParams table shows."""
        with self._writing():
            for name, value in results.items():
                self.experiment.add_scalar(name, value, self.counters.env_steps)
            self.experiment.flush()

    def close(self) -> None:
        """Nothing more comes."""
        if self._experiment is not None:
            self.finalize("success")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # met by the writer's thread, which has ended; the next write gets a new file
            self._experiment = None
            raise unwritable(self.save_dir, error) from error

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left.

        Raises:
            DiskError: it cannot be written, in a run that did not fail anyway.
        """
        if self.beside is not None:
            self.beside.finalize(status)
        try:
            super().finalize(status)
        except OSError as error:
            if status == "success":
                raise unwritable(self.save_dir, error) from error
        finally:
            threading.excepthook = self._loud

    def _hush(self, args: threading.ExceptHookArgs) -> None:
        """A full disk that the writer's thread meets is raised at the next write: no traceback of the thread's own."""
        full = args.exc_value is not None and is_full(args.exc_value)
        if not (full and type(args.thread).__name__ == "_AsyncWriterThread"):
            self._loud(args)
