"""Checkpoints: weights and, under the key `lightning_wm`, what fit adds to them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from pydantic import FailFast, Field, field_validator

from lightning_wm.errors import UserError
from lightning_wm.runs.checksum import sealed
from lightning_wm.runs.files import write_tensors
from lightning_wm.runs.formats import Count, FileFormat, checked
from lightning_wm.runs.untrusted import FORMAT, check_archive, check_format, reason


class Counters(FileFormat, frozen=False):
    """How far a run is; counted while it goes on, and part of every checkpoint."""

    env_steps: Count = 0
    """Over all ranks."""
    agent_steps: Count = 0
    """Over all ranks."""
    episodes: Count = 0
    """Over all ranks."""
    rank_episodes: Count = 0
    """Of this rank: the number of the next one; those that were dropped had numbers too."""
    restarts: Count = 0
    """Episodes that were dropped because their environment or actor failed, over all ranks."""
    turns: Count = 0
    owed: Annotated[Count, Field(exclude_if=lambda steps: steps == 0)] = 0
    """Env steps that were collected and for which updates are still to be made, over all ranks."""
    seconds: Annotated[float, Field(ge=0, lt=2**62)] = 0.0
    """Wall time of training, earlier processes included."""

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's; what it does not know stays as it is."""
        for name in type(self).model_fields.keys() & saved.keys():
            setattr(self, name, saved[name])
        self.owed = saved.get("owed", 0)  # left out of a checkpoint where it is nothing


class Rank(FileFormat):
    """What belongs to one process of a run."""

    counters: Counters
    replay: dict[str, object]
    """Of `Replay.state`, which `Replay.restore` checks."""

    @field_validator("counters")
    @classmethod
    def _whole(cls, counters: Counters) -> Counters:
        """Refuse a file that leaves one out; the first checkpoints of format 1 have no restarts and nothing owed."""
        lacking = type(counters).model_fields.keys() - counters.model_fields_set - {"restarts", "owed"}
        if lacking:
            raise ValueError(f"counters.{min(lacking)} is missing")
        return counters


class Added(FileFormat):
    """What fit adds to Lightning's checkpoint."""

    format: int = FORMAT
    sealed: bool = False
    """Whether the file ends with a checksum."""
    mid_turn: bool = False
    ranks: Annotated[list[Rank], FailFast(), Field(min_length=1)]
    metrics_bytes: Count
    """Length of metrics.jsonl."""


class Checkpoint(FileFormat):
    """What is looked at before a checkpoint is used; the rest is Lightning's."""

    state_dict: dict[str, object]
    lightning_wm: Added


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints as files that are whole or absent, whatever TMPDIR is.

    What has been read already is handed over (`ready`) and not read again.
    """

    def __init__(self) -> None:
        self.ready: dict[Path, dict[str, Any]] = {}
        """Checkpoints by path; each is given away once."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        """Write a checkpoint that holds only plain containers and tensors."""
        write_tensors(Path(path), checkpoint)

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The checkpoint that is ready, else the file's content as Lightning reads it."""
        content = self.ready.pop(Path(path), None)
        return super().load_checkpoint(path, *args, **kwargs) if content is None else content


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; nothing in it is executed.

    Raises:
        UserError: it is missing, damaged or not a checkpoint of this project.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; expected a checkpoint; train first: python -m lightning_wm.fit recipe=…")
    try:
        return _load(path, sealed(path))
    except (ValueError, OSError) as error:
        raise _foreign(path, reason(error)) from error


def _load(path: Path, has_checksum: bool) -> dict[str, Any]:
    try:
        check_archive(path)
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise _foreign(path, reason(error)) from error
    _check(path, checkpoint)
    if checkpoint["lightning_wm"].get("sealed") and not has_checksum:
        raise UserError(f"{path} is damaged (its checksum is missing); expected a checkpoint as fit wrote it")
    return checkpoint


def _check(path: Path, checkpoint: object) -> None:
    """Refuse a checkpoint without weights, or whose part `lightning_wm` is not as fit writes it."""
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint or "lightning_wm" not in checkpoint:
        raise UserError(f"{path} is foreign: it is no checkpoint of lightning_wm; expected one written by fit")
    added = checkpoint["lightning_wm"]
    if isinstance(added, dict):  # first of all: another format may have everything else otherwise
        check_format(path, added.get("format"))
    checked(Checkpoint, checkpoint, lambda why: _foreign(path, why))


def _foreign(path: Path, why: str) -> UserError:
    return UserError(f"{path} is damaged or foreign ({why}); expected a checkpoint written by fit")


def newest_first(folder: Path) -> list[Path]:
    """The checkpoints of whole and begun turns in a folder, damaged ones included, by turn and update."""
    return sorted(
        folder.glob("turn-*.ckpt"), key=lambda path: [int(n) for n in re.findall(r"\d+", path.stem)], reverse=True
    )


def newest_whole(paths: Sequence[Path]) -> tuple[Path, dict[str, Any]]:
    """The first of some checkpoints that is not damaged, read; one warning names those that were passed over.

    Args:
        paths: at least one, the newest first.

    Raises:
        UserError: all are damaged, or one is whole and no checkpoint of this project.
    """
    faults: list[str] = []
    for path in paths:
        has_checksum = False
        try:
            has_checksum = sealed(path)
            content = _load(path, has_checksum)
        except (UserError, ValueError, OSError) as error:
            if has_checksum:  # what fit wrote is what there is
                raise
            faults.append(str(error) if str(path) in str(error) else f"{path} is damaged ({error})")
            continue
        if faults:
            warnings.warn(f"{'; '.join(faults)}; using the one before, {path}", stacklevel=3)
        return path, content
    listed = "\n  ".join(faults)
    raise UserError(
        f"no checkpoint in {paths[0].parent} can be read:\n  {listed}\nexpected at least one as fit wrote it; "
        "restore one from a copy, or type run=<a new folder> to start another run"
    )
