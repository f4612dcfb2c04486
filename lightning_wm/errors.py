"""What can go wrong, each with the exit code a command ends with.

A message says what happened, what was expected and what to type.
"""

from __future__ import annotations

import difflib
import errno
import signal
from collections.abc import Iterable, Sequence


class LightningWMError(Exception):
    """Base of every error that a command reports without a traceback."""

    exit_code = 1
    everywhere = False
    """Whether every rank ends with it, so that rank 0 says it for all."""


class UserError(LightningWMError):
    """The user can fix it: configuration, paths, a damaged file (exit 2)."""

    exit_code = 2


class ConfigError(UserError):
    """One or more faults of a configuration, all of one walk at once."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = list(faults)
        super().__init__("\n".join(self.faults))


class NumericsError(LightningWMError):
    """Losses or gradients stay non-finite (exit 3)."""

    exit_code = 3


class EnvironmentFailure(LightningWMError):
    """The environment raises or returns what is not a transition (exit 4)."""

    exit_code = 4


class DiskError(LightningWMError):
    """A file that must be written does not fit on the disk (exit 5)."""

    exit_code = 5


def is_full(error: BaseException | None) -> bool:
    """Whether an error is of a full disk, a full quota, or a disk that fails."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
    return isinstance(error, OSError) and error.errno in full


def unwritable(path: object, error: OSError) -> LightningWMError:
    """The error for what cannot be written: a DiskError where the disk is full, else one that the user can fix."""
    what = f"{path} could not be written: {error.strerror or error}"
    if is_full(error):
        return DiskError(f"{what}; free some space")
    return UserError(f"{what}; expected a place that you may write to; choose another, or mend that")


class Interrupted(BaseException):
    """A signal ends the command (exit 130 after Ctrl-C, else 143), after saving what could be saved.

    No `Exception`, as KeyboardInterrupt is none: what recovers from errors must not swallow it.

    Args:
        received: the signal's number.
    """

    def __init__(self, received: int) -> None:
        self.signal = signal.Signals(received)
        super().__init__(self.signal.name)

    @property
    def exit_code(self) -> int:
        """130 for SIGINT; SLURM's SIGUSR1 counts as SIGTERM, 143."""
        return 128 + (signal.SIGINT if self.signal == signal.SIGINT else signal.SIGTERM)


def similar(name: str, known: Iterable[str], count: int) -> list[str]:
    """The names that are most like one, the nearest first."""
    return difflib.get_close_matches(name, sorted(set(known)), count)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The most similar of `known`, or None where nothing is close.

    Of dotted keys, a key with the same last word is near whatever its group, so that `batch` finds `replay.batch`.
    """
    choices = sorted(set(known))
    group, _, last = name.rpartition(".")
    same = [choice for choice in choices if choice.rpartition(".")[2] == last and choice != name]
    whole = similar(name, choices, 1)
    if same and not (group and whole and whole[0].rpartition(".")[0] == group):
        return max(same, key=lambda choice: _ratio(name, choice))
    if whole:
        return whole[0]
    scored = [(max(_ratio(last, choice.rpartition(".")[2]), _ratio(name, choice)), choice) for choice in choices]
    ratio, best = max(scored, default=(0.0, ""))
    return best if ratio >= 0.6 else None


def hint(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing."""
    near = nearest(name, known)
    return f"; did you mean {near!r}?" if near else ""


def _ratio(left: str, right: str) -> float:
    return difflib.SequenceMatcher(None, left, right).ratio()


def printable(text: str) -> str:
    """Text without what a terminal would obey: messages quote files that may come from anybody."""
    return "".join(letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text)
