"""A run that is told to stop saves, leaves with the right exit code, and goes on as if it had not stopped."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

from lightning_wm.errors import Interrupted
from lightning_wm.fit import main as fit
from lightning_wm.registry import register
from lightning_wm.runs.directory import RunDirectory
from lightning_wm.training import launch, slurm
from lightning_wm.training.rollout import Rollout
from lightning_wm.training.signals import Signals
from tests.conftest import TINY
from tests.forks import Outcome, Run, check_equal, moments, outcome, strike
from tests.test_fit import measured, weights
from tests.test_resume import ALL, CARTPOLE, COMMAND, UPDATES, undisturbed  # noqa: F401

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}


@dataclass(frozen=True)
class SignalledConfig:
    """When a run sends itself a signal."""

    where: str = "update"
    """`update`, `decision`, `evaluation` or `save`."""
    at: int = 0
    """The how manieth of these."""
    number: int = int(signal.SIGTERM)
    times: int = 1
    """How many signals, one after another."""


@register("callback", "signalled")
class Signalled(pl.Callback):
    """Sends its own process a signal at one exact place of a run."""

    Config = SignalledConfig

    def __init__(self, config: SignalledConfig | None = None) -> None:
        self.config = config or SignalledConfig()
        self.count = 0

    def reached(self, where: str) -> None:
        if where == self.config.where:
            if self.count == self.config.at:
                for _ in range(self.config.times):
                    os.kill(os.getpid(), self.config.number)
            self.count += 1

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        rollout = next(c for c in trainer.callbacks if isinstance(c, Rollout))
        state = rollout.state
        state.listeners.append(lambda: self.reached("evaluation" if state.phase == "evaluating" else "decision"))

    def on_train_batch_end(self, *args: Any) -> None:
        self.reached("update")

    def on_save_checkpoint(self, *args: Any) -> None:
        self.reached("save")


def command(run: Path, **when: Any) -> list[str]:
    fields = [f"callbacks.signalled.{name}={value}" for name, value in when.items()]
    return [*TINY, f"run={run}", "evaluation.video=false", *fields]


def newest(run: Path) -> str:
    return RunDirectory(run).checkpoint().name


# The smoke run: a seed episode of 20 decisions and 2 updates, then two turns of an episode and 2 updates;
# an evaluation of 20 decisions after each of the three.
@pytest.mark.parametrize(
    ("where", "at", "saved"),
    [
        ("update", 0, "turn-00000_00001.ckpt"),
        ("update", 4, "turn-00002_00001.ckpt"),  # of the last turn, whose env steps are all there
        ("update", 3, "turn-00002.ckpt"),  # the last of a turn
        ("decision", 25, "turn-00001.ckpt"),  # while collecting: the turn's episode is dropped
        ("evaluation", 3, "turn-00001.ckpt"),  # is owed
        ("evaluation", 43, "turn-00002.ckpt"),  # of the last turn, which is dropped
        ("save", 1, "turn-00002.ckpt"),
    ],
)
def test_a_run_told_to_stop_is_the_run_that_was_not(
    where: str, at: int, saved: str, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    before = signal.getsignal(signal.SIGTERM)
    assert fit(command(run, where=where, at=at, times=3)) == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert "interrupted by SIGTERM" in capfd.readouterr().err
    assert newest(run) == saved
    assert fit(command(run)) == 0
    ours, theirs = weights(run), weights(trained)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert measured(run) == measured(trained)


def test_before_the_first_update_there_is_nothing_to_save(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert fit(command(run, where="decision", at=5, number=int(signal.SIGINT))) == 130
    assert not RunDirectory(run).turns()
    assert fit(command(run)) == 0
    assert measured(run) == measured(trained)


@pytest.mark.parametrize("seed", range(5 if ALL else 1))
def test_signals_at_any_moment(seed: int, undisturbed: Outcome, tmp_path: Path) -> None:  # noqa: F811
    """Three in CI, 20 in all."""
    run = Run(tmp_path / "run", COMMAND)
    for count, moment in enumerate(moments(100 + seed, 4 if ALL else 3, UPDATES - 100)):
        number = signal.SIGINT if count == 1 else signal.SIGTERM
        begun = run.starts() if count else 0
        codes = strike(run, number, *moment)
        # A process that is still reading its configuration has nothing to save: it ends as any other.
        early = codes == [-number] and count > 0 and run.starts() == begun
        assert codes == [CODES[number]] or early, run.log()
    run.whole()
    check_equal(outcome(run, CARTPOLE), undisturbed)


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two ranks need two cores")
@pytest.mark.parametrize("where", ["update", "decision", "evaluation"])
def test_two_ranks_stop_together(where: str, tmp_path: Path) -> None:
    """One rank alone is signalled; each sends itself the signal where `rank` says so."""
    two = ("trainer.devices=2", "trainer.strategy=ddp", "rollout.seed_episodes=2", "rollout.env_steps=320")
    small = (*COMMAND, "trainer.updates_per_turn=4", "trainer.pretrain_updates=4", *two, "env_steps=1280")
    calm, run = Run(tmp_path / "calm" / "run", small, 2), Run(tmp_path / "run", small, 2)
    calm.whole()
    at = {"update": 5, "decision": 30, "evaluation": 5}[where]
    fields = (f"callbacks.rank_signalled.{name}={value}" for name, value in {"where": where, "at": at}.items())
    stopped = Run(run.folder, (*small, "plugins=[tests.test_signals]", *fields), 2)
    with stopped.living() as processes:
        for process in processes:
            process.join(120)
        assert [process.exitcode for process in processes] == [143, 0], run.log()
    run.whole()
    check_equal(outcome(run, CARTPOLE), outcome(calm, CARTPOLE))


@register("callback", "rank_signalled")
class RankSignalled(Signalled):
    """Signals one rank alone: rank 1, and rank 0 for what only rank 0 does."""

    def reached(self, where: str) -> None:
        if int(os.environ.get("LOCAL_RANK", "0")) == (0 if where == "evaluation" else 1):
            super().reached(where)


# ---- the flag


def signalled(signals: Signals, *numbers: int) -> None:
    """Receive signals while they are deferred."""
    with signals.deferred():
        for number in numbers:
            os.kill(os.getpid(), number)
        assert signals.received == numbers[0]


def test_a_signal_ends_at_once_outside_of_training_and_is_only_noted_inside() -> None:
    signals = Signals()
    before = signal.getsignal(signal.SIGTERM)
    with signals.listening():
        with pytest.raises(Interrupted, match="SIGTERM") as raised:
            signalled(signals, signal.SIGTERM, signal.SIGINT)
        assert raised.value.exit_code == 143
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_is_passed_on_once_and_not_inside_the_handler() -> None:
    signals, sent = Signals(), list[int]()
    signals.pass_on = sent.append
    with signals.listening():
        with pytest.raises(Interrupted):
            signalled(signals, signal.SIGTERM)
        with pytest.raises(Interrupted):
            signals.poll()
    assert sent == [signal.SIGTERM]


# ---- SLURM


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """A fake `scontrol` first on PATH; gives the command lines it was called with. With AGAIN it signals its caller."""
    called, path = tmp_path / "called", tmp_path / "bin" / "scontrol"
    path.parent.mkdir()
    again = '[ -z "$AGAIN" ] || { kill -INT $PPID; sleep 0.1; }'
    held = '[ "$2" != 13 ] || { echo "Job is held" >&2; exit 1; }'
    path.write_text(f'#!/bin/sh\n{again}\necho "$@" >> {called}\n{held}\n')
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")
    return lambda: called.read_text().splitlines() if called.exists() else []


@pytest.mark.parametrize(
    ("number", "code", "requeued"),
    [(signal.SIGUSR1, 143, ["requeue 77"]), (signal.SIGTERM, 143, ["requeue 77"]), (signal.SIGINT, 130, [])],
)
def test_a_preempted_job_is_requeued_once_after_saving(
    number: int,
    code: int,
    requeued: list[str],
    scontrol: Callable[[], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("AGAIN", "1")  # a further signal does not stop it
    run = tmp_path / "run"
    assert fit(command(run, where="update", at=4, number=int(number), times=2)) == code
    assert newest(run) == "turn-00002_00001.ckpt"
    assert scontrol() == requeued


def test_an_array_s_task_has_its_own_name_and_a_refusal_is_told(
    scontrol: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not slurm.requeue()
    monkeypatch.setenv("SLURM_JOB_ID", "13")
    assert not slurm.requeue()
    assert "13 was not requeued (Job is held)" in capsys.readouterr().err
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert slurm.requeue()
    assert scontrol() == ["requeue 13", "requeue 12_3"]
    monkeypatch.setenv("PATH", "")
    assert not slurm.requeue()
    assert "submit the same command again" in capsys.readouterr().err


def test_lightning_neither_saves_nor_requeues_in_a_slurm_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of one device takes no notice of SLURM at all; where SLURM has started its ranks, requeueing stays ours."""
    for name, value in {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_ID": "7"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    assert not isinstance(launch.environment(1), SLURMEnvironment)
    environment = launch.environment(2)
    assert isinstance(environment, SLURMEnvironment)
    assert not environment.auto_requeue
