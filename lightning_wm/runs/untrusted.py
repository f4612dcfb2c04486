"""Looking at files that may come from anybody, before they are read.

Checkpoints, run directories, replay and model folders are data. Their readers
execute nothing; what is here keeps them from reading or writing elsewhere, and
from unpacking more than the file has. It does not defend against somebody who
changes a folder while it is read.
"""

from __future__ import annotations

import os
import shlex
import stat
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from lightning_wm.errors import UserError

FORMAT = 1
"""Of what checkpoints and model folders hold; files of a higher one are refused."""
_NOT_READ = ("tensorboard", "wandb")
"""Folders of a run that only loggers write to and that nothing here reads; W&B keeps links in its own."""


def shown(value: object) -> str:
    """A value from a file as it can be put into a message: short, and whatever it is.

    A few bytes can describe a list whose text has no end, or a number of millions of digits.
    """
    if isinstance(value, str):
        return repr(value[:40])
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and value.bit_length() < 128):
        return repr(value)
    return f"a {type(value).__name__}"


def reason(error: BaseException) -> str:
    """An error of a library in one line: its text, or its name where it has none."""
    return " ".join(str(error).split())[:300] or type(error).__name__


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
        visited = waiting.pop()
        for path in sorted(visited.iterdir()):
            yield path
            if path.is_dir() and not path.is_symlink() and path.name not in _NOT_READ:
                waiting.append(path)


def refuse_shared(folder: Path, paths: Iterable[Path]) -> None:
    """Refuse files of a folder that are written in place and have another name besides: that one would change too.

    Raises:
        UserError: names the first.
    """
    for path in paths:
        if path.exists() and path.stat().st_nlink > 1:
            copy = folder.with_name(f"{folder.name}-copy")
            raise UserError(
                f"{path} is also a file of another folder (a hard link, as cp -al makes them), which would change too; "
                f"expected files of its own; type {shlex.join(['cp', '-r', '--sparse=always', str(folder), str(copy)])}"
                f" and go on with {copy}"
            )


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


def check_format(path: Path, number: object) -> None:
    """Refuse files of another format.

    Raises:
        UserError: says which can be read.
    """
    if type(number) is int and number > FORMAT:
        raise UserError(
            f"{path} has format {shown(number)}, this version of lightning_wm reads up to {FORMAT}; "
            "install a newer one: pip install --upgrade lightning_wm"
        )
    if type(number) is not int or number < 1:
        raise UserError(f"{path} is damaged or foreign (format {shown(number)}); expected format {FORMAT}")
