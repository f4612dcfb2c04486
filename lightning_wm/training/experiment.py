"""From a configuration to the objects that do the work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import Logger
from torchrl.envs import EnvBase

from lightning_wm import rng
from lightning_wm.agents.base import BaseAgent
from lightning_wm.config import Config, from_tree
from lightning_wm.config.schema import EPISODE
from lightning_wm.config.store import plain
from lightning_wm.data.datamodule import ReplayDataModule
from lightning_wm.data.replay import default_slack
from lightning_wm.envs import can_pose, make_env, observation_layout, spaces
from lightning_wm.planning.settings import executing
from lightning_wm.playing.play import side_by_side
from lightning_wm.protocols import Planner, Spaces
from lightning_wm.registry import build, lookup
from lightning_wm.runs.checkpoint import AtomicCheckpointIO, Counters
from lightning_wm.runs.directory import RunDirectory
from lightning_wm.training import launch
from lightning_wm.training.checkpoint import TurnCheckpoint
from lightning_wm.training.evaluation import Evaluate
from lightning_wm.training.loggers import JSONLinesLogger
from lightning_wm.training.open_loop import OpenLoopFilm
from lightning_wm.training.posed import Posed
from lightning_wm.training.progress import RunProgress
from lightning_wm.training.rollout import Rollout
from lightning_wm.training.signals import Signals, instead_of_lightnings
from lightning_wm.training.state import RunState
from lightning_wm.training.tensorboard import EnvStepTensorBoard
from lightning_wm.training.trackers import EnvStepWandb, Trackio, about
from lightning_wm.training.worker import Player, Worker


@dataclass
class Experiment:
    """Everything of one run, built but not started."""

    config: Config
    run: RunDirectory
    trainer: pl.Trainer
    agent: BaseAgent
    data: ReplayDataModule
    rollout: Rollout
    state: RunState
    environments: Callable[[int], EnvBase]
    """Builds that many environments of the task."""


def build_agent(config: Config, spaces: Spaces) -> BaseAgent:
    """The agent and everything that it learns, initialised by the seed alone."""
    with rng.scope(config.seed, "init"):
        agent: BaseAgent = lookup("agent", config.agent.name).from_config(config, spaces)
        return agent


def environments(config: Config) -> Callable[[int], EnvBase]:
    """What builds E environments of the configured task."""
    return lambda count: make_env(config.task, config.observation, count)


def build_experiment(config: Config, run: RunDirectory, signals: Signals | None = None) -> Experiment:
    """Assemble a run.

    Args:
        config: of it.
        run: where its files go.
        signals: what ends it; None for nothing.

    Raises:
        UserError: more devices than the machine has, an unknown task, pixels without GL.
    """
    launch.check_devices(config)
    if config.trainer.threads is not None:
        torch.set_num_threads(config.trainer.threads)
    if config.deterministic:
        torch.use_deterministic_algorithms(True)
    make = environments(config)
    env = make(config.rollout.environments)
    agent = build_agent(config, spaces(env))
    if config.trainer.compile:
        agent.compile_update()
    updates = config.trainer.updates_per_turn
    folder, slack = run.path / "replay", _slack(config)
    view = agent.view(config.replay)
    data = ReplayDataModule(config.replay, spaces(env), folder, config.seed, updates, slack=slack, view=view)
    planner = build("planner", config.planner)
    state = RunState(config.env_steps, signals or Signals())
    pretrain = config.trainer.pretrain_updates
    worker = Worker(f"{__name__}:{player_of.__name__}", plain(config))
    rollout = Rollout(env, _collector(config), config.rollout, config.env_steps, config.seed, pretrain, state, worker)
    judged = side_by_side(config.evaluation.environments, config.evaluation.episodes)
    evaluate = Evaluate(lambda: make(judged), state, planner, config.evaluation)
    extra = [_callback(name, fields) for name, fields in config.callbacks.items()]
    checkpoint = TurnCheckpoint(run.checkpoints, state, run.metrics)
    if config.evaluation.video:
        posed = Posed(lambda: make(1)) if can_pose(env) else None
        extra.append(OpenLoopFilm(run.videos, state, observation_layout(env), posed))
    callbacks: list[pl.Callback] = [rollout, evaluate, *extra, checkpoint]
    if config.logging.progress:
        callbacks.append(RunProgress(state, turns=max(10, _turns(config)), metrics=run.metrics))
    trainer = _trainer(config, run, callbacks, _loggers(config, run, state.counters))
    return Experiment(config, run, trainer, agent, data, rollout, state, make)


def _slack(config: Config) -> int:
    """Transitions kept beyond replay's capacity: three turns, which is what the older of two checkpoints needs."""
    rollout = config.rollout
    longest = config.task.max_decisions or EPISODE // config.task.action_repeat
    steps = rollout.env_steps // config.task.action_repeat // config.trainer.devices
    return max(default_slack(config.replay.capacity), 3 * (steps + rollout.environments * (longest + 1)))


def _collector(config: Config) -> Planner:
    """The planner that collects: the one that is judged, or one that executes its plans otherwise."""
    settings, execute = config.planner, config.rollout.execute
    planner: Planner = build("planner", settings if execute is None else executing(settings, execute))
    return planner


def player_of(tree: Mapping[str, Any]) -> Player:
    """What a worker plays with, built from a run's configuration as plain containers."""
    config = from_tree(tree, trust=True)
    if config.deterministic:
        torch.use_deterministic_algorithms(True)
    env = environments(config)(config.rollout.environments)
    return Player(env, build_agent(config, spaces(env)), _collector(config), config.seed)


def _callback(name: str, fields: object) -> pl.Callback:
    callback: pl.Callback = lookup("callback", name)(fields)
    return callback


def _loggers(config: Config, run: RunDirectory, counters: Counters) -> list[Logger]:
    loggers: list[Logger] = [JSONLinesLogger(run.metrics, counters)]
    told = about(config, run)
    if config.logging.tensorboard:
        loggers.append(EnvStepTensorBoard(run.path / "tensorboard", counters, told))
    if config.logging.wandb:
        loggers.append(EnvStepWandb(run, counters, told))
    if config.logging.trackio:
        loggers.append(Trackio(run, counters, told))
    return loggers


def _turns(config: Config) -> int:
    """Turns from one evaluation to the next."""
    return max(1, (config.evaluation.every or 10_000) // config.rollout.env_steps)


def _trainer(
    config: Config, run: RunDirectory, callbacks: Sequence[pl.Callback], loggers: Sequence[Logger]
) -> pl.Trainer:
    cluster = launch.environment(config.trainer.devices)
    trainer = pl.Trainer(
        accelerator=config.trainer.accelerator,
        devices=config.trainer.devices,
        strategy=launch.strategy(config),
        precision=config.trainer.precision,
        max_epochs=-1,
        limit_train_batches=config.trainer.updates_per_turn,
        check_val_every_n_epoch=_turns(config),
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
        logger=list(loggers),
        log_every_n_steps=config.logging.every,
        enable_progress_bar=config.logging.progress,
        enable_model_summary=False,
        enable_checkpointing=True,
        plugins=[AtomicCheckpointIO(), *([cluster] if cluster is not None else [])],
        default_root_dir=str(run.path),
    )
    instead_of_lightnings(trainer)
    return trainer
