"""What a finished run leaves behind: a table, a curve, a video."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console

from lightning_wm.config import Config
from lightning_wm.console.meter import Meter
from lightning_wm.errors import LightningWMError
from lightning_wm.playing.play import side_by_side
from lightning_wm.playing.results import show
from lightning_wm.registry import build
from lightning_wm.runs.evaluation_file import Evaluation, read_evaluation
from lightning_wm.runs.weights import put_weights
from lightning_wm.training.evaluation import evaluate_planner
from lightning_wm.training.experiment import Experiment
from lightning_wm.training.plots import learning_curve
from lightning_wm.training.trackers import trackers
from lightning_wm.training.video import film


def close_run(experiment: Experiment) -> None:
    """Evaluate the newest checkpoint on the final seeds, draw, film, and say where everything lies.

    What is there already, for this checkpoint and these settings, is read back instead.
    """
    config, run, agent = experiment.config, experiment.run, experiment.agent
    tracked = trackers(experiment.trainer.loggers)
    path, saved = run.load("last")
    put_weights(agent, saved["state_dict"], path)
    env_steps = saved["lightning_wm"]["ranks"][0]["counters"]["env_steps"]
    del saved
    agent.to(torch.device("cuda") if torch.cuda.is_available() and config.trainer.accelerator != "cpu" else "cpu")
    agent.eval()
    paths: list[Path] = [run.path, run.curve]
    judged = False
    if config.evaluation.final_episodes:
        path = run.evaluations / "final.json"
        stored = _stored(experiment, path, env_steps)
        result = _evaluated(experiment, env_steps) if stored is None else stored
        show([result.as_json()])
        judged = stored is None
        if judged:  # after it was shown: what cannot be written is not lost
            result.save(path)
            for tracker in tracked:
                tracker.log_result({"final/return": result.mean, "final/iqm": result.iqm})
        paths.append(path)
    learning_curve(run.metrics, run.curve, f"{config.task.name}, seed {config.seed}")
    if config.evaluation.video:
        video = _video(experiment, env_steps, again=judged)
        paths += [video] if video is not None else []
    for tracker in tracked:
        tracker.close()
    for path in paths:
        print(path)


def _stored(experiment: Experiment, path: Path, env_steps: int) -> Evaluation | None:
    """The final evaluation, where it has been made with these settings."""
    if not path.exists():
        return None
    settings, content = experiment.config.evaluation, read_evaluation(path)
    wanted = (env_steps, settings.final_seed, settings.final_episodes, asdict(experiment.config.planner))
    stored = (content.env_steps, content.seed, content.episodes, content.settings)
    return content if stored == wanted else None


def _evaluated(experiment: Experiment, env_steps: int) -> Evaluation:
    config, settings = experiment.config, experiment.config.evaluation
    actor = experiment.agent.actor(build("planner", config.planner), seed=settings.final_seed)
    with (
        closing(experiment.environments(side_by_side(settings.environments, settings.final_episodes))) as env,
        _meter(config) as meter,
    ):
        return evaluate_planner(
            config,
            actor,
            config.planner,
            env,
            episodes=settings.final_episodes,
            seed=settings.final_seed,
            env_steps=env_steps,
            meter=meter,
            label="final evaluation",
        )


def _video(experiment: Experiment, env_steps: int, again: bool) -> Path | None:
    """Film the first episode of the final table, `again` where there is a film; a machine without GL goes without."""
    settings, path = experiment.config.evaluation, experiment.run.videos / f"final-{env_steps}.mp4"
    if path.exists() and not again:
        return path
    actor = experiment.agent.actor(build("planner", experiment.config.planner), seed=settings.final_seed)
    env = experiment.environments(1)
    try:
        film(env, actor, settings.final_seed, path)
        for tracker in trackers(experiment.trainer.loggers):
            tracker.log_film("evaluation/video", path)
        experiment.state.signals.poll()  # what comes while ffmpeg is being started raises nothing
    except LightningWMError as error:
        print(f"no video: {error}", file=sys.stderr)
        return None
    finally:
        env.close()
    return path


def _meter(config: Config) -> Meter:
    """No pause is silent, unless that was asked for."""
    return Meter() if config.logging.progress else Meter(Console(quiet=True))
