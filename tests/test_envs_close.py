"""Closing: every simulator and its OpenGL context is released, whatever a `close` does."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torchrl.envs import RewardSum, SerialEnv, TransformedEnv

from lightning_wm.config.schema import ObservationConfig, RenderConfig, TaskConfig
from lightning_wm.envs import make_env, release, rendering_problem
from lightning_wm.errors import EnvironmentFailure, UserError
from lightning_wm.fit import main as fit
from lightning_wm.playing.play import play
from lightning_wm.playing.random import RandomActor
from lightning_wm.registry import register
from tests.conftest import TINY

PROBLEM = rendering_problem()
draws = pytest.mark.skipif(PROBLEM is not None, reason=f"this machine cannot draw: {PROBLEM}")
STATE = ObservationConfig("state")


@register("environment", "counted")
class Counted:
    """Counts what is open; its name says what goes wrong: `refuse@2` when the second is made, `step@3`, `close`."""

    low, high, size = np.full(1, -1.0), np.full(1, 1.0), 2
    made = steps = 0
    open: ClassVar[list[Counted]] = []
    closed: ClassVar[list[Counted]] = []

    def __init__(self, name, observation):
        Counted.made += 1
        if f"refuse@{Counted.made}" in name:
            raise UserError("no more of them")
        self.name, self.age = name, 0
        Counted.open.append(self)

    def reset(self, seed):
        self.age = 0

    def step(self, action):
        Counted.steps += 1
        self.age += 1
        if f"step@{Counted.steps}" in self.name:
            raise RuntimeError("it broke")
        return 1.0, False, self.age == 12

    def observe(self, out):
        out[:] = self.age

    def render(self, size):
        if "draw" not in self.name:
            raise UserError("no picture")
        return np.zeros((size, size, 3), np.uint8)

    def close(self):
        assert self not in Counted.closed, "closed twice"
        Counted.open.remove(self)
        Counted.closed.append(self)
        if "exit" in self.name:
            sys.exit("closed for good")
        if "close" in self.name:
            raise OSError("the port is gone")


@pytest.fixture(autouse=True)
def _from_zero():
    yield
    Counted.made = Counted.steps = 0
    Counted.open.clear()
    Counted.closed.clear()
    release._named.clear()


def counted(faults="", environments=3, kind="state"):
    return make_env(TaskConfig(f"counted/{faults}x"), ObservationConfig(kind), environments)


def test_every_simulator_is_closed_once():
    env = counted()
    env.rollout(3)
    made = list(env.simulators)
    env.close()
    assert Counted.closed == made
    assert env.is_closed
    env.close()
    env.close(raise_if_closed=False)
    assert len(Counted.closed) == 3


def test_torchrls_wrappers_close_them_too():
    TransformedEnv(counted(), RewardSum()).close()
    assert len(Counted.closed) == 3
    serial = SerialEnv(2, lambda: counted(environments=1))
    serial.rollout(2)
    serial.close()
    del serial
    gc.collect()
    assert (len(Counted.closed), Counted.open) == (Counted.made, [])


def test_what_nobody_closed_is_closed_when_it_goes():
    env = counted()
    del env
    gc.collect()
    assert len(Counted.closed) == 3


def test_a_forked_process_leaves_its_parents_simulators_alone():
    env = counted()
    child = os.fork()
    if child == 0:
        env.__del__()
        os._exit(len(Counted.closed))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    env.close()


def test_what_was_made_before_a_refusal_is_closed():
    with pytest.raises(UserError, match="no more of them"):
        counted("refuse@3")
    assert (len(Counted.closed), Counted.open) == (2, [])
    with pytest.raises(UserError, match="no picture"):
        counted(kind="pixels")
    assert (len(Counted.closed), Counted.open) == (5, [])


def test_a_row_that_is_restarted_closes_its_simulator():
    env = counted("step@2")
    first = list(env.simulators)
    played = play(env, RandomActor(1, 3), [1, 2, 3], on_failure=lambda error: None)
    assert [episode.row for episode in played] == [0, 2]
    assert Counted.closed == first[1:2]
    assert len(Counted.open) == 3
    env.close()
    assert (len(Counted.closed), Counted.open) == (4, [])


def test_a_row_that_cannot_be_made_again_is_closed_once_and_may_come_back():
    env = counted("refuse@4")
    with pytest.raises(EnvironmentFailure, match="cannot be made again: no more of them"):
        env.rebuild(1)
    assert (len(Counted.closed), len(Counted.open)) == (1, 2)
    env.rebuild(1)
    assert len(Counted.open) == 3
    with pytest.raises(UserError):
        counted("refuse@6&")  # the fifth is left open by nobody
    env.close()
    assert Counted.open == []


@pytest.mark.parametrize("fault", ["close", "exit"])
def test_a_close_that_raises_is_named_once_and_stops_nothing(fault, capsys):
    for _ in range(2):
        env = counted(fault)
        env.reset()
        env.rebuild(0)
        env.rollout(3)
        env.close()
    assert (len(Counted.closed), Counted.open) == (8, [])
    error = {"close": "OSError: the port is gone", "exit": "SystemExit: closed for good"}[fault]
    expected = f"warning: task counted/{fault}x could not be closed ({error}); it may keep memory\n"
    assert capsys.readouterr().err == expected


def test_a_run_whose_environment_does_not_close_is_complete(tmp_path, capsys):
    task = "task.name=counted/close&step@8&x"
    small = ["task.action_repeat=1", "rollout.env_steps=20", "env_steps=60", "evaluation.every=0"]
    arguments = [*TINY, *small, f"plugins=[{__name__}]", task, "evaluation.video=false", f"run={tmp_path / 'run'}"]
    assert fit(arguments) == 0
    assert capsys.readouterr().err.count("could not be closed") == 1
    assert len(Counted.closed) == Counted.made


@pytest.mark.parametrize("use", ["reset", "step", "frame", "rebuild"])
def test_a_closed_environment_says_so(use):
    env = counted("draw")
    first = env.reset()
    env.close()
    uses = {
        "reset": env.reset,
        "step": lambda: env.step(first.set("action", torch.zeros(3, 1))),
        "frame": env.frame,
        "rebuild": lambda: env.rebuild(0),
    }
    with pytest.raises(RuntimeError, match="environment of task counted/drawx is closed; make another with make_env"):
        uses[use]()


# ---- the real ones


@draws
def test_dm_controls_contexts_are_freed():
    env = make_env(TaskConfig("dmc/cartpole_swingup"), ObservationConfig("pixels"), 2)
    env.frame(1, 96)
    physics = [simulator._env.physics for simulator in env.simulators]
    contexts = [one.contexts for one in physics]
    gone = [weakref.ref(simulator) for simulator in env.simulators]
    env.close()
    assert [one.gl.terminated for one in contexts] == [True, True]
    assert [one.mujoco.ptr for one in contexts] == [None, None]
    assert not any(hasattr(one, "_data") for one in physics)
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


def resident():
    """Resident memory of this process in MB, without what malloc keeps for later."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@draws
@pytest.mark.skipif(sys.platform != "linux", reason="reads resident memory from /proc and needs glibc")
@pytest.mark.parametrize("name", ["dmc/cheetah_run", "gym/InvertedPendulum-v5"])
def test_closed_environments_keep_no_memory(name):
    if name.startswith("gym"):
        pytest.importorskip("gymnasium")
    kept, size = [], []
    for _ in range(14):
        env = make_env(TaskConfig(name), ObservationConfig("pixels", RenderConfig(size=64)))
        env.reset(seeds=[0])
        env.close()
        kept.append(env)
        size.append(resident())
    # Each kept open would be 48 MB (dm_control) or 91 MB (Gymnasium); closed, they are 0.1 MB.
    assert size[-1] - size[3] < 40, size


@draws
@pytest.mark.parametrize("name", ["dmc/cartpole_swingup", "gym/InvertedPendulum-v5"])
@pytest.mark.parametrize("other", ["dmc/cartpole_swingup", "gym/InvertedPendulum-v5", "gym/InvertedDoublePendulum-v5"])
def test_the_others_pictures_stay_as_they_are(name, other):
    pytest.importorskip("gymnasium")
    pixels = ObservationConfig("pixels")
    env, second = make_env(TaskConfig(name), pixels, 2), make_env(TaskConfig(other), pixels)
    before = env.reset(seeds=[1, 2])["pixels"]
    second.reset(seeds=[5])
    assert torch.equal(env.reset(seeds=[1, 2])["pixels"], before)
    third = make_env(TaskConfig(other), pixels)
    third.reset(seeds=[3])
    assert torch.equal(env.reset(seeds=[1, 2])["pixels"], before)
    second.close()
    assert torch.equal(env.reset(seeds=[1, 2])["pixels"], before)
    env.rebuild(0)
    assert torch.equal(env.reset(seeds=[1, 2])["pixels"][1], before[1])
    third.close()
    assert torch.equal(env.reset(seeds=[1, 2])["pixels"][1], before[1])
    env.close()


LEFT_OPEN = """
import sys
from lightning_wm.config.schema import ObservationConfig, TaskConfig
from lightning_wm.envs import make_env
env = make_env(TaskConfig(sys.argv[1]), ObservationConfig("pixels"), 2)
env.reset()
if sys.argv[2] == "close":
    env.close()
"""


@draws
@pytest.mark.parametrize(
    ("name", "close"),
    [("dmc/cartpole_swingup", "no"), ("dmc/cartpole_swingup", "close"), ("gym/InvertedPendulum-v5", "close")],
)
def test_a_process_ends_without_a_word(name, close):
    if name.startswith("gym"):
        pytest.importorskip("gymnasium")
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-W", "error", "-c", LEFT_OPEN, name, close]
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
