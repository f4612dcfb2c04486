"""Train: `python -m lightning_wm.fit recipe=quickstart`.

The same command starts a run, continues it, and when it is complete prints
its table again.
"""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_wm import config as configuration
from lightning_wm.errors import Interrupted, LightningWMError, UserError, exits

if TYPE_CHECKING:
    from lightning_wm.runs.directory import RunDirectory
    from lightning_wm.training.experiment import Experiment
    from lightning_wm.training.signals import Signals


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


def _fit(loaded: configuration.Loaded, arguments: list[str]) -> int:
    from lightning_wm.runs.directory import RunDirectory
    from lightning_wm.runs.untrusted import check_folder
    from lightning_wm.training import slurm
    from lightning_wm.training.experiment import quiet
    from lightning_wm.training.launch import own_rank
    from lightning_wm.training.signals import Signals

    quiet()
    run = RunDirectory(configuration.run_directory(loaded))
    rank = own_rank(loaded.config.trainer.devices)
    owner = rank == 0
    if owner:
        check_folder(run.path)  # before anything in it is written
    run.lock("lock" if owner else f"lock-{rank}")  # one for each process, so that two never write the same replay
    signals = Signals()
    try:
        with signals.listening():
            try:
                return _go(loaded, arguments, run, signals, owner)
            except Interrupted as error:
                if owner and error.signal != signal.SIGINT:
                    with signals.deferred():  # a further signal must not stop scontrol
                        slurm.requeue()
                raise
    except LightningWMError as error:
        if not owner and error.everywhere:
            return 0  # as below
        raise
    except Interrupted:
        if not owner:
            return 0  # Lightning kills rank 0, perhaps in the middle of its last words, where another rank fails
        raise
    finally:
        run.unlock()


def _go(
    loaded: configuration.Loaded, arguments: list[str], run: RunDirectory, signals: Signals, owner: bool
) -> int:
    from lightning_wm.training.experiment import build_experiment

    saved = _prepare(run, loaded) if owner else _newest(run)
    experiment = build_experiment(loaded.config, run, signals)
    if owner and not run.exists():
        run.begin(configuration.to_yaml(loaded.tree), arguments, loaded.config.seed)
    if saved is None or not _complete(saved[1], loaded.config.env_steps):
        checkpoint = None if saved is None else _hand_over(experiment, *saved)
        saved = None  # its memory is Lightning's now
        _train(experiment, checkpoint)
    return _finish(experiment) if experiment.trainer.is_global_zero else 0


def _newest(run: RunDirectory) -> tuple[Path, dict[str, Any]] | None:
    if run.turns():
        return run.load("last")
    if others := sorted(run.checkpoints.glob("*.ckpt*")):
        raise UserError(
            f"{run.checkpoints} has {others[0].name} but no turn-NNNNN.ckpt to go on from; expected one; "
            "restore it from a copy, or type run=<a new folder> to start another run"
        )
    return None


def _prepare(run: RunDirectory, loaded: configuration.Loaded) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint to go on from and its content, where the directory holds a run that may; None for a new one."""
    from lightning_wm.runs.disk import clear_temporaries

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
    for folder in (run.path, run.checkpoints, run.evaluations, *run.path.glob("replay/rank*")):
        clear_temporaries(folder)
    saved = _newest(run)
    if saved is None:
        _forget(run)
        return None
    for damaged in run.turns():  # out of the way of the two that are kept
        if damaged > saved[0]:
            damaged.rename(damaged.with_name(f"{damaged.name}.damaged"))
    return saved


def _forget(run: RunDirectory) -> None:
    """Begin anew where a run ended before its first checkpoint."""
    run.metrics.unlink(missing_ok=True)
    for leftover in ("replay", "tensorboard"):
        shutil.rmtree(run.path / leftover, ignore_errors=True)


def _complete(saved: dict[str, Any], env_steps: int) -> bool:
    added = saved["lightning_wm"]
    return bool(added["ranks"][0]["counters"]["env_steps"] >= env_steps and not added.get("mid_turn"))


def _hand_over(experiment: Experiment, path: Path, saved: dict[str, Any]) -> Path:
    """Check the weights as `evaluate` does, and let Lightning have what has been read."""
    from lightning_wm.runs.checkpoint import AtomicCheckpointIO
    from lightning_wm.runs.weights import check_weights

    check_weights(experiment.agent, saved["state_dict"], path)
    io = experiment.trainer.strategy.checkpoint_io
    if isinstance(io, AtomicCheckpointIO):
        io.ready[path] = saved
    return path


def _train(experiment: Experiment, checkpoint: Path | None) -> None:
    from lightning_wm.runs.untrusted import reason

    if checkpoint is not None:
        print(f"going on from {checkpoint}", file=sys.stderr)
    where = str(checkpoint) if checkpoint is not None else None
    trainer, signals = experiment.trainer, experiment.state.signals
    if trainer.strategy.launcher is not None:
        signals.pass_on = trainer.strategy.launcher.kill
    try:
        with signals.deferred():
            trainer.fit(experiment.agent, experiment.data, ckpt_path=where, weights_only=True)
    except (LightningWMError, OSError):
        raise
    except Exception as error:
        if checkpoint is None or experiment.state.phase != "starting":
            raise
        raise UserError(
            f"the run could not go on from {checkpoint} ({type(error).__name__}: {reason(error)}); "
            "expected a checkpoint that fit wrote with this configuration; "
            "restore it from a copy, or type run=<a new folder> to start another run"
        ) from error
    finally:
        experiment.rollout.env.close()


def _finish(experiment: Experiment) -> int:
    """The final table, the learning curve and a video."""
    from lightning_wm.training.closing import close_run

    close_run(experiment)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(None))
