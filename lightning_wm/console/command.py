"""What every command does around its own work: help, the version, exit codes."""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import wraps

from lightning_wm.errors import Interrupted, LightningWMError, UserError, is_full, printable, unwritable

Main = Callable[[Sequence[str] | None], int]
"""A command: takes what was typed (None: `sys.argv`), returns its exit code."""


def command(usage: Callable[[list[str]], str]) -> Callable[[Callable[[list[str]], int]], Main]:
    """Make a command of a function of its arguments: `--help` prints, errors become exit codes.

    Args:
        usage: the help, from the arguments that it was asked for with.
    """

    def made(work: Callable[[list[str]], int]) -> Main:
        @exits
        @wraps(work)
        def main(argv: Sequence[str] | None = None) -> int:
            arguments = list(argv or [])
            if "--help" in arguments or "-h" in arguments:
                print(usage(arguments))
                return 0
            return work(arguments)

        return main

    return made


def _settled() -> AbstractContextManager[None]:
    """Without the modes that a program which calls a command has set; a command's own process has none yet."""
    if "torch" not in sys.modules:
        return nullcontext()
    from lightning_wm.models.ambient import settled

    return settled()


def exits(main: Main) -> Main:
    """Turn errors into exit codes (`errors.py` has each one's); `--debug` keeps the traceback."""

    @wraps(main)
    def wrapped(argv: Sequence[str] | None = None) -> int:
        arguments = list(sys.argv[1:] if argv is None else argv)
        debug = "--debug" in arguments
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # a path may have letters that the terminal has not
        if "--version" in arguments:
            from lightning_wm import __version__

            print(f"lightning_wm {__version__}")
            return 0
        try:
            with _settled():
                return main([item for item in arguments if item != "--debug"])
        except LightningWMError as error:
            if debug:
                traceback.print_exc()
            print(f"error: {printable(str(error))}", file=sys.stderr)
            return error.exit_code
        except BrokenPipeError:
            # Whoever read has gone; what is still buffered has no reader. What was to be done may not be.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for stream in (sys.stdout, sys.stderr):
                os.dup2(nowhere, stream.fileno())
            return 128 + signal.SIGPIPE
        except OSError as error:  # of a library's file: figures, TensorBoard
            if not is_full(error) and error.filename is None:
                raise
            if debug:
                traceback.print_exc()
            known = _of_library(error)
            print(f"error: {printable(str(known))}", file=sys.stderr)
            return known.exit_code
        except Interrupted as error:
            print(f"interrupted by {error.signal.name}; the same command goes on", file=sys.stderr)
            return error.exit_code
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130

    return wrapped


def _of_library(error: OSError) -> LightningWMError:
    if is_full(error):
        return unwritable(error.filename or "a file", error)
    return UserError(f"{error.filename}: {error.strerror}; expected what you may read and write there")
