"""Files that are either whole or absent, and the directory of a run."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from lightning_wm.errors import DiskError, UserError

PACKAGES = ("torch", "lightning", "torchrl", "tensordict", "omegaconf", "dm_control", "mujoco", "numpy")


def write_atomically(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Let `write` fill a temporary file beside `path`, sync it, and only then give it the name.

    Raises:
        DiskError: the disk is full or the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DiskError(f"{path} could not be written: {error.strerror or error}; free some space") from error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole."""

    def write(file: BinaryIO) -> None:
        file.write(text.encode())

    write_atomically(path, write)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file as a whole; not-a-number becomes null."""
    write_text(path, json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    if isinstance(content, float) and content != content:
        return None
    return content


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; expected the folder of a run; type run=<its path>") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}); expected JSON") from error


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints through `write_atomically`, whatever TMPDIR is."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint that holds only plain containers and tensors."""
        write_atomically(Path(path), lambda file: torch.save(checkpoint, file))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; nothing in it is executed.

    Raises:
        UserError: it is missing, damaged or not a checkpoint of this project.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; expected a checkpoint; train first: python -m lightning_wm.fit recipe=…")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is damaged or foreign ({reason}); expected a checkpoint written by fit") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint or "lightning_wm" not in checkpoint:
        raise UserError(f"{path} is foreign: it is no checkpoint of lightning_wm; expected one written by fit")
    return checkpoint


class RunDirectory:
    """Where a run keeps what it makes.

    Args:
        path: the folder; made when it is first locked.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.meta = self.path / "meta.json"
        self.metrics = self.path / "metrics.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.evaluations = self.path / "evaluations"
        self.videos = self.path / "videos"
        self.curve = self.path / "learning_curve.png"
        self._lock: Any = None

    def replay(self, rank: int) -> Path:
        """The folder of one rank's replay."""
        return self.path / "replay" / f"rank{rank}"

    def checkpoint(self, name: str = "last") -> Path:
        """`last` (the newest) or `best` (by evaluation during training)."""
        if name == "last":
            turns = sorted(self.checkpoints.glob("turn-*.ckpt"))
            return turns[-1] if turns else self.checkpoints / "turn-00000.ckpt"
        return self.checkpoints / f"{name}.ckpt"

    def exists(self) -> bool:
        """Whether a run has been started here."""
        return self.config.is_file()

    def lock(self) -> None:
        """Become the directory's only owner until the process ends, however it ends.

        Raises:
            UserError: another process is.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        handle = (self.path / "lock").open("a+")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.seek(0)
            owner = handle.read().strip() or "another process"
            handle.close()
            raise UserError(
                f"{self.path} is in use by {owner}; wait for it, stop it, or type run=<another folder>"
            ) from error
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {socket.gethostname()}")
        handle.flush()
        self._lock = handle

    def unlock(self) -> None:
        """Let others have it."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def begin(self, config_yaml: str, argv: list[str], seed: int) -> None:
        """Write down what is about to run, and with what."""
        write_text(self.config, config_yaml)
        write_json(self.meta, {"argv": argv, "seed": seed, **environment()})


def environment() -> dict[str, Any]:
    """Versions, git revision and device of this process."""
    revision = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {
        "versions": {"python": sys.version.split()[0], **{name: version(name) for name in PACKAGES}},
        "revision": revision.stdout.strip() or None,
        "device": device,
        "threads": torch.get_num_threads(),
    }
