"""The guard on two ranks: what goes wrong on one of them is skipped, dropped or ended on both."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightning_wm.data.replay import Replay
from lightning_wm.protocols import Spaces
from lightning_wm.training.plots import read_metrics

COMMAND = [
    "recipe=quickstart", "smoke=true", "trainer.devices=2", "trainer.strategy=ddp", "evaluation.video=false",
    "evaluation.every=0", "evaluation.final_episodes=1", "logging.progress=false", "logging.tensorboard=false",
    "plugins=[tests.faults]", "task.action_repeat=1", "rollout.seed_episodes=2", "rollout.env_steps=40",
    "env_steps=240", "trainer.updates_per_turn=6", "planner=faulty_mpc", "planner.bad_candidates=true",
    "agent=faulty_planet", "agent.rank=1",
]  # fmt: skip
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two ranks need two cores"),
]


def fit(run: Path, *more: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_XDIST_WORKER"} | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "lightning_wm.fit", *COMMAND, f"run={run}", *more],
        capture_output=True, text=True, timeout=600, cwd=Path(__file__).parent.parent, env=environment,
    )  # fmt: skip


def test_losses_gradients_candidates_rewards_observations_and_actions(tmp_path: Path) -> None:
    # Both ranks count env steps of their own: each fault happens on each of them.
    run = tmp_path / "run"
    faults = "reward@30&observation@55&raise@80"
    ended = fit(
        run, f"task.name=faulty/cartpole_swingup?{faults}", "rollout.failures=100", "planner.bad_actions=[3]",
        "agent.bad_losses=[3,20,21,22]", "agent.bad_gradients=[8]", "agent.bad_batches=[10]",
    )  # fmt: skip
    assert ended.returncode == 3, ended.stderr[-3000:]
    assert "Traceback" not in ended.stderr
    kept = run / "bad_batch-rank1.pt"
    assert (
        "3 updates in a row were not finite (the last is update 22); the first bad tensor is loss/spoilt on rank 1; "
        f"its batch is in {kept}" in ended.stderr
    )
    assert torch.load(kept, weights_only=True)["update"] == 22
    lines = read_metrics(run / "metrics.jsonl")
    assert [line["train/skipped"] for line in lines if "train/skipped" in line][-1] == 5
    assert [line["rollout/restarts"] for line in lines if "rollout/restarts" in line][-1] == 8
    assert not any(line.get("plan/fallbacks") for line in lines)
    weights = [torch.load(run / f"weights-rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert torch.equal(*weights)
    assert weights[0].isfinite().all()
    shards = [Replay.create(run / "replay" / f"rank{rank}", Spaces(action=1, observation=5), 1000) for rank in (0, 1)]
    assert sum(len(shard) - shard.episodes for shard in shards) == lines[-1]["env_steps"]
    assert sum(shard.episodes for shard in shards) == lines[-1]["episodes"]


def test_an_environment_that_keeps_failing_on_one_rank_ends_both_with_4(tmp_path: Path) -> None:
    run = tmp_path / "run"
    ended = fit(run, "task.name=faulty/cartpole_swingup?rank@1&raise@5&raise@6&raise@7&raise@8")
    assert ended.returncode == 4, ended.stderr[-3000:]
    assert "Traceback" not in ended.stderr
    assert "error: on rank 1: 4 episodes were dropped within 300 s" in ended.stderr
