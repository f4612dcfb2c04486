"""From a configuration to the objects that do the work."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy, Strategy, StrategyRegistry
from torchrl.envs import EnvBase

from lightning_wm import rng
from lightning_wm.agents.base import BaseAgent
from lightning_wm.config import Config
from lightning_wm.config.schema import EPISODE
from lightning_wm.data.datamodule import ReplayDataModule
from lightning_wm.data.replay import default_slack
from lightning_wm.envs import make_env, spaces
from lightning_wm.errors import UserError
from lightning_wm.planning.settings import executing
from lightning_wm.playing.failures import Failures
from lightning_wm.playing.play import play_many
from lightning_wm.playing.results import Evaluation, summarise
from lightning_wm.protocols import Actor, Planner, PlannerSettings, Spaces
from lightning_wm.registry import build, lookup
from lightning_wm.runs.checkpoint import AtomicCheckpointIO, Counters
from lightning_wm.runs.directory import RunDirectory
from lightning_wm.training import launch
from lightning_wm.training.checkpoint import TurnCheckpoint
from lightning_wm.training.evaluation import Evaluate
from lightning_wm.training.loggers import EnvStepTensorBoard, JSONLinesLogger, weights_and_biases
from lightning_wm.training.progress import RunProgress
from lightning_wm.training.rollout import Rollout
from lightning_wm.training.signals import Signals, instead_of_lightnings
from lightning_wm.training.state import RunState


def quiet() -> None:
    """Keep Lightning's notices that are of no use to a user of the commands off the screen."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    # Batches are slices of mapped memory, not a DataLoader's; the other is Lightning's own use of torch.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")
    # Updates are counted over all turns, so a turn shorter than the interval between two lines is nothing odd.
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    # An agent without a model predicts nothing that could be validated.
    warnings.filterwarnings("ignore", message=".*but have no `validation_step`.*")
    # Callbacks may change when a run goes on.
    warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint.*")


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
    check_devices(config)
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
    rollout = Rollout(env, _collector(config), config.rollout, config.env_steps, config.seed, pretrain, state)
    judged = min(config.evaluation.environments, config.evaluation.episodes)
    evaluate = Evaluate(lambda: make(max(1, judged)), state, planner, config.evaluation)
    extra = [_callback(name, fields) for name, fields in config.callbacks.items()]
    checkpoint = TurnCheckpoint(run.checkpoints, state, run.metrics)
    callbacks: list[pl.Callback] = [rollout, evaluate, *extra, checkpoint]
    if config.logging.progress:
        callbacks.append(RunProgress(state))
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


def _callback(name: str, fields: Any) -> pl.Callback:
    callback: pl.Callback = lookup("callback", name)(fields)
    return callback


def _loggers(config: Config, run: RunDirectory, counters: Counters) -> list[Logger]:
    loggers: list[Logger] = [JSONLinesLogger(run.metrics, counters)]
    if config.logging.tensorboard:
        loggers.append(EnvStepTensorBoard(run.path / "tensorboard", counters))
    if config.logging.wandb:
        loggers.append(weights_and_biases(run))
    return loggers


def _trainer(
    config: Config, run: RunDirectory, callbacks: Sequence[pl.Callback], loggers: Sequence[Logger]
) -> pl.Trainer:
    turns = max(1, (config.evaluation.every or 10_000) // config.rollout.env_steps)
    cluster = launch.environment(config.trainer.devices)
    trainer = pl.Trainer(
        accelerator=config.trainer.accelerator,
        devices=config.trainer.devices,
        strategy=_strategy(config),
        precision=config.trainer.precision,
        max_epochs=-1,
        limit_train_batches=config.trainer.updates_per_turn,
        check_val_every_n_epoch=turns,
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


def _strategy(config: Config) -> str | Strategy:
    """Lightning's strategy; ranks wait a day for each other, since rank 0 evaluates while the others stand still."""
    name, several = config.trainer.strategy, config.trainer.devices > 1
    name = "ddp" if several and name == "auto" else name
    if not several or name not in StrategyRegistry.available_strategies():
        return name
    strategy: Strategy = StrategyRegistry.get(name)
    if isinstance(strategy, DDPStrategy):
        strategy._timeout = timedelta(days=1)
    return strategy


def check_devices(config: Config) -> None:
    """Refuse more ranks than the machine can carry.

    Raises:
        UserError: says how many there are.
    """
    wanted, accelerator = config.trainer.devices, config.trainer.accelerator
    gpus = torch.cuda.device_count()
    if accelerator == "auto":
        accelerator = "gpu" if gpus else "cpu"
    if accelerator in ("gpu", "cuda"):
        if wanted > gpus:
            hint = f"trainer.devices={gpus}" if gpus else "trainer.accelerator=cpu"
            raise UserError(f"trainer.devices={wanted}: this machine has {gpus} GPUs; type {hint}")
    elif wanted > (cores := len(os.sched_getaffinity(0))):
        raise UserError(f"trainer.devices={wanted}: this machine has {cores} cores; type trainer.devices={cores}")


def evaluate_planner(
    config: Config,
    actor: Actor,
    planner: PlannerSettings,
    env: EnvBase,
    *,
    episodes: int,
    seed: int,
    env_steps: int,
    checkpoint: str = "last",
    on_decision: Callable[[], None] | None = None,
) -> Evaluation:
    """Play `episodes` episodes with seeds `seed, seed+1, …` and sum them up.

    Args:
        config: of the run.
        actor: what plays, its draws from `seed`.
        planner: settings of the planner that it acts with.
        env: `[E]`, of the run's task.
        episodes: how many.
        seed: of the first.
        env_steps: of the checkpoint.
        checkpoint: `last` or `best`.
        on_decision: called after every decision.

    Raises:
        EnvironmentFailure, NumericsError: more episodes failed than the run survives.
    """
    failures = Failures.within(config.rollout)
    played = play_many(env, actor, range(seed, seed + episodes), on_decision, failures)
    return summarise(
        played,
        task=config.task.name,
        agent=config.agent.name,
        observation=config.observation.kind,
        planner=planner.name,
        settings=asdict(planner),
        env_steps=env_steps,
        checkpoint=checkpoint,
        run_seed=config.seed,
        seed=seed,
        environments=env.batch_size[0],
    )
