"""Files that are either whole or absent: written beside their name, synced, and only then given it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from lightning_wm.errors import unwritable
from lightning_wm.runs.failpoints import reach


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file beside `path`, sync it, and only then give it the name.

    Raises:
        DiskError: the disk is full.
        UserError: the folder cannot be written to.
    """
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
        sync(path.parent)
    except BaseException as error:
        remove(temporary)
        if isinstance(error, OSError):
            raise unwritable(path, error) from error
        raise


def append(path: Path, text: str) -> None:
    """Add a line to a file, whole or not at all.

    Raises:
        DiskError: the disk is full.
        UserError: the file cannot be written to.
    """
    data = text.encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:  # a buffer would try again when the file is closed
            before = file.tell()
            if file.write(data) < len(data):
                file.truncate(before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise unwritable(path, error) from error


def clear_temporaries(folder: Path) -> None:
    """Remove what `write_atomically` left in a folder when its process was killed; one that lives is still writing."""
    for path in folder.glob(".*.*"):
        writer = path.suffix[1:]
        if writer.isdigit() and path.is_file() and not _runs(int(writer)):
            path.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    """Whether another process of that number runs on this machine."""
    if process == os.getpid():  # begun anew under the number of one that was killed
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def remove(path: Path) -> None:
    """Delete a file where it is there and can be deleted."""
    with suppress(OSError):  # where nothing can be written there is nothing to delete
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Bring a file or the names in a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
