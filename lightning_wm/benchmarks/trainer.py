"""What Lightning's Trainer costs beside a bare loop of the same updates."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch import nn

from lightning_wm import rng
from lightning_wm.agents.planet import PlaNet
from lightning_wm.benchmarks.timing import Setting, row
from lightning_wm.benchmarks.update import STATE, TINY, episode, world
from lightning_wm.config.schema import ReplayConfig
from lightning_wm.data.datamodule import ReplayDataModule
from lightning_wm.models.losses import summed
from lightning_wm.models.rssm import RSSMConfig
from lightning_wm.runs.checkpoint import Counters
from lightning_wm.training.loggers import JSONLinesLogger

EPISODES, STEPS = 10, 200


def rows(setting: Setting) -> list[dict[str, Any]]:
    """Row `trainer/overhead`: milliseconds of an update, sampling and the log of every 20th included."""
    b, t, updates = (2, 4, 2) if setting.smoke else (50, 50, 20)
    config = RSSMConfig(**(TINY if setting.smoke else {}))
    with tempfile.TemporaryDirectory() as folder:
        data = ReplayDataModule(ReplayConfig(capacity=EPISODES * STEPS, batch=b, length=t), STATE, updates=updates)
        for number in range(EPISODES):
            data.replay.extend(episode(STATE, STEPS, number))
        bare = _BareLoop(config, data, updates)
        # The first turn of each side warms up.
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=1 + setting.count(5),
            logger=JSONLinesLogger(Path(folder) / "metrics.jsonl", Counters()),
            log_every_n_steps=min(20, updates),
            callbacks=[bare],
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            limit_val_batches=0,
            default_root_dir=folder,
        )
        trainer.fit(PlaNet(model=world(config, STATE)), data)
    ours, theirs = (1e3 * statistics.median(times[1:]) / updates for times in (bare.theirs, bare.own))
    settings = {"batch": b, "length": t, "updates_per_turn": updates, "observation": STATE.observation}
    return [row("trainer/overhead", ours, "bare loop", theirs, settings)]


class _BareLoop(pl.Callback):
    """Times the Trainer's epochs and, after each, as many updates of a twin without a Trainer."""

    def __init__(self, config: RSSMConfig, data: ReplayDataModule, updates: int) -> None:
        self.agent, self.data, self.updates = PlaNet(model=world(config, STATE)), data, updates
        self.optimiser = self.agent.configure_optimizers()
        self.theirs: list[float] = []
        """Seconds of each of the Trainer's epochs."""
        self.own: list[float] = []
        """Seconds of each turn of the bare loop."""
        self._done = 0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        middle = time.perf_counter()
        for _ in range(self.updates):
            self._update()
        self.theirs.append(middle - self._begin)
        self.own.append(time.perf_counter() - middle)

    def _update(self) -> None:
        data, agent, number = self.data, self.agent, self._done
        batch = data.replay.sample(data.config.batch, data.config.length, rng.generator(0, "replay", number))
        _, measured = agent.model.observe(batch, generator=rng.generator(0, "model", number))
        loss = summed(measured)
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(agent.model.parameters(), agent.config.clip, foreach=True)
        self.optimiser.step()
        self._done += 1
