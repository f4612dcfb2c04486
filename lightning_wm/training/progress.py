"""What a person sees while a run trains."""

from __future__ import annotations

import math
import time

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from lightning_wm.playing.results import decimal
from lightning_wm.training.state import RunState

SHOWN = {"train/loss/total": "loss", "train/loss/reward": "reward", "train/loss/kl": "kl"}


class RunProgress(ProgressBar):
    """Env steps, updates, the last return, losses, milliseconds per decision and the time left.

    On a terminal a bar that also moves while episodes are played; elsewhere
    a line every `every` seconds.

    Args:
        state: of the run, which is shown.
        every: seconds between lines where there is no terminal.
        console: where to write; standard error by default.
    """

    def __init__(self, state: RunState, every: float = 10.0, console: Console | None = None) -> None:
        super().__init__()
        self.state, self.every = state, every
        self.console = console or Console(stderr=True)
        self._bar: Progress | None = None
        self._enabled = True
        self._line = 0.0
        self._start = (0.0, 0)
        self._agent: pl.LightningModule | None = None

    def disable(self) -> None:
        """Show nothing from now on."""
        self._enabled = False

    def enable(self) -> None:
        """Show again."""
        self._enabled = True

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._agent = pl_module
        if not trainer.is_global_zero:
            self.disable()
        elif self.console.is_terminal:
            columns = (SpinnerColumn(), TextColumn("{task.fields[phase]:>13}"), BarColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, TextColumn("{task.description}"), console=self.console, refresh_per_second=4)
            self._task = self._bar.add_task("", total=self.state.budget, phase="starting")
            self._bar.start()
        self._start = (time.monotonic(), self.state.counters.env_steps)
        self.state.listeners.append(self.refresh)

    def on_train_batch_end(self, *args: object) -> None:
        self.refresh()

    def on_train_epoch_end(self, *args: object) -> None:
        self.refresh()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self.refresh in self.state.listeners:
            self.state.listeners.remove(self.refresh)
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "fit")

    def refresh(self) -> None:
        """Show where the run is; costs nothing when shown a moment ago."""
        now = time.monotonic()
        if not self._enabled or now - self._line < (0.25 if self._bar else self.every):
            return
        self._line = now
        text = self.text(now)
        if self._bar is not None:
            done = min(self.state.counters.env_steps, self.state.budget)
            self._bar.update(self._task, completed=done, description=text, phase=self.state.phase)
        else:
            self.console.print(f"{self.state.phase:>13}  {text}", highlight=False, soft_wrap=True)

    def text(self, now: float) -> str:
        """One line of figures."""
        counters, state = self.state.counters, self.state
        updates = self._agent.global_step if self._agent is not None else 0
        playing = f" (+{state.decisions:,} decisions)" if state.phase in ("seed episodes", "collecting") else ""
        parts = [f"{counters.env_steps:,}/{state.budget:,} env steps{playing}", f"{updates:,} updates"]
        if not math.isnan(state.last_return):
            parts.append(f"return {decimal(state.last_return)}")
        losses = getattr(self._agent, "last", {})
        parts += [f"{label} {float(losses[name]):.2f}" for name, label in SHOWN.items() if name in losses]
        if not math.isnan(state.milliseconds):
            parts.append(f"{state.milliseconds:.0f} ms/decision")
        left = self._left(now)
        if left is not None:
            parts.append(f"{left // 60:.0f}:{left % 60:02.0f} left")
        return " | ".join(parts)

    def _left(self, now: float) -> float | None:
        """Seconds to go at the rate since the start."""
        begin, before = self._start
        done = self.state.counters.env_steps - before
        if done <= 0:
            return None
        return max(0.0, (self.state.budget - self.state.counters.env_steps) * (now - begin) / done)
