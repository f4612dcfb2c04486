"""Two ranks on a CPU, as the processes that a user starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy

from lightning_wm.config import load
from lightning_wm.data.replay import Replay
from lightning_wm.protocols import Spaces
from lightning_wm.training import launch
from lightning_wm.training.plots import read_metrics

COMMAND = ["recipe=quickstart", "smoke=true", "trainer.devices=2", "trainer.strategy=ddp", "evaluation.video=false"]


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two ranks need two cores")
def test_two_ranks_play_their_own_episodes_and_learn_one_model(tmp_path: Path) -> None:
    run = tmp_path / "run"

    def fit(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "lightning_wm.fit", *COMMAND, f"run={run}", *more]
        environment = {k: v for k, v in os.environ.items() if k != "PYTEST_XDIST_WORKER"}
        environment |= {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=600, cwd=Path(__file__).parent.parent, env=environment
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done

    fit()
    last = read_metrics(run / "metrics.jsonl")[-1]
    spaces = Spaces(action=1, observation=5)
    shards = [Replay.create(run / "replay" / f"rank{rank}", spaces, 1000) for rank in (0, 1)]
    assert sum(len(shard) - shard.episodes for shard in shards) == last["agent_steps"]
    assert shards[0].episodes == shards[1].episodes == last["episodes"] / 2
    assert shards[0].digest() != shards[1].digest()
    newest = sorted((run / "checkpoints").glob("turn-*.ckpt"))[-1]
    saved = torch.load(newest, weights_only=True)["lightning_wm"]
    assert [rank["replay"]["episodes"] for rank in saved["ranks"]] == [shards[0].episodes] * 2
    result = json.loads((run / "evaluations" / "final.json").read_text())
    assert result["env_steps"] == last["env_steps"]
    fit(f"env_steps={last['env_steps'] + 1}")
    assert read_metrics(run / "metrics.jsonl")[-1]["env_steps"] > last["env_steps"]


def test_ranks_wait_for_rank_0_s_evaluation_as_long_as_it_takes() -> None:
    """Gloo's own timeout of half an hour ended the others while rank 0 played."""
    config = load(["recipe=quickstart", "trainer.devices=2"]).config
    strategy = launch.strategy(config)
    assert isinstance(strategy, DDPStrategy)
    assert strategy._timeout == timedelta(days=1)
    assert launch.strategy(load(["recipe=quickstart"]).config) == "auto"
