"""Runs as processes that can be killed, and what has to be equal after them.

Importing everything takes a process 8 s, and a test that kills runs needs
dozens. The fork server of `multiprocessing` imports once, in a process that
does nothing else, and every run is forked from there: a process of its own
with its own pid and exit code, without threads or state of another.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import matplotlib.pyplot  # noqa: F401
import torch

import lightning_wm.training.closing
import lightning_wm.training.experiment  # noqa: F401
from lightning_wm.data.replay import Replay
from lightning_wm.fit import main as fit
from lightning_wm.protocols import Spaces
from lightning_wm.registry import KINDS, names
from lightning_wm.runs.checkpoint import load_checkpoint
from lightning_wm.runs.directory import RunDirectory

for _kind in KINDS:
    names(_kind)

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.forks"])
PATIENCE = 1800.0
"""Seconds after which a process counts as hung."""


def _child(function: Callable[..., Any], arguments: Sequence[Any], log: str, environment: Mapping[str, str]) -> None:
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(environment)
    torch.set_num_threads(1)
    sys.exit(function(*arguments))


def start(
    function: Callable[..., Any], *arguments: Any, log: Path, environment: Mapping[str, str] | None = None
) -> BaseProcess:
    """Run a function of an importable module in a fresh process; what it returns is the exit code."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    environment = dict(environment or {})
    process = CONTEXT.Process(target=_child, args=(function, arguments, str(log), environment), daemon=True)
    process.start()
    return process


def ended(process: BaseProcess) -> int:
    """The exit code, negative for the signal that killed it; a process that hangs is killed and is an error."""
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"process {process.pid} did not end")
    return int(process.exitcode)


# ---- runs of one rank or more


@dataclass(frozen=True)
class Run:
    """A command, where it writes, and on how many ranks."""

    folder: Path
    command: tuple[str, ...]
    ranks: int = 1

    @property
    def argv(self) -> list[str]:
        return [*self.command, f"run={self.folder}"]

    def updates(self) -> int:
        """Updates in the last whole line of metrics.jsonl."""
        try:
            with (self.folder / "metrics.jsonl").open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 4000))
                lines = file.read().split(b"\n")[:-1]
            return int(json.loads(lines[-1])["updates"])
        except (OSError, ValueError, IndexError, KeyError):
            return 0

    @contextmanager
    def living(self, environment: Mapping[str, str] | None = None) -> Iterator[list[BaseProcess]]:
        """The processes of one life of the run; whatever is left of them at the end is killed."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        port = str(_free_port())
        processes = []
        for rank in range(self.ranks):
            own = {"RUN_OF_A_TEST": str(self.folder), **(environment or {})}  # whoever it starts can be told by it
            if self.ranks > 1:  # as a launcher would start them: Lightning then starts none of its own
                own |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(self.ranks)}
                own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            log = self.folder.parent / f"{self.folder.name}-rank{rank}.log"
            processes.append(start(fit, self.argv, log=log, environment=own))
        try:
            yield processes
        finally:
            for process in processes:
                process.kill()
                process.join()

    def whole(self) -> None:
        """One life to the end."""
        with self.living() as processes:
            codes = [ended(process) for process in processes]
        assert codes == [0] * self.ranks, self.log()

    def starts(self) -> int:
        """How often the run has said that it goes on."""
        return (self.folder.parent / f"{self.folder.name}-rank0.log").read_text().count("going on from")

    def log(self) -> str:
        """The end of what rank 0 said."""
        return (self.folder.parent / f"{self.folder.name}-rank0.log").read_text()[-3000:]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


# ---- ways to end a life


def strike(run: Run, number: int, updates: int, seconds: float) -> list[int]:
    """Send a signal that many seconds after an update; SIGKILL to one rank, others to all. Returns exit codes."""
    if not RunDirectory(run.folder).turns():  # it begins anew: an earlier life's updates are not this one's
        (run.folder / "metrics.jsonl").unlink(missing_ok=True)
    with run.living() as processes:
        while run.updates() < updates and all(process.is_alive() for process in processes):
            time.sleep(0.002)
        time.sleep(seconds)
        struck = processes[updates % run.ranks :][:1] if number == signal.SIGKILL else processes
        for process in struck:
            if process.is_alive():
                os.kill(int(process.pid or 0), number)
        for process in struck:
            ended(process)
        return [ended(process) if process in struck or run.ranks > 1 else 0 for process in processes]


def die_at(run: Run, failpoint: str) -> list[int]:
    """Let every rank die when it reaches a failpoint; a rank that outlives another is killed by `living`."""
    with run.living({"LIGHTNING_WM_FAILPOINT": failpoint}) as processes:
        while all(process.is_alive() for process in processes):
            time.sleep(0.01)
        return [int(process.exitcode or 0) for process in processes]


def moments(seed: int, count: int, updates: int) -> list[tuple[int, float]]:
    """Seeded moments: after which update, and how many seconds later."""
    drawn = random.Random(seed)
    after = sorted(drawn.randrange(1, updates) for _ in range(count))
    return [(update, drawn.random() * 0.15) for update in after]


# ---- what a run came to

CLOCKS = ("seconds", "plan/ms")


@dataclass(frozen=True)
class Outcome:
    """Everything of a run that must not depend on how often it was interrupted."""

    losses: list[tuple[int, str]]
    """Update and loss as a hexadecimal float, every update once."""
    lines: list[dict[str, Any]]
    """metrics.jsonl without what a clock had a share in."""
    weights: dict[str, torch.Tensor]
    moments: list[torch.Tensor]
    """Of the optimiser."""
    counters: list[dict[str, Any]]
    replay: list[tuple[str, int, int, int]]
    """For every rank: hash of the content, transitions, episodes, episodes that begin in it."""
    returns: list[float]
    """Of the final table."""
    best: dict[str, torch.Tensor]
    """Weights of best.ckpt, where an evaluation came before the end."""


def outcome(run: Run, spaces: Spaces, capacity: int = 1000) -> Outcome:
    """Read what a finished run left behind."""
    directory = RunDirectory(run.folder)
    saved = load_checkpoint(directory.checkpoint())
    with directory.metrics.open() as file:
        rows = [json.loads(line) for line in file]
    lines = [{k: v for k, v in row.items() if k not in CLOCKS and not k.startswith("time/")} for row in rows]
    lines = [line for line in lines if len(line) > 4]
    losses = [(row["updates"], float(row["train/loss/total"]).hex()) for row in rows if "train/loss/total" in row]
    state = saved["optimizer_states"][0]["state"]
    ranks = saved["lightning_wm"]["ranks"]
    counters = [{k: v for k, v in rank["counters"].items() if k != "seconds"} for rank in ranks]
    shards = [Replay.create(directory.replay(rank), spaces, capacity) for rank in range(run.ranks)]
    replay = [(s.digest(), s.transitions, s.episodes, _begun(s)) for s in shards]
    final = json.loads((directory.evaluations / "final.json").read_text())
    judged = directory.checkpoints / "best.ckpt"
    best = load_checkpoint(judged)["state_dict"] if judged.is_file() else {}
    adam = [value for one in state.values() for value in one.values()]
    return Outcome(losses, lines, saved["state_dict"], adam, counters, replay, final["returns"], best)


def _begun(replay: Replay) -> int:
    return int(replay.storage.tensors["is_init"][: replay.transitions].sum())


def check_equal(found: Outcome, expected: Outcome) -> None:
    """Nothing may differ, to the last bit."""
    assert found.losses == expected.losses
    assert len({update for update, _ in found.losses}) == len(found.losses)
    assert found.weights.keys() == expected.weights.keys()
    assert all(torch.equal(found.weights[name], expected.weights[name]) for name in expected.weights)
    assert len(found.moments) == len(expected.moments)
    assert all(torch.equal(a, b) for a, b in zip(found.moments, expected.moments, strict=True))
    assert found.counters == expected.counters
    assert found.replay == expected.replay
    assert found.lines == expected.lines
    assert found.returns == expected.returns
    assert found.best.keys() == expected.best.keys()
    assert all(torch.equal(found.best[name], expected.best[name]) for name in expected.best)
