"""Signals that end a run set a flag here; the run looks at it where it can be left."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from lightning_wm.errors import Interrupted


class Signals:
    """SIGINT, SIGTERM and, in a SLURM job, SIGUSR1.

    Outside of `deferred` a signal ends the command at once, as Ctrl-C does
    anywhere in Python. Inside it is only noted, and later ones with it.
    """

    def __init__(self) -> None:
        self.received = 0
        """The first signal's number; 0 for none."""
        self.pass_on: Callable[[int], object] | None = None
        """Sends the signal to the processes of the other ranks, where this one has started them."""
        self._deferred = False
        self._noticed = False
        self._group: dist.ProcessGroup | None = None

    # ---- handlers

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals inside the block and restore what handled them before."""
        if threading.current_thread() is not threading.main_thread():
            yield  # Python lets nobody else set handlers
            return
        numbers = [signal.SIGINT, signal.SIGTERM]
        numbers += [signal.SIGUSR1] if "SLURM_JOB_ID" in os.environ else []
        before = {number: signal.signal(number, self._handle) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Only note signals inside the block.

        Raises:
            Interrupted: at its end, where one came after the last look.
        """
        self._deferred = True
        try:
            yield
            self.poll()
        finally:
            self._deferred = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number
        if not self._deferred:
            raise Interrupted(self.received)

    # ---- places where a run can be left

    def poll(self) -> None:
        """Look at this process's flag.

        Raises:
            Interrupted: a signal came.
        """
        self._notice()
        if self.received:
            raise Interrupted(self.received)

    def agreed(self, trainer: Trainer) -> int:
        """The signal that any rank has received, 0 for none; every rank must call it at the same place."""
        self._notice()
        if trainer.world_size > 1:
            flag = torch.tensor([self.received])
            dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self._processes())
            self.received = int(flag)
        return self.received

    def _processes(self) -> dist.ProcessGroup | None:
        """A group that compares numbers in main memory, so that no GPU waits for a flag."""
        if self._group is None and dist.get_backend() != "gloo":
            self._group = dist.new_group(backend="gloo")
        return self._group

    def _notice(self) -> None:
        if not self.received or self._noticed:
            return
        self._noticed = True
        if self.pass_on is not None:
            self.pass_on(self.received)


class _NoSignals(_SignalConnector):
    """Lightning's place for handlers, without any."""

    def register_signal_handlers(self) -> None:
        """Register none: Lightning's talk to other ranks inside the handler and end a run without saving."""


def instead_of_lightnings(trainer: Trainer) -> None:
    """Keep Lightning from handling signals in a Trainer, and from comparing its own flag at every update."""
    trainer._signal_connector = _NoSignals(trainer)
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
