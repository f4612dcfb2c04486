"""A process of its own that plays while the run learns: equal after every kill, and what is done where it dies."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from lightning_wm import rng
from lightning_wm.agents.planet import PlaNet
from lightning_wm.config import load
from lightning_wm.config.schema import ObservationConfig, RolloutConfig, TaskConfig
from lightning_wm.envs import make_env
from lightning_wm.errors import ConfigError, EnvironmentFailure, Interrupted, UserError
from lightning_wm.fit import main as fit
from lightning_wm.planners.grad_mpc import GradMPC, GradMPCConfig
from lightning_wm.playing.play import play
from lightning_wm.protocols import Spaces
from lightning_wm.runs.checkpoint import load_checkpoint
from lightning_wm.runs.directory import RunDirectory
from lightning_wm.training.experiment import build_experiment
from lightning_wm.training.messages import Order, Played, packed, unpacked
from lightning_wm.training.rollout import Rollout
from lightning_wm.training.worker import Player, Worker, weights_of
from tests.conftest import TINY
from tests.faults import Faulty
from tests.forks import Run, check_equal, outcome, strike
from tests.worlds import world

TASK = TaskConfig("dmc/cartpole_swingup", 8, 20)
STATE = ObservationConfig("state")
QUIET = ("logging.tensorboard=false", "logging.progress=false", "evaluation.video=false", "evaluation.every=0")


def workers(marker: str = "") -> list[int]:
    """This process's workers, or those in whose environment `marker` is, whoever's they are."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended meanwhile
            continue
        ours = marker.encode() in environment if marker else parent == os.getpid()
        if b"lightning_wm.training.worker" in command and ours:
            found.append(int(folder.name))
    return found


def ends(pid: int) -> bool:
    """Whether a process that is not this one's child ends by itself."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 120)[0])
    finally:
        os.close(descriptor)


def test_a_run_from_pixels_stopped_and_killed_is_the_run_that_was_not(tmp_path: Path) -> None:
    """SIGTERM saves between two updates while the worker plays: it plays the same, with the turn's first weights."""
    seen = ("observation=pixels", "model=patches_barlow", "model.pixels.shift=2", "agent=dreamer")
    turns = ("trainer.updates_per_turn=15", "trainer.pretrain_updates=15", "rollout.env_steps=160", "env_steps=640")
    small = ("recipe=quickstart", "smoke=true", "rollout.seed_episodes=1", "logging.every=1", *QUIET)
    command = (*small, *seen, *turns, "rollout.workers=1")
    calm, run = Run(tmp_path / "calm" / "run", command), Run(tmp_path / "run", command)
    calm.whole()
    expected = outcome(calm, Spaces(action=1, pixels=(3, 64, 64)))
    assert [update for update, _ in expected.losses] == list(range(60))
    strike(run, signal.SIGTERM, 20, 0.0)
    assert "_" in RunDirectory(run.folder).turns()[0].stem, "the signal came between two turns"
    strike(run, signal.SIGKILL, 34, 0.0)
    assert all(ends(pid) for pid in workers(str(run.folder))), "a worker outlived its run"
    run.whole()
    check_equal(outcome(run, Spaces(action=1, pixels=(3, 64, 64))), expected)


# ---- the line to it


def player() -> Player:
    """A model that knows nothing and Grad-MPC, on two environments."""
    planner = GradMPC(GradMPCConfig(horizon=3, iterations=1, candidates=3, elites=1))
    return Player(make_env(TASK, STATE, 2), PlaNet(model=world(Spaces(action=1, observation=5))), planner, seed=7)


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    started = Worker("tests.test_worker:player")
    yield started
    started.close()


def order(model: PlaNet, env_steps: int, noise: float = 0.2) -> Order:
    return Order(weights_of(model), env_steps, first=6, rank=1, noise=noise, explore=False)


@pytest.mark.parametrize(("dtype", "noise"), [(torch.float32, 0.2), (torch.float64, 0.0)])
def test_it_plays_what_the_run_would_play(dtype: torch.dtype, noise: float, worker: Worker) -> None:
    own, other = player(), PlaNet(model=world(Spaces(action=1, observation=5), seed=3)).to(dtype)
    agent: Any = own.agent
    agent.to(dtype).load_state_dict(other.state_dict())
    actor = agent.eval().actor(own.planner, seed=7, rank=1, noise=noise)
    expected = [
        episode
        for first in (6, 8)  # 320 env steps a round
        for episode in play(own.env, actor, rng.episode_seeds(7, 1, first, 2), keep=True, first=first)
    ]
    worker.begin(order(other, 321, noise))
    played = worker.finish(lambda: None)
    assert (played.numbers, len(played.episodes), played.errors) == (4, 4, [])
    for found, wanted in zip(played.episodes, expected, strict=True):
        assert found.transitions is not None
        assert bool((found.transitions == wanted.transitions).all())


def test_another_takes_the_place_of_one_that_died(worker: Worker) -> None:
    model = PlaNet(model=world(Spaces(action=1, observation=5)))
    worker.begin(order(model, 10**6))
    (process,) = workers()
    os.kill(process, signal.SIGKILL)
    played = worker.finish(lambda: None)
    assert (played.numbers % 2, played.episodes) == (0, [])
    (error,) = played.errors
    assert isinstance(error, EnvironmentFailure)
    assert "was ended by SIGKILL" in str(error)
    worker.begin(order(model, 321))
    assert len(worker.finish(lambda: None).episodes) == 4


def test_whoever_waits_for_it_may_leave_between_rounds(worker: Worker) -> None:
    """It says of every round that it begins: rounds that are shorter than the time between two looks hid a signal."""
    looks = iter([*range(4), None])

    def leave() -> None:
        if next(looks) is None:
            raise Interrupted(signal.SIGTERM)

    worker.begin(order(PlaNet(model=world(Spaces(action=1, observation=5))), 10**6))
    with pytest.raises(Interrupted):
        worker.finish(leave)
    assert not workers()


def refuses() -> Player:
    raise ConfigError(["agent.name=mine: there is no such agent", "seed=x: expected a number"])


def test_what_cannot_be_built_is_said_as_the_run_would_say_it() -> None:
    worker = Worker("tests.test_worker:refuses")
    worker.begin(order(PlaNet(model=world(Spaces(action=1, observation=5))), 1))
    with pytest.raises(ConfigError, match="there is no such agent") as error:
        worker.finish(lambda: None)
    assert len(error.value.faults) == 2
    assert not workers()


# ---- in a run


def test_a_run_that_gets_more_env_steps_is_the_longer_run(tmp_path: Path) -> None:
    """The last turn of the shorter run orders nothing; its first weights are kept for when it goes on."""
    agent = ("agent=sac", "planner=policy", "replay.batch=8")
    argv = [*TINY, *QUIET, *agent, "rollout.workers=1", "rollout.environments=2"]
    assert fit([*argv, "env_steps=1280", f"run={tmp_path / 'long'}"]) == 0
    assert fit([*argv, "env_steps=640", f"run={tmp_path / 'short'}"]) == 0
    assert fit([*argv, "env_steps=1280", f"run={tmp_path / 'short'}"]) == 0
    long, short = (load_checkpoint(RunDirectory(tmp_path / name).checkpoint("last")) for name in ("long", "short"))
    assert long["global_step"] == short["global_step"]
    assert all(torch.equal(long["state_dict"][name], value) for name, value in short["state_dict"].items())
    states = [saved["lightning_wm"]["ranks"][0] for saved in (long, short)]
    assert states[0]["replay"] == states[1]["replay"]
    assert states[0]["counters"] | {"seconds": 0} == states[1]["counters"] | {"seconds": 0}


# ---- where it fails


class _Kills(pl.Callback):
    """Kills this process's worker at an update."""

    def __init__(self, update: int) -> None:
        self.update = update

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.global_step == self.update:
            for pid in workers():
                os.kill(pid, signal.SIGKILL)


def test_a_run_whose_worker_dies_plays_itself_and_starts_another(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    loaded = load([*TINY, *QUIET, "rollout.workers=1", "env_steps=800", f"run={tmp_path}"])
    experiment = build_experiment(loaded.config, RunDirectory(tmp_path))
    experiment.trainer.callbacks.insert(0, _Kills(2))  # it is being built while the first turn learns
    experiment.trainer.fit(experiment.agent, experiment.data)
    counters = experiment.state.counters
    assert (counters.env_steps, counters.owed, counters.episodes, counters.restarts) == (800, 0, 5, 1)
    assert experiment.trainer.global_step == 2 + 4 * 2
    assert "worker that plays episodes was ended by SIGKILL; what it had played is lost" in capfd.readouterr().err
    assert not workers()


@pytest.fixture
def _only_there() -> Iterator[None]:
    """Faults count a process's env steps: what they name has passed here."""
    Faulty.steps = 10_000
    yield
    Faulty.forget()


@pytest.mark.usefixtures("_only_there")
def test_failures_of_its_environments_are_counted_by_the_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    broken = ("plugins=[tests.faults]", "task.name=faulty/cartpole_swingup?raise@3", "rollout.workers=1")
    argv = [*TINY, *QUIET, *broken, "env_steps=640", f"run={tmp_path}"]
    assert fit([*argv, "rollout.failures=0"]) == 4
    error = capfd.readouterr().err
    assert "the simulator broke" in error
    assert "type rollout.failures=10" in error
    assert fit([*argv, "rollout.failures=9"]) == 0
    counters = load_checkpoint(RunDirectory(tmp_path).checkpoint("last"))["lightning_wm"]["ranks"][0]["counters"]
    assert (counters["env_steps"], counters["episodes"], counters["restarts"]) == (640, 4, 1)


def test_a_failure_of_ones_own_ends_a_run_as_its_base_does() -> None:
    class RobotFault(EnvironmentFailure):
        pass

    (error,) = unpacked(packed(Played(errors=[RobotFault("it fell over")]))).errors
    assert type(error) is EnvironmentFailure
    assert str(error) == "it fell over"


def test_what_it_cannot_be() -> None:
    with pytest.raises(UserError, match=r"rollout\.workers=1 needs a worker; type Rollout"):
        Rollout(make_env(TASK, STATE), config=RolloutConfig(workers=1))
    with pytest.raises(UserError, match=r"rollout\.workers=2: expected 0 or 1 process"):
        load(["recipe=quickstart", "rollout.workers=2"])
