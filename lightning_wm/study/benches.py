"""A study's lines of `bench`, on models that are there or on the runs of its arms, one after the other."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_wm.errors import ConfigError, UserError
from lightning_wm.study.launch import Launch


@dataclass(frozen=True)
class Bench:
    """One line of `bench`, and where its files go."""

    name: str
    words: tuple[str, ...]
    """Of `bench`, without the place of its files."""
    out: Path
    """The study's folder."""

    @property
    def file(self) -> Path:
        """What it writes; a CSV and a picture of it have the same name."""
        return self.out / f"{self.name}.json"

    @property
    def mark(self) -> Path:
        """What is there once it came to its end: the line that was played."""
        return self.out / f"{self.name}.finished"

    @property
    def finished(self) -> bool:
        """Whether this very line came to its end; with other runs or settings it is another."""
        return self.mark.is_file() and self.mark.read_text("utf-8") == shlex.join(self.words)


def benches(tree: dict[str, Any], path: Path, out: Path, runs: Sequence[Path] = ()) -> list[Bench]:
    """Those of a study's tree, each a name and a line as it is typed after `bench`.

    Args:
        tree: of the study.
        path: its file.
        out: its folder.
        runs: of its arms; every line is told them as `runs=`.

    Raises:
        ConfigError: something else stands there, or beside it.
    """
    lines, others = tree["bench"], [] if runs else sorted(set(tree) - {"bench"})
    faults = [f"{other}: a study with bench and without arms trains nothing; take it out" for other in others]
    if not isinstance(lines, dict) or not lines:
        raise ConfigError([*faults, f"bench={lines}: expected names, with a line of bench each (in {path})"])
    for name, line in lines.items():
        if not isinstance(line, str) or not line.strip() or "/" in name or name.startswith("."):
            faults.append(f"bench.{name}={line}: expected a plain name and text, as planner run=zoo:cartpole_swingup")
        elif runs and line.split()[0] != "gradient":
            faults.append(f"bench.{name}={line}: beside arms expected a line that compares runs: gradient episodes=4")
    if faults:
        raise ConfigError([f"{fault} (in {path})" for fault in faults])
    told = [f"runs={','.join(map(str, runs))}"] if runs else []
    return [Bench(name, (*shlex.split(line), *told), out) for name, line in lines.items()]


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
    """Run what is not finished; returns the exit code, 1 where one failed."""
    from lightning_wm.bench import main

    failed = []
    for bench in made:
        if bench.finished:
            print(f"{bench.name}: finished, {bench.file}")
            continue
        print(f"{bench.name}: bench {shlex.join(bench.words)}", flush=True)
        bench.out.mkdir(parents=True, exist_ok=True)
        if main([*bench.words, f"json={bench.file}"]) == 0:
            bench.mark.write_text(shlex.join(bench.words), "utf-8")
        else:
            failed.append(bench.name)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def status(made: list[Bench]) -> None:
    """One line each."""
    for bench in made:
        print(f"{bench.name}: {'finished' if bench.finished else 'to do'}, {bench.file}")
