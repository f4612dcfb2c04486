"""What a person sees while a run trains."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from lightning_wm.console.clock import clock
from lightning_wm.console.pace import Pace
from lightning_wm.playing.results import decimal
from lightning_wm.runs.metrics import tail
from lightning_wm.training.state import RunState

SHOWN = {"train/loss/total": "loss", "train/loss/reward": "reward", "train/loss/kl": "kl"}
PHASE, BAR = 15, 7
"""Columns of what is being done and of the bar; a spinner and three spaces are beside them."""


class RunProgress(ProgressBar):
    """Env steps, the time left, the last return, updates, milliseconds per decision, and losses.

    On a terminal a bar that also moves while episodes are played, in one line however narrow: what does not fit is
    left out from the end, never the env steps and the time left. Elsewhere a line every `every` seconds.

    Args:
        state: of the run, which is shown.
        every: seconds between lines where there is no terminal.
        console: where to write; standard error by default.
        turns: how many of the last ones the time left is taken from.
        metrics: the run's metrics.jsonl, for the turns of earlier processes.
    """

    def __init__(
        self,
        state: RunState,
        every: float = 10.0,
        console: Console | None = None,
        turns: int = 10,
        metrics: Path | None = None,
    ) -> None:
        super().__init__()
        self.state, self.every, self.metrics = state, every, metrics
        self.console = console or Console(stderr=True)
        self.pace = Pace(turns)
        self._bar: Progress | None = None
        self._enabled = True
        self._line = 0.0
        self._share = 0.0
        self._agent: pl.LightningModule | None = None

    # ---- Lightning's contract of a progress bar

    def disable(self) -> None:
        """Show nothing from now on."""
        self._enabled = False

    def enable(self) -> None:
        """Show again."""
        self._enabled = True

    @property
    def is_enabled(self) -> bool:
        """Whether it shows anything."""
        return self._enabled

    @property
    def is_disabled(self) -> bool:
        """Whether it shows nothing."""
        return not self._enabled

    def print(self, *args: Any, **kwargs: Any) -> None:
        """As Python's own; on a terminal above the bar, which stays whole."""
        if self._bar is None or kwargs.get("file") is not None:
            print(*args, **kwargs)
            return
        text = kwargs.get("sep", " ").join(map(str, args))
        self.console.print(text, end=kwargs.get("end", "\n"), markup=False, highlight=False, soft_wrap=True)

    # ---- its hooks

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._agent = pl_module
        if not trainer.is_global_zero:
            self.disable()
        elif self.console.is_terminal:
            columns = (SpinnerColumn(), TextColumn(f"{{task.fields[phase]:>{PHASE}}}"), BarColumn(BAR))
            text = TextColumn("{task.description}")
            self._bar = Progress(*columns, text, console=self.console, refresh_per_second=4)
            self._task = self._bar.add_task("", total=self.state.budget, phase="starting")
            self._bar.start()
        self.state.listeners.append(self.refresh)

    def on_train_start(self, *args: object) -> None:
        if self.metrics is not None:
            self.pace.remember(tail(self.metrics), self.state.counters.owed)
        self.pace.add(self.state.seconds, self.state.learned_steps)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._share = (batch_idx + 1) / max(1, int(trainer.num_training_batches))
        self.refresh()

    def on_train_epoch_end(self, *args: object) -> None:
        self.pace.add(self.state.seconds, self.state.learned_steps)
        self.refresh()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self.refresh in self.state.listeners:
            self.state.listeners.remove(self.refresh)
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "fit")

    # ---- what is shown

    def refresh(self) -> None:
        """Show where the run is; costs nothing when shown a moment ago."""
        now = time.monotonic()
        if not self._enabled or now - self._line < (0.25 if self._bar else self.every):
            return
        self._line = now
        if self._bar is not None:
            text = self.text(self.console.width - PHASE - BAR - 4)
            self._bar.update(self._task, completed=self.state.steps_now, description=text, phase=self.phase())
        else:
            self.console.print(f"{self.phase():>{PHASE}}  {self.text()}", highlight=False, soft_wrap=True)

    def phase(self) -> str:
        """What is being done, and how much of it is done where that is known."""
        state, share = self.state, None
        if state.phase == "learning":
            share = self._share
        elif state.phase == "evaluating" and state.evaluation_decisions:
            share = min(1.0, state.decisions / state.evaluation_decisions)
        return state.phase if share is None else f"{state.phase} {100 * share:.0f}%"

    def text(self, width: int | None = None) -> str:
        """One line of figures, the most important first; as many as fit into `width` columns, and two in any case."""
        parts = self._parts()
        fitting = [" | ".join(parts[:count]) for count in range(2, len(parts) + 1)]
        return max((text for text in fitting if width is None or len(text) <= width), key=len, default=fitting[0])

    def _parts(self) -> list[str]:
        state, agent = self.state, self._agent
        left = self.pace.left(state.seconds, state.budget)
        parts = [f"{state.steps_now:,}/{state.budget:,} env steps", f"{'-:--' if left is None else clock(left)} left"]
        if not math.isnan(state.last_return):
            parts.append(f"return {decimal(state.last_return)}")
        parts.append(f"{0 if agent is None else agent.global_step:,} updates")
        if not math.isnan(state.milliseconds):
            parts.append(f"{state.milliseconds:.0f} ms/decision")
        losses = getattr(agent, "last", {})
        return [*parts, *(f"{label} {float(losses[name]):.2f}" for name, label in SHOWN.items() if name in losses)]
