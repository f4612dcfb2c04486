"""Behaviour learned anew on a run's world model and replay, both frozen: what a setting is worth there, in minutes.

What a policy earns in a run is of its model, its replay and itself at once. Here the first two stand still.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from rich.table import Table
from tensordict import TensorDictBase
from torch import Tensor

from lightning_wm import config as configuration
from lightning_wm import rng
from lightning_wm.agents.dreamer import Dreamer, DreamerConfig
from lightning_wm.benchmarks.named import named
from lightning_wm.benchmarks.returns import Games, planner_of
from lightning_wm.config.store import laid
from lightning_wm.console.meter import Meter
from lightning_wm.data.datamodule import ReplayDataModule
from lightning_wm.errors import UserError
from lightning_wm.playing.play import side_by_side
from lightning_wm.playing.results import Evaluation, decimal, interval, line
from lightning_wm.registry import build
from lightning_wm.runs.loading import LoadedRun
from lightning_wm.training.evaluation import evaluate_planner


@dataclass(frozen=True)
class Relearned:
    """A policy after some updates."""

    agent: str
    """As it was written."""
    updates: int
    imagined: float
    """Mean return that it expects, of the states that it imagines."""
    evaluation: Evaluation

    def as_json(self) -> dict[str, Any]:
        """A row of the JSON file."""
        own = {"agent": self.agent, "updates": self.updates, "imagined": self.imagined}
        return {**self.evaluation.as_json(), **own}


class Relearning(Dreamer):
    """Dreamer whose world model stands still."""

    def groups(self) -> dict[str, list[torch.nn.Parameter]]:
        """Parameters by part, without the model's."""
        return {name: part for name, part in super().groups().items() if name != "model"}

    def losses(self, batch: TensorDictBase, generator: torch.Generator) -> dict[str, Tensor]:
        """Losses of actor and critics, from what the frozen model believes of a batch `[B, T]`."""
        with torch.no_grad():
            states, _ = self.model.observe(batch, generator=generator)
        return self.behave(states, batch)


def agent_config(loaded: LoadedRun, written: str) -> DreamerConfig:
    """The settings of a run's agent, with the fields that were written on top.

    Raises:
        UserError: it is not the run's agent, it learns nothing in imagination, or it has no such field.
    """
    name, fields = named("agents", written, "gradient=reinforce")
    own = loaded.config.agent.name
    if not isinstance(loaded.agent, Dreamer):
        raise UserError(
            f"{loaded.run.path}: agent={own} learns no policy in imagination; type run=<a run of agent=dreamer>"
        )
    if name != own:
        raise UserError(f"agents={written}: the run's agent is {own}; type agents={own}:field=value")
    tree = {**loaded.tree, "agent": laid(loaded.tree["agent"], fields)}
    config: DreamerConfig = configuration.from_tree(tree, loaded.plugins, loaded.trust).agent
    return config


def relearn(
    loaded: LoadedRun,
    agents: Sequence[str],
    updates: Sequence[int],
    games: Games,
    meter: Meter,
    keep: Callable[[Relearned], None],
) -> None:
    """Learn with the settings of each agent, from the same draws, and play after every number of updates.

    Args:
        loaded: a run of an agent that learns in imagination, with its replay.
        agents: as written.
        updates: after which the policy's mode plays.
        games: which episodes.
        meter: shows how far it is.
        keep: is given each policy as soon as it has played.

    Raises:
        UserError: see `agent_config`; or there is no replay.
    """
    configs = [agent_config(loaded, written) for written in agents]  # all faults before the first update
    if not loaded.run.replay(0).is_dir():
        raise UserError(
            f"{loaded.run.path} has no replay to imagine from; type run=<a run directory, not a model folder>"
        )
    for written, config in zip(agents, configs, strict=True):
        _learn(loaded, written, config, updates, games, meter, keep)


def _learn(
    loaded: LoadedRun,
    written: str,
    config: DreamerConfig,
    updates: Sequence[int],
    games: Games,
    meter: Meter,
    keep: Callable[[Relearned], None],
) -> None:
    """One agent's policies."""
    assert isinstance(loaded.agent, Dreamer)  # `agent_config` has refused others
    policy = planner_of(loaded, "policy")
    with rng.scope(0, "init"):
        agent = Relearning(config, loaded.agent.model).train()

    def look(done: int) -> None:
        label = f"{written} after {done:,} updates"
        actor = agent.actor(build("planner", policy), seed=games.seed)
        evaluation = evaluate_planner(
            loaded.config, actor, policy, env, episodes=games.episodes, seed=games.seed, env_steps=loaded.env_steps,
            meter=meter, label=label, timed=False,
        )  # fmt: skip
        keep(Relearned(written, done, float(agent.last["train/imagined/return"]), evaluation))
        meter.say(f"{label}: {line(evaluation)}")

    replay, path = loaded.config.replay, loaded.run.path / "replay"
    with closing(loaded.environments(side_by_side(games.environments, games.episodes))) as env:
        data = ReplayDataModule(replay, loaded.interface.spaces, path, updates=max(updates))
        _trainer(loaded.config.trainer.accelerator, updates, _Looks(set(updates), look)).fit(agent, data)


class _Looks(pl.Callback):
    """Calls a function after some updates."""

    def __init__(self, after: set[int], look: Callable[[int], None]) -> None:
        self._after, self._look = after, look

    def on_train_batch_end(self, trainer: pl.Trainer, *args: object) -> None:
        if trainer.global_step in self._after:
            self._look(trainer.global_step)


def _trainer(accelerator: str, updates: Sequence[int], looks: pl.Callback) -> pl.Trainer:
    return pl.Trainer(
        accelerator=accelerator,
        devices=1,
        max_steps=max(updates),
        max_epochs=-1,
        limit_val_batches=0,
        callbacks=[looks],
        logger=False,
        log_every_n_steps=math.gcd(*updates),  # what is imagined is known at every look
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def table(found: Sequence[Relearned]) -> Table:
    """One line a policy."""
    first = found[0].evaluation
    view = Table(title=f"{first.task}: behaviour anew on the frozen model of {first.env_steps:,} env steps")
    view.caption = "imagined: mean return that the policy expects in imagination, from the states of replay"
    for column in ("agent", "updates", "episodes", "return", "95 % interval", "IQM", "imagined"):
        view.add_column(column, justify="left" if column == "agent" else "right")
    for each in found:
        e = each.evaluation
        view.add_row(
            each.agent, f"{each.updates:,}", str(e.episodes), decimal(e.mean), interval(*e.interval95), decimal(e.iqm),
            decimal(each.imagined),
        )  # fmt: skip
    return view
