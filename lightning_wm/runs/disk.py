"""When the disk is full: what may go, goes, and what must be written is tried once more."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from lightning_wm.errors import DiskError, is_full

Result = TypeVar("Result")


_spare: list[Path] = []


@contextmanager
def may_drop(videos: Path) -> Iterator[None]:
    """Inside the block the films in a folder may be deleted to make room: they can be made again, a run cannot."""
    _spare.append(videos)
    try:
        yield
    finally:
        _spare.remove(videos)


def with_room(write: Callable[[], Result]) -> Result:
    """Call `write`; where that finds the disk full and there are films that may go, delete them and call it once more.

    Args:
        write: writes all or nothing, and raises DiskError where it cannot.

    Raises:
        DiskError: of `write`: the second time, or the first where nothing was deleted.
    """
    try:
        return write()
    except DiskError as error:
        if not is_full(error) or not sum(_drop(videos) for videos in _spare):
            raise
    return write()


def _drop(videos: Path) -> int:
    """Delete the films in a folder, say so, and return how many there were."""
    films = [path for path in videos.glob("*.mp4") if path.is_file() and not path.is_symlink()]
    freed = sum(path.stat().st_size for path in films)
    for path in films:
        path.unlink(missing_ok=True)
    if films:
        print(f"the disk is full: deleted {len(films)} films ({freed:,} bytes) in {videos}", file=sys.stderr)
    return len(films)


def append(path: Path, text: str) -> None:
    """Add a line to a file, whole or not at all.

    Raises:
        DiskError: the disk is full or the file cannot be written.
    """
    with_room(partial(_append, path, text.encode()))


def _append(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:  # a buffer would try again when the file is closed
            before = file.tell()
            if file.write(data) < len(data):
                file.truncate(before)
                raise OSError(errno.ENOSPC, "No space left on device")
    except OSError as error:
        raise DiskError(f"{path} could not be written: {error.strerror or error}; free some space") from error
