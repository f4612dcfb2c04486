"""Files that are either whole or absent, and the directory of a run."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from lightning_wm.errors import DiskError, UserError
from lightning_wm.runs import checksum as seal
from lightning_wm.runs.disk import with_room
from lightning_wm.runs.failpoints import reach
from lightning_wm.runs.untrusted import check_archive, check_checkpoint

PACKAGES = ("torch", "lightning", "torchrl", "tensordict", "omegaconf", "dm_control", "mujoco", "numpy")
LARGEST_JSON = 50_000_000
"""Bytes; an evaluation of a thousand episodes has 20,000."""


def write_atomically(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Let `write` fill a temporary file beside `path`, sync it, and only then give it the name.

    Raises:
        DiskError: the disk is full (and stays so without the films that may go) or the folder cannot be written.
    """
    with_room(lambda: _write_atomically(path, write))


def _write_atomically(path: Path, write: Callable[[BinaryIO], None]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            write(file)
            reach(f"written{path.suffix}")
            file.flush()
            os.fsync(file.fileno())
        reach(f"synced{path.suffix}")
        os.replace(temporary, path)
        reach(f"named{path.suffix}")
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DiskError(f"{path} could not be written: {error.strerror or error}; free some space") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_tensors(path: Path, content: Any) -> None:
    """Write plain containers and tensors as a whole, with a checksum, for `torch.load(path, weights_only=True)`.

    Raises:
        DiskError: the disk is full or the folder cannot be written.
    """
    content = seal.packed(content)  # torch.save into a file hides a full disk behind a RuntimeError of its own

    def write(file: BinaryIO) -> None:
        file.write(content)

    write_atomically(path, write)


def clear_temporaries(folder: Path) -> None:
    """Remove what `write_atomically` left in a folder when its process was killed; the folder must have one owner."""
    for path in folder.glob(".*.*"):
        if path.suffix[1:].isdigit() and path.is_file():
            path.unlink(missing_ok=True)


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
    """Read a JSON file of a run, which is never large.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_JSON + 1)
        if len(text) > LARGEST_JSON:
            raise ValueError(f"more than {LARGEST_JSON:,} bytes")
        return json.loads(text)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; expected the folder of a run; type run=<its path>") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); expected JSON") from error


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints through `write_atomically`, whatever TMPDIR is."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint that holds only plain containers and tensors."""
        write_tensors(Path(path), checkpoint)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; nothing in it is executed.

    Raises:
        UserError: it is missing, damaged or not a checkpoint of this project.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; expected a checkpoint; train first: python -m lightning_wm.fit recipe=…")
    try:
        has_checksum = seal.sealed(path)
        check_archive(path)
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is damaged or foreign ({reason}); expected a checkpoint written by fit") from error
    check_checkpoint(path, checkpoint)
    if checkpoint["lightning_wm"].get("sealed") and not has_checksum:
        raise UserError(f"{path} is damaged (its checksum is missing); expected a checkpoint as fit wrote it")
    return checkpoint


def newest_whole(paths: Sequence[Path]) -> Path:
    """The first of some checkpoints that is not damaged; one warning names those that were passed over.

    Args:
        paths: at least one, the newest first.

    Raises:
        UserError: all are damaged.
    """
    faults: list[str] = []
    for path in paths:
        try:
            _read_through(path)
        except (UserError, ValueError, OSError) as error:
            faults.append(str(error) if str(path) in str(error) else f"{path} is damaged ({error})")
            continue
        if faults:
            warnings.warn(f"{'; '.join(faults)}; using the one before, {path}", stacklevel=3)
        return path
    listed = "\n  ".join(faults)
    raise UserError(
        f"no checkpoint in {paths[0].parent} can be read:\n  {listed}\nexpected at least one as fit wrote it; "
        "restore one from a copy, or type run=<a new folder> to start another run"
    )


def _read_through(path: Path) -> None:
    """Compare a checkpoint with its checksum, or load it where it has none."""
    if not seal.sealed(path):
        load_checkpoint(path)


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

    def turns(self) -> list[Path]:
        """Checkpoints to go on from, damaged ones included, the newest first."""
        return sorted(self.checkpoints.glob("turn-*.ckpt"), reverse=True)

    def checkpoint(self, name: str = "last") -> Path:
        """`last` (the newest that is not damaged) or `best` (by evaluation during training).

        Raises:
            UserError: there are some for `last`, and all are damaged.
        """
        if name == "last":
            turns = self.turns()
            return newest_whole(turns) if turns else self.checkpoints / "turn-00000.ckpt"
        return self.checkpoints / f"{name}.ckpt"

    def exists(self) -> bool:
        """Whether a run has been started here."""
        return self.config.is_file()

    def lock(self, name: str = "lock") -> None:
        """Become the only owner of the directory, or of one rank's part of it, until the process ends in any way.

        Raises:
            UserError: another process is.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        handle = (self.path / name).open("a+")
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
