"""`fit recipe=… seed=0,1,2`: one recipe's runs, each where `fit` with that seed alone would put it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_wm import config as configuration
from lightning_wm.errors import ConfigError
from lightning_wm.study.grid import Cell, cell, foreign
from lightning_wm.study.launch import Launch

LAUNCH = ("jobs", "launcher", "sbatch", "until")
"""Keys of the study runner; the others are `fit`'s."""


def several(arguments: Sequence[str]) -> bool:
    """Whether a command line of `fit` has more than one seed."""
    return any(token.startswith("seed=") and "," in token for token in arguments)


def of_first_seed(arguments: Sequence[str]) -> Sequence[str]:
    """A command line of `fit` as it is for the first of its seeds.

    Raises:
        ConfigError: a seed is no whole number from 0, or is there twice.
    """
    if not several(arguments):
        return arguments
    halves = split(arguments)
    return [*halves.fit, f"seed={halves.seeds[0]}"]


@dataclass(frozen=True)
class Split:
    """A command line's two halves."""

    launch: list[str]
    fit: list[str]
    seeds: list[int]


def split(arguments: Sequence[str]) -> Split:
    """Take a command line apart.

    Raises:
        ConfigError: a seed is no whole number from 0, or is there twice.
    """
    launch = [token for token in arguments if token.partition("=")[0] in LAUNCH]
    (typed,) = [token for token in arguments if token.startswith("seed=")][-1:]
    words = typed.removeprefix("seed=").strip("[]").split(",")
    faults = [f"{typed}: {word!r} is no whole number from 0; type e.g. seed=0,1,2" for word in words if not _seed(word)]
    if not faults and len({int(word) for word in words}) < len(words):
        faults = [f"{typed}: a seed is there twice; keep one of them"]
    if faults:
        raise ConfigError(faults)
    rest = [token for token in arguments if token not in launch and not token.startswith("seed=")]
    return Split(launch, rest, [int(word) for word in words])


def _seed(word: str) -> bool:
    return word.strip().isascii() and word.strip().isdigit()


def run(arguments: Sequence[str]) -> int:
    """Run `fit` with every seed; returns the exit code.

    Raises:
        ConfigError: all faults.
    """
    halves = split(arguments)
    launch = configuration.options(halves.launch, Launch)
    cells = seed_cells(halves)
    out = cells[0].run.parent
    return launch.run(cells, out, out / f"{cells[0].arm}.lock")


def seed_cells(halves: Split) -> list[Cell]:
    """A cell for every seed.

    Raises:
        ConfigError: all faults.
    """
    from lightning_wm.runs.identity import run_directory

    typed = next((token.removeprefix("run=") for token in reversed(halves.fit) if token.startswith("run=")), None)
    tokens = [token for token in halves.fit if not token.startswith("run=")]
    cells, faults = [], []
    for seed in halves.seeds:
        loaded = configuration.load([*tokens, f"seed={seed}"])
        run = run_directory(loaded) if typed is None else Path(typed).expanduser() / f"seed{seed}"
        faults += foreign(run, loaded.tree)
        cells.append(cell(loaded.recipe, seed, run, tokens, loaded.config))
    if faults:
        raise ConfigError(faults)
    return cells
