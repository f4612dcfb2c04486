"""One owner at a time for a folder of this machine."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from typing import IO

from lightning_wm.errors import UserError, unwritable


def locked(path: Path, instead: str) -> IO[str]:
    """Become the only owner of the file's folder, which is made, until the handle is closed or the process ends.

    Args:
        instead: what the user can type for another folder.

    Raises:
        UserError: another process is, or the folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("a+")
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.seek(0)
        owner = handle.read().strip() or "another process"
        handle.close()
        raise UserError(f"{path.parent} is in use by {owner}; wait for it, stop it, or type {instead}") from error
    handle.truncate(0)
    handle.write(f"process {os.getpid()} on {socket.gethostname()}")
    handle.flush()
    return handle


def is_locked(path: Path) -> bool:
    """Whether a process owns the file's folder."""
    try:
        with path.open("r") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
