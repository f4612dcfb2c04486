"""A trained model as a folder to share: weights, configuration, an evaluation, a card.

    model.safetensors   the agent's weights; in its header the format, env_steps and checkpoint
    config.yaml         the run's configuration
    evaluation.json     how the weights were judged, where they were
    README.md           the card

`load_run`, `load_actor` and `evaluate` take it like a run directory.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import safetensors.torch
from safetensors import safe_open
from torch import Tensor

from lightning_wm.errors import DiskError, UserError
from lightning_wm.runs.files import write_atomically
from lightning_wm.runs.untrusted import FORMAT, check_format, shown

WEIGHTS, CONFIG, EVALUATION, CARD = "model.safetensors", "config.yaml", "evaluation.json", "README.md"


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
    about = {"env_steps": str(weights.env_steps), "checkpoint": weights.checkpoint}
    content = safetensors.torch.save(plain, {"format": "pt", "lightning_wm": str(FORMAT), **about})

    def write(file: BinaryIO) -> None:
        file.write(content)

    write_atomically(folder / WEIGHTS, write)


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
        raise _damaged(path, str(error).splitlines()[0] if str(error) else type(error).__name__) from error
    check_format(path, _count(about.get("lightning_wm")))
    weights = Weights(tensors, _about_steps(path, about), about.get("checkpoint", ""))
    if weights.checkpoint not in ("last", "best"):
        raise _damaged(path, f"its checkpoint is {shown(weights.checkpoint)}")
    if checkpoint == "best" and weights.checkpoint != "best":
        raise UserError(f"{folder} was exported with checkpoint=last and has no other; leave checkpoint=best out")
    return weights


def _count(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,18}", text, re.ASCII) else None


def _about_steps(path: Path, about: Mapping[str, str]) -> int:
    steps = _count(about.get("env_steps"))
    if steps is None:
        raise _damaged(path, f"its env_steps are {shown(about.get('env_steps'))}")
    return steps


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
        DiskError: the file system refuses.
    """
    refuse_existing(out)
    beside = out.parent / f".{out.name}.{os.getpid()}"
    try:
        beside.mkdir(parents=True)
        yield beside
        os.rename(beside, out)
    except OSError as error:
        raise DiskError(f"{out} could not be written: {error.strerror or error}; choose another folder") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
