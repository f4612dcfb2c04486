"""What can go wrong, each with the exit code a command ends with.

A message says what happened, what was expected and what to type.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import wraps


class LightningWMError(Exception):
    """Base of every error that a command reports without a traceback."""

    exit_code = 1


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
    """A file that must be written cannot be (exit 5)."""

    exit_code = 5


Main = Callable[[Sequence[str] | None], int]


def exits(main: Main) -> Main:
    """Turn the errors above into exit codes; `--debug` keeps the traceback."""

    @wraps(main)
    def wrapped(argv: Sequence[str] | None = None) -> int:
        arguments = list(sys.argv[1:] if argv is None else argv)
        debug = "--debug" in arguments
        try:
            return main([item for item in arguments if item != "--debug"])
        except LightningWMError as error:
            if debug:
                traceback.print_exc()
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code
        except BrokenPipeError:
            # Whoever read standard output has gone; what is still buffered has no reader.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130

    return wrapped
