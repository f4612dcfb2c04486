"""Train: `python -m lightning_wm.fit recipe=quickstart`.

The same command starts a run, continues it, and when it is complete prints
its table again.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_wm import config as configuration
from lightning_wm.console.banner import Banner
from lightning_wm.console.command import command
from lightning_wm.errors import Interrupted, LightningWMError, UserError
from lightning_wm.study.seeds import of_first_seed, run, several

if TYPE_CHECKING:
    from lightning_wm.runs.directory import RunDirectory
    from lightning_wm.training.experiment import Experiment
    from lightning_wm.training.signals import Signals


@command(configuration.help_text)
def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    if "recipe=list" in arguments:
        for name, about in configuration.recipe_names():
            print(f"{name:28} {about}")
        return 0
    if "--print" in arguments:
        print(configuration.printed(configuration.load(of_first_seed(arguments))))
        return 0
    if several(arguments):
        return run(arguments)
    banner = Banner()
    loaded = configuration.load(arguments, banner.begin)
    banner.begin(loaded)
    return _fit(loaded, arguments, banner)


def _fit(loaded: configuration.Loaded, arguments: list[str], banner: Banner) -> int:
    from lightning_wm.runs.directory import RunDirectory
    from lightning_wm.runs.identity import run_directory
    from lightning_wm.runs.untrusted import check_folder
    from lightning_wm.training.launch import own_rank, quiet
    from lightning_wm.training.signals import Signals
    from lightning_wm.training.slurm import requeued_when_preempted

    quiet()
    run = RunDirectory(run_directory(loaded))
    rank, signals = own_rank(loaded.config.trainer.devices), Signals()
    if rank == 0:
        check_folder(run.path)  # before anything in it is written
    run.lock(f"lock-{rank}" if rank else "lock")  # one for each process, so that two never write the same replay
    try:
        with signals.listening(), requeued_when_preempted(signals, rank):
            return _go(loaded, arguments, run, signals, banner if rank == 0 else None)
    except (LightningWMError, Interrupted) as error:
        if rank and (isinstance(error, Interrupted) or error.everywhere):
            return 0  # Lightning kills rank 0, perhaps in the middle of its last words, where another rank fails
        raise
    finally:
        run.unlock()


def _go(
    loaded: configuration.Loaded, arguments: list[str], run: RunDirectory, signals: Signals, banner: Banner | None
) -> int:
    """Train and close the run; only rank 0 has a banner."""
    from lightning_wm.training import resume
    from lightning_wm.training.closing import close_run
    from lightning_wm.training.experiment import build_experiment

    saved = resume.newest(run) if banner is None else resume.prepare(run, loaded)
    experiment = build_experiment(loaded.config, run, signals)
    if banner is not None:
        banner.built(experiment)
        if not run.exists():
            run.begin(configuration.to_yaml(loaded.tree), arguments, loaded.config.seed)
    if saved is None or not resume.is_complete(saved[1], loaded.config):
        checkpoint = None if saved is None else resume.hand_over(experiment, *saved)
        saved = None  # its memory is Lightning's now
        _train(experiment, checkpoint)
    if experiment.trainer.is_global_zero:
        close_run(experiment)
    return 0


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


if __name__ == "__main__":
    raise SystemExit(main(None))
