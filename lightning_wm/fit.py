"""Train: `python -m lightning_wm.fit recipe=quickstart`.

The same command starts a run, continues it, and when it is complete prints
its table again.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_wm import config as configuration
from lightning_wm.errors import UserError, exits

if TYPE_CHECKING:
    from lightning_wm.experiment import Experiment
    from lightning_wm.io import RunDirectory


@exits
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = list(argv or [])
    if "--help" in arguments or "-h" in arguments:
        print(configuration.help_text(arguments))
        return 0
    if "recipe=list" in arguments:
        for name, about in configuration.recipe_names():
            print(f"{name:28} {about}")
        return 0
    loaded = configuration.load(arguments)
    if "--print" in arguments:
        print(configuration.printed(loaded))
        return 0
    return _fit(loaded, arguments)


def _first_rank() -> bool:
    return all(int(os.environ.get(name, "0")) == 0 for name in ("LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


def _fit(loaded: configuration.Loaded, arguments: list[str]) -> int:
    from lightning_wm.experiment import build_experiment, quiet
    from lightning_wm.io import RunDirectory

    quiet()
    run = RunDirectory(configuration.run_directory(loaded))
    owner = _first_rank()
    if owner:
        run.lock()
    try:
        checkpoint = _prepare(run, loaded) if owner else _newest(run)
        experiment = build_experiment(loaded.config, run)
        if owner and not run.exists():
            run.begin(configuration.to_yaml(loaded.tree), arguments, loaded.config.seed)
        if checkpoint is None or not _complete(checkpoint, loaded.config.env_steps):
            _train(experiment, checkpoint)
        return _finish(experiment) if experiment.trainer.is_global_zero else 0
    finally:
        run.unlock()


def _newest(run: RunDirectory) -> Path | None:
    path = run.checkpoint("last")
    return path if path.exists() else None


def _prepare(run: RunDirectory, loaded: configuration.Loaded) -> Path | None:
    """The checkpoint to go on from, where the directory holds a run that may; None for a new one."""
    if not run.exists():
        return None
    if loaded.config.resume == "never":
        raise UserError(f"{run.path} holds a run and resume=never; type resume=auto, or run=<a new folder>")
    differences = configuration.differences(configuration.read_tree(run.config), loaded.tree)
    if differences:
        listed = "\n  ".join(differences)
        raise UserError(
            f"{run.path} holds a run with another configuration:\n  {listed}\n"
            "expected the same one to go on; type run=<a new folder> to start another"
        )
    checkpoint = _newest(run)
    if checkpoint is None:
        _forget(run)
    return checkpoint


def _forget(run: RunDirectory) -> None:
    """Begin anew where a run ended before its first checkpoint."""
    run.metrics.unlink(missing_ok=True)
    for leftover in ("replay", "tensorboard"):
        shutil.rmtree(run.path / leftover, ignore_errors=True)


def _complete(checkpoint: Path, env_steps: int) -> bool:
    from lightning_wm.io import load_checkpoint

    ranks = load_checkpoint(checkpoint)["lightning_wm"]["ranks"]
    return bool(ranks and ranks[0]["counters"]["env_steps"] >= env_steps)


def _train(experiment: Experiment, checkpoint: Path | None) -> None:
    if checkpoint is not None:
        print(f"going on from {checkpoint}", file=sys.stderr)
    where = str(checkpoint) if checkpoint is not None else None
    try:
        experiment.trainer.fit(experiment.agent, experiment.data, ckpt_path=where, weights_only=True)
    except SystemExit as error:  # how Lightning ends after Ctrl-C
        if experiment.trainer.interrupted:
            raise KeyboardInterrupt from error
        raise
    finally:
        experiment.rollout.env.close()


def _finish(experiment: Experiment) -> int:
    """The final table, the learning curve and a video."""
    from lightning_wm.closing import close_run

    close_run(experiment)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(None))
