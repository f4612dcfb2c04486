"""Places inside a save and inside an episode's commit at which a test can kill the process."""

from __future__ import annotations

import os
import signal

VARIABLE = "LIGHTNING_WM_FAILPOINT"
"""`name` or `name:n`: die at the n-th time (the first by default) that the name is reached. Only tests set it."""

_reached: dict[str, int] = {}


def reach(name: str) -> None:
    """Die as by `kill -9` where the environment asks for it; otherwise nothing."""
    point = os.environ.get(VARIABLE)
    if point is None:
        return
    wanted, _, count = point.partition(":")
    if wanted == name:
        _reached[name] = _reached.get(name, 0) + 1
        if _reached[name] == int(count or 1):
            os.kill(os.getpid(), signal.SIGKILL)
