"""All commands as one: `lightning_wm fit recipe=quickstart`, or `python -m lightning_wm fit recipe=quickstart`."""

# PYTHON_ARGCOMPLETE_OK

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from lightning_wm.console.command import exits
from lightning_wm.errors import UserError, hint

COMMANDS = {
    "fit": ("lightning_wm.fit", "train a recipe, go on with it, or print its table again"),
    "evaluate": ("lightning_wm.evaluate", "play a trained run with any planners; film; look at one decision"),
    "bench": ("lightning_wm.bench", "measure what planning, updates, replay and rendering cost"),
    "study": ("lightning_wm.study.__main__", "run a grid of recipes, overrides and seeds"),
    "report": ("lightning_wm.report.__main__", "gather results of runs, beside published numbers"),
    "export": ("lightning_wm.export", "write a model folder to share"),
    "info": ("lightning_wm.console.info", "versions, drawing and devices: what to paste into a bug report"),
    "tasks": ("lightning_wm.console.tasks", "what task.name can be, with the sizes of actions and observations"),
    "completion": ("lightning_wm.console.completion", "the line that makes the shell complete commands and keys"),
}
"""Command to its module, whose `main(argv)` it is, and what it does."""


@exits
def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    arguments = list(argv or [])
    if not arguments or arguments[0] in ("--help", "-h"):
        print(usage())
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in COMMANDS:
        near = hint(name, COMMANDS) or ";"
        raise UserError(f"there is no command {name!r}{near} expected one of {', '.join(COMMANDS)}")
    command = importlib.import_module(COMMANDS[name][0])
    return int(command.main(rest))


def usage() -> str:
    """What there is to type."""
    listed = "\n".join(f"  {name:12}{about}" for name, (_, about) in COMMANDS.items())
    return f"lightning_wm COMMAND [key=value ...]\n\n{listed}\n\nlightning_wm COMMAND --help says more; --version."


def script() -> None:
    """The entry point."""
    if "_ARGCOMPLETE" in os.environ:
        from lightning_wm.console.completion import complete

        complete()
    raise SystemExit(main(sys.argv[1:]))


if __name__ == "__main__":
    script()
