"""A study's lines of `bench`, on models that are there or on the runs of its arms, one after the other."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_wm.errors import ConfigError, DiskError, UserError
from lightning_wm.study.grid import Cell
from lightning_wm.study.launch import Launch

ENDS_ALL = (130, 143, DiskError.exit_code)
"""Exit codes of a line after which no other is begun: it was stopped, or the disk is full."""


@dataclass(frozen=True)
class Bench:
    """One line of `bench`, and where its files go."""

    name: str
    words: tuple[str, ...]
    """Of `bench`, without the place of its files."""
    out: Path
    """The study's folder."""
    trained: tuple[int, ...] = ()
    """Env steps of the runs that it is told."""

    @property
    def file(self) -> Path:
        """What it writes; a CSV and a picture of it have the same name."""
        return self.out / f"{self.name}.json"

    @property
    def mark(self) -> Path:
        """What is there once it came to its end: `played`."""
        return self.out / f"{self.name}.finished"

    @property
    def played(self) -> str:
        """The line, and how far its runs were trained."""
        return " ".join([shlex.join(self.words), *map(str, self.trained)])

    @property
    def finished(self) -> bool:
        """Whether this very line came to its end; with other runs, settings or env steps it is another."""
        return self.file.is_file() and self.mark.is_file() and self.mark.read_text("utf-8") == self.played


def benches(tree: dict[str, Any], path: Path, out: Path, cells: Sequence[Cell] = ()) -> list[Bench]:
    """Those of a study's tree, each a name and a line as it is typed after `bench`.

    Args:
        tree: of the study.
        path: its file.
        out: its folder.
        cells: of its arms; every line is told their runs as `runs=`.

    Raises:
        ConfigError: something else stands there, or beside it.
    """
    lines, others = tree["bench"], [] if cells else sorted(set(tree) - {"bench"})
    faults = [f"{other}: a study with bench and without arms trains nothing; take it out" for other in others]
    if not isinstance(lines, dict) or not lines:
        raise ConfigError([*faults, f"bench={lines}: expected names, with a line of bench each (in {path})"])
    for name, line in lines.items():
        if not isinstance(line, str) or not line.strip() or "/" in name or name.startswith("."):
            faults.append(f"bench.{name}={line}: expected a plain name and text, as planner run=zoo:cartpole_swingup")
        elif cells and line.split()[0] != "gradient":
            faults.append(f"bench.{name}={line}: beside arms expected a line that compares runs: gradient episodes=4")
        elif broken := _unsplit(line):
            faults.append(f"bench.{name}={line}: {broken}; close the quotes, or take them out")
    if faults:
        raise ConfigError([f"{fault} (in {path})" for fault in faults])
    told = [f"runs={','.join(str(cell.run) for cell in cells)}"] if cells else []
    trained = tuple(cell.env_steps for cell in cells)
    return [Bench(name, (*shlex.split(line), *told), out, trained) for name, line in lines.items()]


def _unsplit(line: str) -> str:
    """Why a line is no list of words; nothing where it is one."""
    try:
        shlex.split(line)
    except ValueError as error:
        return str(error)
    return ""


def refuse_launch(launch: Launch) -> None:
    """Nothing here runs beside the other.

    Raises:
        UserError: it was asked to.
    """
    plain = Launch()
    asked = [name for name in vars(plain) if vars(launch)[name] != vars(plain)[name]]
    if asked:
        raise UserError(
            f"{asked[0]}={vars(launch)[asked[0]]}: this study trains nothing, its lines run one after the other in "
            f"this process; leave {asked[0]} out"
        )


def run(made: list[Bench]) -> int:
    """Run what is not finished; returns the exit code, 1 where one failed, its own where one ends them all."""
    from lightning_wm.bench import main

    failed = []
    for bench in made:
        if bench.finished:
            print(f"{bench.name}: finished, {bench.file}")
            continue
        print(f"{bench.name}: bench {shlex.join(bench.words)}", flush=True)
        bench.out.mkdir(parents=True, exist_ok=True)
        code = main([*bench.words, f"json={bench.file}"])
        if code in ENDS_ALL:
            return code
        if code:
            failed.append(bench.name)
        else:
            bench.mark.write_text(bench.played, "utf-8")
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def status(made: list[Bench]) -> None:
    """One line each."""
    for bench in made:
        print(f"{bench.name}: {'finished' if bench.finished else 'to do'}, {bench.file}")
