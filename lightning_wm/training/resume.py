"""Going on with what a run directory holds."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_wm import config as configuration
from lightning_wm.errors import UserError
from lightning_wm.runs.checkpoint import AtomicCheckpointIO
from lightning_wm.runs.directory import RunDirectory
from lightning_wm.runs.disk import clear_temporaries
from lightning_wm.runs.identity import differences
from lightning_wm.runs.weights import check_weights
from lightning_wm.training.experiment import Experiment

Saved = tuple[Path, dict[str, Any]]
"""A checkpoint's path and content."""


def newest(run: RunDirectory) -> Saved | None:
    """The newest whole checkpoint; None where there is none yet.

    Raises:
        UserError: all are damaged, or the one that is there is not to go on from.
    """
    if run.turns():
        return run.load("last")
    if others := sorted(run.checkpoints.glob("[!.]*.ckpt*")):  # a dot begins what was never whole
        raise UserError(
            f"{run.checkpoints} has {others[0].name} but no turn-NNNNN.ckpt to go on from; expected one; "
            "restore it from a copy, or type run=<a new folder> to start another run"
        )
    return None


def prepare(run: RunDirectory, loaded: configuration.Loaded) -> Saved | None:
    """The checkpoint to go on from, the directory being ready for it; None for a run that begins.

    A run that ended before its first checkpoint has learned nothing: it begins anew, with whatever configuration.

    Raises:
        UserError: the directory's run has another configuration, must not go on, or cannot be read.
    """
    if not run.exists():
        return None
    if loaded.config.resume == "never":
        raise UserError(f"{run.path} holds a run and resume=never; type resume=auto, or run=<a new folder>")
    saved = newest(run)
    if saved is not None:
        _refuse_another(run, loaded)
    for folder in (run.path, run.checkpoints, run.evaluations, run.videos, *run.path.glob("replay/rank*")):
        clear_temporaries(folder)
    if saved is None:
        _forget(run)
        return None
    for damaged in run.turns():  # out of the way of the two that are kept
        if damaged > saved[0]:
            damaged.rename(damaged.with_name(f"{damaged.name}.damaged"))
    return saved


def _refuse_another(run: RunDirectory, loaded: configuration.Loaded) -> None:
    refused = differences(configuration.read_tree(run.config), loaded.tree)
    if refused:
        listed = "\n  ".join(refused)
        raise UserError(
            f"{run.path} holds a run with another configuration:\n  {listed}\n"
            "expected the same one to go on; type run=<a new folder> to start another"
        )


def _forget(run: RunDirectory) -> None:
    for file in (run.metrics, run.config):
        file.unlink(missing_ok=True)
    for leftover in ("replay", "tensorboard"):
        shutil.rmtree(run.path / leftover, ignore_errors=True)


def is_complete(content: Mapping[str, Any], config: configuration.Config) -> bool:
    """Whether a checkpoint is of a run that has reached its budget and learned from it all."""
    added = content["lightning_wm"]
    counters = added["ranks"][0]["counters"]
    learned = counters.get("owed", 0) < config.rollout.env_steps and not added.get("mid_turn")
    return bool(counters["env_steps"] >= config.env_steps and learned)


def hand_over(experiment: Experiment, path: Path, content: dict[str, Any]) -> Path:
    """Check the weights as `evaluate` does, and let Lightning have what has been read."""
    check_weights(experiment.agent, content["state_dict"], path)
    io = experiment.trainer.strategy.checkpoint_io
    if isinstance(io, AtomicCheckpointIO):
        io.ready[path] = content
    return path
