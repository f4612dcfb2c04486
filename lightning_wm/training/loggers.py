"""Where metrics go: one JSON object a line, and TensorBoard with env steps on its x axis."""

from __future__ import annotations

import json
import math
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from lightning_wm.errors import UserError, is_full, unwritable
from lightning_wm.runs.checkpoint import Counters
from lightning_wm.runs.directory import RunDirectory
from lightning_wm.runs.disk import append
from lightning_wm.runs.files import write_text

COUNTERS = ("env_steps", "agent_steps", "episodes")


def measured(metrics: Mapping[str, float]) -> dict[str, float]:
    """What was measured, without the counters that Lightning adds to every update, logged or not."""
    return {name: value for name, value in metrics.items() if name not in ("epoch", "step")}


class JSONLinesLogger(Logger):
    """Appends to metrics.jsonl; every line begins with the run's counters.

    Args:
        path: the file.
        counters: of the run.
    """

    def __init__(self, path: Path, counters: Counters) -> None:
        super().__init__()
        self.path, self.counters = path, counters

    @property
    def name(self) -> str:
        return "jsonl"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: object, *args: object, **kwargs: object) -> None:
        """Nothing to do: config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write one line; values that are not finite become null."""
        line: dict[str, Any] = {"updates": step or 0, **{name: getattr(self.counters, name) for name in COUNTERS}}
        line["seconds"] = round(self.counters.seconds, 3)
        values = measured(metrics)
        if not values:
            return
        line |= {name: float(value) if math.isfinite(value) else None for name, value in values.items()}
        append(self.path, json.dumps(line) + "\n")


class EnvStepTensorBoard(TensorBoardLogger):
    """TensorBoard whose x axis is env steps.

    Args:
        folder: where event files go.
        counters: of the run.
    """

    def __init__(self, folder: Path, counters: Counters) -> None:
        super().__init__(save_dir=folder, name="", version="")
        self.counters = counters
        self._loud = threading.excepthook

    @property
    def experiment(self) -> Any:
        """The writer, opened on first use.

        Raises:
            DiskError: it cannot be.
        """
        threading.excepthook = self._hush  # until `finalize`
        with self._writing():
            return super().experiment

    @rank_zero_only
    def log_hyperparams(self, params: object = None, *args: object, **kwargs: object) -> None:
        """Nothing to do: config.yaml has them."""

    def resume(self) -> None:
        """Hide what an interrupted process wrote beyond the checkpoint; before the first line is written."""
        self._kwargs["purge_step"] = self.counters.env_steps + 1

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write scalars at the current number of env steps."""
        with self._writing():
            for name, value in measured(metrics).items():  # Lightning's own loop makes a ValueError of a full disk
                self.experiment.add_scalar(name, value, self.counters.env_steps)

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


def weights_and_biases(run: RunDirectory) -> Logger:
    """Lightning's logger for Weights & Biases, keeping its files in the run directory.

    A run that goes on is the same run there: its id is in `wandb.id`.

    Raises:
        UserError: the package is not installed.
    """
    from lightning.pytorch.loggers import WandbLogger

    name = run.path / "wandb.id"
    if not name.exists():
        write_text(name, f"{secrets.token_hex(4)}\n")
    try:
        logger: Logger = WandbLogger(
            project="lightning_wm",
            name=run.path.name,
            save_dir=run.path,
            id=name.read_text().strip(),
            resume="allow",
        )
    except ModuleNotFoundError as error:
        raise UserError('logging.wandb=true needs the package wandb; type pip install "lightning_wm[wandb]"') from error
    return logger
