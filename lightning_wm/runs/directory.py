"""The directory of a run: where its files lie, who owns it, and with what it was begun."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

import torch

from lightning_wm.runs.checkpoint import load_checkpoint, newest_first, newest_whole
from lightning_wm.runs.files import write_json, write_text
from lightning_wm.runs.formats import FileFormat
from lightning_wm.runs.lock import locked
from lightning_wm.runs.untrusted import refuse_shared

PACKAGES = ("torch", "lightning", "torchrl", "tensordict", "omegaconf", "dm_control", "mujoco", "numpy")
TOP = Path(__file__).resolve().parents[2]
"""Of the checkout, where the package lies in one."""


OPEN_LOOP = "open-loop"
"""What the names of films of predictions begin with."""


class Meta(FileFormat):
    """`meta.json`: how a run was begun, and with what."""

    argv: list[str]
    seed: int
    versions: dict[str, str | None]
    revision: str | None
    """Commit of this package's checkout; None where it is installed otherwise, or without git."""
    device: str
    threads: int


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
        self._lock: IO[str] | None = None

    def replay(self, rank: int) -> Path:
        """The folder of one rank's replay."""
        return self.path / "replay" / f"rank{rank}"

    def turns(self) -> list[Path]:
        """Checkpoints to go on from, damaged ones included, the newest first."""
        return newest_first(self.checkpoints)

    def load(self, name: str = "last") -> tuple[Path, dict[str, Any]]:
        """A checkpoint's file and content: `last` (the newest that is not damaged) or `best` (by evaluation).

        Raises:
            UserError: there is none that can be read.
        """
        if name == "last" and (turns := self.turns()):
            return newest_whole(turns)
        path = self.checkpoints / ("turn-00000.ckpt" if name == "last" else f"{name}.ckpt")
        return path, load_checkpoint(path)

    def checkpoint(self, name: str = "last") -> Path:
        """The file of `load`."""
        return self.load(name)[0]

    def newest_film(self) -> Path | None:
        """The episode that was filmed last; None without any."""
        return _newest(film for film in self.videos.glob("*.mp4") if not film.name.startswith(OPEN_LOOP))

    def newest_prediction(self) -> Path | None:
        """The open-loop film that was written last; None without any."""
        return _newest(self.videos.glob(f"{OPEN_LOOP}-*.mp4"))

    def exists(self) -> bool:
        """Whether a run has been started here."""
        return self.config.is_file()

    def lock(self, name: str = "lock") -> None:
        """Become the only owner of the directory, or of one rank's part of it, until the process ends in any way.

        Raises:
            UserError: another process is, the directory cannot be written to, or it shares files with another one.
        """
        refuse_shared(self.path, self._written_in_place())
        self._lock = locked(self.path / name, "run=<another folder>")

    def _written_in_place(self) -> Iterator[Path]:
        yield self.metrics
        yield from self.path.glob("lock*")
        yield from self.path.glob("replay/rank*/*.bin")

    def unlock(self) -> None:
        """Let others have it."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def begin(self, config_yaml: str, argv: list[str], seed: int) -> None:
        """Write down with what a run is about to begin; it exists when the last file, config.yaml, does."""
        write_json(self.meta, Meta(argv=argv, seed=seed, **environment()).as_json())
        write_text(self.config, config_yaml)


def _newest(files: Iterable[Path]) -> Path | None:
    return max(files, key=lambda file: file.stat().st_mtime_ns, default=None)


def environment() -> dict[str, Any]:
    """Versions, git revision and device of this process."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    versions = {"python": sys.version.split()[0], **{name: _version(name) for name in PACKAGES}}
    return {"versions": versions, "revision": revision(TOP), "device": device, "threads": torch.get_num_threads()}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def revision(top: Path) -> str | None:
    """The commit of the checkout that this package is: not of a repository around it, nor of one that GIT_DIR names."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        if not (top / ".git").exists() or 'name = "lightning_wm"' not in (top / "pyproject.toml").read_text():
            return None
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=top, env=own, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
