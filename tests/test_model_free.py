"""An agent without a world model, with a view of replay of its own, is served as all others are."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from lightning_wm import load_actor
from lightning_wm.evaluate import main as evaluate
from lightning_wm.fit import main as fit
from lightning_wm.runs.checkpoint import load_checkpoint
from lightning_wm.runs.directory import RunDirectory
from lightning_wm.training.plots import read_metrics
from tests.conftest import TINY

MODEL_FREE = [*TINY, "plugins=[tests.imitator]", "agent=imitator", "planner=policy", "evaluation.video=false"]


def weights(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = load_checkpoint(RunDirectory(run).checkpoint("last"))["state_dict"]
    return state


def test_it_trains_goes_on_exactly_and_is_evaluated(tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    assert fit([*MODEL_FREE, f"run={whole}"]) == 0
    lines = read_metrics(whole / "metrics.jsonl")
    losses = [line["train/loss/imitation"] for line in lines if "train/loss/imitation" in line]
    assert losses
    assert all(math.isfinite(loss) for loss in losses)
    assert set(weights(whole)) == {f"policy.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}
    for env_steps in (lines[-1]["env_steps"] - 160, lines[-1]["env_steps"]):
        assert fit([*MODEL_FREE, f"run={resumed}", f"env_steps={env_steps}"]) == 0
    ours, theirs = weights(resumed), weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    trusted = ["plugins=[tests.imitator]", "episodes=2", "environments=2"]
    assert evaluate([f"run={whole}", "planner=policy", *trusted]) == 0
    actor = load_actor(whole, plugins=["tests.imitator"])
    assert actor.act({"observation": torch.zeros(3, 5)}).shape == (3, 1)
