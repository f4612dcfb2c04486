"""What a finished run leaves behind: a table, a curve, a video."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from lightning_wm.callbacks.video import film
from lightning_wm.errors import LightningWMError
from lightning_wm.experiment import Experiment, evaluate_planner, load_weights
from lightning_wm.plots import learning_curve
from lightning_wm.registry import build
from lightning_wm.results import show


def close_run(experiment: Experiment) -> None:
    """Evaluate the newest checkpoint on the final seeds, draw, film, and say where everything lies."""
    config, run, agent = experiment.config, experiment.run, experiment.agent
    saved = load_weights(agent, run.checkpoint("last"))
    agent.to(torch.device("cuda") if config.trainer.accelerator in ("gpu", "cuda") else torch.device("cpu"))
    learning_curve(run.metrics, run.curve, f"{config.task.name}, seed {config.seed}")
    paths: list[Path] = [run.path, run.curve]
    settings = config.evaluation
    if settings.final_episodes:
        env = experiment.environments(min(settings.environments, settings.final_episodes))
        result = evaluate_planner(
            config,
            agent,
            config.planner,
            env,
            episodes=settings.final_episodes,
            seed=settings.final_seed,
            env_steps=saved["ranks"][0]["counters"]["env_steps"],
            on_decision=_Dots(),
        )
        env.close()
        result.save(run.evaluations / "final.json")
        paths.append(run.evaluations / "final.json")
        show([result])
    if settings.video:
        video = _video(experiment)
        paths += [video] if video is not None else []
    for path in paths:
        print(path)


def _video(experiment: Experiment) -> Path | None:
    """Film the first episode of the final table; a machine without GL goes without."""
    settings, path = experiment.config.evaluation, experiment.run.videos / "final.mp4"
    if path.exists():
        return path
    actor = experiment.agent.actor(build("planner", experiment.config.planner), seed=settings.final_seed)
    env = experiment.environments(1)
    try:
        film(env, actor, settings.final_seed, path)
    except LightningWMError as error:
        print(f"no video: {error}", file=sys.stderr)
        return None
    finally:
        env.close()
    return path


class _Dots:
    """A sign of life every few decisions, so that no pause is silent."""

    def __init__(self, every: int = 25) -> None:
        self.count, self.every = 0, every

    def __call__(self) -> None:
        self.count += 1
        if self.count % self.every == 0:
            print(".", end="", file=sys.stderr, flush=True)
