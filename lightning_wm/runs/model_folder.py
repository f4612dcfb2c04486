"""A trained model as a folder to share: weights, configuration, an evaluation, a card.

    model.safetensors   the agent's weights; in its header the format, env_steps and checkpoint
    config.yaml         the run's configuration
    spaces.json         what it sees and does, part by part (`interface.py`)
    evaluation.json     how the weights were judged, where they were
    README.md           the card

`load_run`, `load_actor` and `evaluate` take it like a run directory.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import safetensors.torch
from pydantic import BeforeValidator, PlainSerializer
from safetensors import safe_open
from torch import Tensor

from lightning_wm.errors import UserError, unwritable
from lightning_wm.runs.disk import write_atomically
from lightning_wm.runs.formats import Count, FileFormat, checked
from lightning_wm.runs.untrusted import FORMAT, check_format, reason

WEIGHTS, CONFIG, EVALUATION, CARD = "model.safetensors", "config.yaml", "evaluation.json", "README.md"


def _whole(value: object) -> object:
    """A whole number for text of digits; whatever else it is, as it is."""
    digits = isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value, re.ASCII)
    return int(value) if isinstance(value, str) and digits else value


Digits = Annotated[Count, BeforeValidator(_whole), PlainSerializer(str)]


class Header(FileFormat):
    """The metadata of `model.safetensors`, which are texts."""

    format: str = "pt"
    """Of the tensors, for whoever else reads it."""
    lightning_wm: Digits = FORMAT
    env_steps: Digits
    checkpoint: Literal["last", "best"]


@dataclass(frozen=True)
class Weights:
    """What `model.safetensors` holds."""

    tensors: dict[str, Tensor]
    """The agent's state, by name."""
    env_steps: int
    """How far the checkpoint was trained."""
    checkpoint: str
    """Which one it was: `last` or `best`."""


def is_model_folder(folder: Path) -> bool:
    """Whether a folder is a model folder and no run directory."""
    return (folder / WEIGHTS).is_file() and not (folder / "checkpoints").is_dir()


def write_weights(folder: Path, weights: Weights) -> None:
    """Write `model.safetensors`.

    Raises:
        UserError: something in it is no tensor, as agents of plugins may have it.
        DiskError: the disk is full or the folder cannot be written.
    """
    odd = [name for name, value in weights.tensors.items() if not isinstance(value, Tensor)]
    if odd:
        raise UserError(f"the agent keeps {odd[0]} beside its weights, which is no tensor; expected tensors alone")
    # Copies, since safetensors refuses tensors that share memory or have another order in it.
    plain = {name: value.detach().cpu().clone().contiguous() for name, value in weights.tensors.items()}
    header = Header.model_validate({"env_steps": weights.env_steps, "checkpoint": weights.checkpoint})
    content = safetensors.torch.save(plain, header.model_dump())
    write_atomically(folder / WEIGHTS, lambda file: file.write(content))


def read_weights(folder: Path, checkpoint: str = "last") -> Weights:
    """Read `model.safetensors`; nothing in it is executed.

    Args:
        folder: a model folder.
        checkpoint: `best` asks for a folder that was exported from the best checkpoint; `last` takes any.

    Raises:
        UserError: it is damaged or foreign, or was exported from another checkpoint.
    """
    path = folder / WEIGHTS
    try:
        with safe_open(path, framework="pt") as file:
            about = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
    except Exception as error:
        raise _damaged(path, reason(error)) from error
    check_format(path, _whole(about.get("lightning_wm")))
    header = checked(Header, about, partial(_damaged, path))
    if checkpoint == "best" and header.checkpoint != "best":
        raise UserError(f"{folder} was exported with checkpoint=last and has no other; leave checkpoint=best out")
    return Weights(tensors, header.env_steps, header.checkpoint)


def _damaged(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} is damaged or foreign ({why}); expected safetensors written by python -m lightning_wm.export"
    )


def refuse_existing(out: Path) -> None:
    """Nothing is ever overwritten.

    Raises:
        UserError: something has that name.
    """
    if os.path.lexists(out):
        raise UserError(f"{out} is there already and is not overwritten; type out=<a new folder>, or remove it")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` to be filled, which gets the name when the block ends without an error.

    Raises:
        UserError: `out` is there already.
        DiskError, UserError: the file system refuses.
    """
    refuse_existing(out)
    beside = out.parent / f".{out.name}.{os.getpid()}"
    try:
        beside.mkdir(parents=True)
        yield beside
        os.rename(beside, out)
    except OSError as error:
        raise unwritable(out, error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
