"""Looking at files that may come from anybody, before they are read.

Checkpoints, run directories, replay and model folders are data. Their readers
execute nothing; what is here keeps them from reading or writing elsewhere, and
from unpacking more than the file has. It does not defend against somebody who
changes a folder while it is read.
"""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning_wm.errors import UserError

FORMAT = 1
"""Of what checkpoints and model folders hold; files of a higher one are refused."""
_NOT_READ = ("tensorboard", "wandb")
"""Folders of a run that only loggers write to and that nothing here reads; W&B keeps links in its own."""


def shown(value: Any) -> str:
    """A value from a file as it can be put into a message: short, and whatever it is.

    A few bytes can describe a list whose text has no end, or a number of millions of digits.
    """
    if isinstance(value, str):
        return repr(value[:40])
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and value.bit_length() < 128):
        return repr(value)
    return f"a {type(value).__name__}"


def check_folder(folder: Path) -> None:
    """Refuse a run or model folder in which anything is neither a plain file nor a folder, or leads out of it.

    The folder itself may be a link, or not be there yet.

    Raises:
        UserError: names the first entry, or what cannot be looked at.
    """
    try:
        home = folder.resolve()
        for path in _entries(folder) if folder.is_dir() else ():
            _check_entry(path, home)
    except (OSError, RuntimeError) as error:  # Path.resolve's RuntimeError: a link that leads to itself
        raise UserError(f"{folder} cannot be looked through ({error}); expected a folder of plain files") from error


def _check_entry(path: Path, home: Path) -> None:
    kind = path.lstat().st_mode
    # realpath, unlike Path.resolve, takes a link that leads to itself; whoever opens that is told.
    if stat.S_ISLNK(kind) and not Path(os.path.realpath(path)).is_relative_to(home):
        raise UserError(
            f"{path} is a link that leaves its folder, to {os.readlink(path)}; expected plain files; "
            "if you made it, put the file itself there (cp -rL makes a copy without links)"
        )
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind) or stat.S_ISLNK(kind)):
        raise UserError(f"{path} is no plain file (a device or a pipe); expected plain files; remove it")


def _entries(folder: Path) -> Iterator[Path]:
    waiting = [folder]  # no recursion: folders can lie deeper than Python's stack
    while waiting:
        here = waiting.pop()
        for path in sorted(here.iterdir()):
            yield path
            if path.is_dir() and not path.is_symlink() and path.name not in _NOT_READ:
                waiting.append(path)


def check_archive(path: Path) -> None:
    """Refuse a checkpoint that is no plain archive of torch's: torch would unpack or unpickle other files as well.

    Raises:
        ValueError: it is of the format that torch wrote before 1.6, compressed, or unpacks to more than it has.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            raise ValueError("it is no archive of torch's")
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("it is compressed, torch's archives are not")
    unpacked, size = sum(entry.file_size for entry in entries), path.stat().st_size
    if unpacked > size:
        raise ValueError(f"it unpacks to {unpacked:,} bytes and has {size:,}")


def check_format(path: Path, found: Any) -> None:
    """Refuse files of another format.

    Raises:
        UserError: says which can be read.
    """
    if type(found) is int and found > FORMAT:
        raise UserError(
            f"{path} has format {shown(found)}, this version of lightning_wm reads up to {FORMAT}; "
            "install a newer one: pip install --upgrade lightning_wm"
        )
    if type(found) is not int or found < 1:
        raise UserError(f"{path} is damaged or foreign (format {shown(found)}); expected format {FORMAT}")


def check_checkpoint(path: Path, checkpoint: Any) -> None:
    """Refuse a checkpoint that does not hold weights and, under the key `lightning_wm`, what fit adds to them.

    Raises:
        UserError: names what is wrong.
    """
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint or "lightning_wm" not in checkpoint:
        raise UserError(f"{path} is foreign: it is no checkpoint of lightning_wm; expected one written by fit")
    weights, added = checkpoint["state_dict"], checkpoint["lightning_wm"]
    if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights):
        raise _foreign(path, "its weights are no mapping of names")
    if not isinstance(added, dict):
        raise _foreign(path, "its part 'lightning_wm' is no mapping")
    check_format(path, added.get("format"))
    for name in ("sealed", "mid_turn"):
        if not isinstance(added.get(name, False), bool):
            raise _foreign(path, f"{name} is {shown(added[name])}")
    ranks = added.get("ranks")
    if not isinstance(ranks, list) or not ranks:
        raise _foreign(path, "it names no ranks")
    for rank in ranks:
        if not isinstance(rank, dict) or not isinstance(rank.get("replay"), dict):
            raise _foreign(path, "a rank has no state of its replay")
        _check_counters(path, rank.get("counters"))
    if not _is_count(added.get("metrics_bytes")):
        raise _foreign(path, f"metrics_bytes is {shown(added.get('metrics_bytes'))}")


def _check_counters(path: Path, counters: Any) -> None:
    if not isinstance(counters, dict):
        raise _foreign(path, "a rank has no counters")
    for name in ("env_steps", "agent_steps", "episodes", "rank_episodes", "turns"):
        if not _is_count(counters.get(name)):
            raise _foreign(path, f"{name} is {shown(counters.get(name))}")
    if not _is_count(counters.get("restarts", 0)):  # the first checkpoints of format 1 have none
        raise _foreign(path, f"restarts is {shown(counters['restarts'])}")
    seconds = counters.get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 2**62:
        raise _foreign(path, f"seconds is {shown(seconds)}")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**62


def _foreign(path: Path, why: str) -> UserError:
    return UserError(f"{path} is damaged or foreign ({why}); expected a checkpoint written by fit")
