"""How long a first run is expected to take, from one decision and one update that are measured before it begins."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np
import torch

from lightning_wm import rng
from lightning_wm.config import Config
from lightning_wm.data import episode
from lightning_wm.data.replay import Replay
from lightning_wm.envs import most_decisions
from lightning_wm.models.losses import summed
from lightning_wm.playing.play import in_eval_mode
from lightning_wm.protocols import Spaces
from lightning_wm.registry import build

if TYPE_CHECKING:
    from lightning_wm.training.experiment import Experiment

TIMES, ENOUGH = 6, 1.0
"""Times that each is done at most, and seconds after which it is not done again."""


def estimate(experiment: Experiment) -> float | None:
    """Seconds; None where what is measured on this machine's CPU now would say nothing of the run.

    The run is left as it was: the update is one of a copy, on random numbers, and every episode begins with a reset.
    What grows on the way (longer episodes, better plans that cost more) and what a machine shares with others later is
    not in it.
    """
    config, trainer = experiment.config, experiment.trainer
    if trainer.strategy.root_device.type != "cpu" or config.trainer.compile or config.trainer.devices > 1:
        return None
    decision = _decision(experiment)
    update = _measured(_update(experiment))
    per_env_step = 1 / config.task.action_repeat / config.rollout.environments
    updates = config.env_steps * config.trainer.updates_per_turn / config.rollout.env_steps
    collected = config.env_steps * per_env_step * decision
    learned = (updates + config.trainer.pretrain_updates) * update
    circle = max(collected, learned) if config.rollout.workers else collected + learned
    return circle + _judging(experiment) * decision


def _judging(experiment: Experiment) -> float:
    """Decisions of all evaluations and the final one; one for many environments counts as one, though it takes more."""
    config, env = experiment.config, experiment.rollout.env
    settings = config.evaluation
    times = config.env_steps // settings.every if settings.every else 0
    rounds = times * math.ceil(settings.episodes / settings.environments)
    rounds += math.ceil(settings.final_episodes / settings.environments)
    return float((most_decisions(env, 1) or 0) * rounds)


def _decision(experiment: Experiment) -> float:
    """Seconds of a decision and the step after it, over the environments that collect."""
    config, env = experiment.config, experiment.rollout.env
    actor = experiment.agent.actor(build("planner", config.planner), seed=config.seed)
    shown = env.reset(seeds=[config.seed + row for row in range(env.batch_size[0])])

    def decide() -> None:
        shown["action"] = actor.act(shown)
        env.step(shown)

    with in_eval_mode(experiment.agent):
        return _measured(decide)


def _update(experiment: Experiment) -> Callable[[], None]:
    """One update of a copy of the agent, on a batch of random experience."""
    config, view = experiment.config, experiment.data.view
    agent = deepcopy(experiment.agent).train()
    length = 3 * config.replay.length + 20
    replay = Replay.create(None, experiment.data.spaces, length + 1)
    replay.extend(_experience(experiment.data.spaces, config, length))
    batch = view.sample(replay, rng.generator(config.seed, "replay", 0, 0))
    optimiser = torch.optim.Adam(agent.parameters(), lr=1e-8, fused=True)

    def learn() -> None:
        optimiser.zero_grad()
        summed(agent.losses(batch, rng.generator(config.seed, "model", 0, 0))).backward()
        optimiser.step()

    return learn


def _experience(spaces: Spaces, config: Config, length: int) -> object:
    drawn = np.random.default_rng(config.seed)
    observation = None if spaces.observation is None else drawn.normal(size=(length + 1, spaces.observation))
    pixels = None if spaces.pixels is None else drawn.integers(0, 256, (length + 1, *spaces.pixels), np.uint8)
    return episode(drawn.uniform(-1, 1, (length, spaces.action)), drawn.uniform(size=length), observation, pixels)


def _measured(work: Callable[[], None]) -> float:
    """Seconds, the median of some times after the first; that of the first where it took long."""
    taken: list[float] = []
    begin = time.perf_counter()
    while len(taken) < TIMES and time.perf_counter() - begin < ENOUGH:
        before = time.perf_counter()
        work()
        taken.append(time.perf_counter() - before)
    return statistics.median(taken[1:] or taken)
