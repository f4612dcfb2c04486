"""A run that is killed anywhere goes on as if it had not been.

Five kills here; `nox -s resume` makes all of them (RESUME=all).
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_wm.protocols import Spaces
from lightning_wm.runs.checkpoint import AtomicCheckpointIO, Counters, load_checkpoint
from lightning_wm.runs.directory import RunDirectory
from tests.forks import Outcome, Run, check_equal, die_at, moments, outcome, start, strike

ALL = os.environ.get("RESUME") == "all"
CARTPOLE = Spaces(action=1, observation=5)
UPDATES = 600
QUIET = ("logging.tensorboard=false", "logging.progress=false", "evaluation.video=false", "logging.every=1")
COMMAND = (
    "recipe=quickstart",
    "smoke=true",
    *QUIET,
    "trainer.updates_per_turn=50",
    "trainer.pretrain_updates=50",
    "rollout.seed_episodes=1",
    "rollout.env_steps=160",
    "env_steps=1920",
    "evaluation.every=480",
)
"""Seed episode, 50 updates, then 11 turns of an episode of 20 decisions and 50 updates of about 5 ms."""
SAVES = ("written.ckpt", "synced.ckpt", "named.ckpt")
COMMITS = ("episode.begun", "episode.stored", "written.json", "synced.json")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The run that nobody killed."""
    run = Run(tmp_path_factory.mktemp("undisturbed") / "run", COMMAND)
    run.whole()
    found = outcome(run, CARTPOLE)
    assert [update for update, _ in found.losses] == list(range(UPDATES))
    assert found.replay[0][2] == found.replay[0][3] == 12
    return found


def disturb(run: Run, seed: int, updates: int = UPDATES) -> int:
    """Five kills: three at moments, one inside a save, one inside an episode's commit; returns how many there were."""
    drawn = random.Random(seed)
    save, commit = SAVES[seed % len(SAVES)], COMMITS[seed % len(COMMITS)]
    (first, *rest) = moments(seed, 3, updates - 100)
    kills = [
        strike(run, signal.SIGKILL, *first),
        die_at(run, f"{save}:{drawn.randint(1, 2)}"),
        strike(run, signal.SIGKILL, *rest[0]),
        die_at(run, f"{commit}:{drawn.randint(1, 2)}"),
        strike(run, signal.SIGKILL, *rest[1]),
    ]
    return sum(-signal.SIGKILL in codes for codes in kills)


@pytest.mark.parametrize("seed", range(10 if ALL else 1))
def test_a_run_killed_anywhere_is_the_run_that_was_not(seed: int, undisturbed: Outcome, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", COMMAND)
    assert disturb(run, seed) == 5
    run.whole()
    check_equal(outcome(run, CARTPOLE), undisturbed)
    assert not [path.name for path in run.folder.rglob(".*")], "temporary files of killed processes"


def test_a_run_from_pixels_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """Patches, their pixels' statistics and the shifts' draws; killed after an update and inside a save."""
    smaller = ("trainer.updates_per_turn=10", "trainer.pretrain_updates=10", "env_steps=640", "evaluation.every=320")
    seen = ("observation=pixels", "model=patches_barlow", "model.pixels.shift=2", "agent=dreamer", *smaller)
    keys = {setting.partition("=")[0] for setting in smaller}
    command = (*(setting for setting in COMMAND if setting.partition("=")[0] not in keys), *seen)
    calm, run = Run(tmp_path / "calm" / "run", command), Run(tmp_path / "run", command)
    calm.whole()
    expected = outcome(calm, Spaces(action=1, pixels=(3, 64, 64)))
    assert [update for update, _ in expected.losses] == list(range(40))
    codes = [strike(run, signal.SIGKILL, 14, 0.0), die_at(run, "written.ckpt:1")]
    assert codes == [[-signal.SIGKILL]] * 2
    run.whole()
    check_equal(outcome(run, Spaces(action=1, pixels=(3, 64, 64))), expected)


TWO_RANKS = ("trainer.devices=2", "trainer.strategy=ddp", "rollout.seed_episodes=2", "rollout.env_steps=320")
OTHERS = {
    "pixels": ("observation=pixels", "model.depth=2"),
    "behaviour": ("agent=dreamer",),
    "a worker": ("rollout.workers=1",),
    "two ranks": TWO_RANKS,
    "two ranks, each with a worker": (*TWO_RANKS, "rollout.workers=1"),
}


@pytest.mark.slow
@pytest.mark.skipif(not ALL, reason="nox -s resume")
@pytest.mark.parametrize("name", OTHERS)
def test_other_kinds_of_runs_as_well(name: str, tmp_path: Path) -> None:
    ranks = 2 if name.startswith("two ranks") else 1
    spaces = Spaces(action=1, pixels=(3, 64, 64)) if name == "pixels" else CARTPOLE
    updates, turns = 180, 6
    changed = (*COMMAND, "trainer.updates_per_turn=30", "trainer.pretrain_updates=30", *OTHERS[name])
    command = (*changed, f"env_steps={160 * turns * ranks}", "evaluation.every=320")
    calm, run = Run(tmp_path / "calm" / "run", command, ranks), Run(tmp_path / "run", command, ranks)
    calm.whole()
    expected = outcome(calm, spaces)
    assert len(expected.losses) == updates
    assert disturb(run, seed=1, updates=updates) == 5
    run.whole()
    check_equal(outcome(run, spaces), expected)


# ---- saves


def save_for_ever(folder: str, seed: int) -> None:
    """Checkpoints of half a megabyte, one after another, the newest two kept."""
    directory, number = RunDirectory(folder), 0
    while True:
        number += 1
        drawn = torch.randn(2**17, generator=torch.Generator().manual_seed(seed + number))
        rank = {"counters": dict(Counters(env_steps=number)), "replay": {}}
        added = {"format": 1, "sealed": True, "ranks": [rank], "metrics_bytes": 0}
        path = directory.checkpoints / f"turn-{number:05d}.ckpt"
        AtomicCheckpointIO().save_checkpoint({"state_dict": {"w": drawn}, "lightning_wm": added}, path)
        for old in directory.turns()[2:]:
            old.unlink()


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no second file system to put TMPDIR on")
def test_a_process_killed_while_it_saves_leaves_a_checkpoint_that_loads(tmp_path: Path) -> None:
    drawn = random.Random(0)
    for number in range(200 if ALL else 20):
        run = RunDirectory(tmp_path / str(number))
        process = start(save_for_ever, str(run.path), number, log=tmp_path / "log", environment={"TMPDIR": "/dev/shm"})
        while not run.turns():
            time.sleep(0.002)
            assert process.is_alive()
        time.sleep(0.05 * drawn.random())
        process.kill()
        process.join()
        newest = run.turns()[0]
        assert run.checkpoint() == newest, "the newest is damaged"
        weights: Any = load_checkpoint(newest)["state_dict"]["w"]
        expected = torch.randn(2**17, generator=torch.Generator().manual_seed(number + int(newest.stem[5:])))
        assert torch.equal(weights, expected)
