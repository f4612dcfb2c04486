"""A process of its own that plays episodes while the run's process learns; it acts on one thread of the CPU.

It is a fresh interpreter, neither forked nor a child of `multiprocessing`: a fork would share OpenGL contexts and
thread pools, and what runs as a daemon (as a pool's processes do) may not have such children.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from typing import Any

import torch
from torch import Tensor, nn
from torchrl.envs import EnvBase

from lightning_wm import rng
from lightning_wm.errors import EnvironmentFailure, LightningWMError
from lightning_wm.playing.play import play
from lightning_wm.protocols import Actor, Agent, Planner
from lightning_wm.training.messages import Order, Played, packed, unpacked

LOOK = 0.2
"""Seconds between two looks at whether to go on waiting."""
GRACE = 3.0
"""Seconds that a process has to close its simulators in, before it is killed."""


@dataclass
class Player:
    """What a worker plays with."""

    env: EnvBase
    """Of batch `[E]`."""
    agent: Agent
    """Acts with the weights that it is sent."""
    planner: Planner | None
    seed: int
    """Of the streams environment, exploration and planner."""


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy of what a module has learned, on the CPU."""
    return {name: value.detach().to("cpu", copy=True) for name, value in module.state_dict().items()}


class Worker:
    """The run's end of the line to the process.

    Args:
        make: `module:function`, which gives the `Player` in its process.
        arguments: of that function, plain values.
    """

    def __init__(self, make: str, *arguments: object) -> None:
        self.make, self.arguments = make, list(arguments)
        self._process: subprocess.Popen[bytes] | None = None
        self._line: Connection
        self._first = 0

    def start(self) -> None:
        """Start the process, if there is none that lives; it is ready some seconds later."""
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        self._line, there = Pipe()
        with there:
            command = f"from {__name__} import main; main({there.fileno()})"
            self._process = subprocess.Popen(
                [sys.executable, "-c", command],
                pass_fds=[there.fileno()],
                process_group=0,  # Ctrl-C is the run's to answer
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
        self._send(packed([self.make, self.arguments]))

    def begin(self, order: Order) -> None:
        """Let it play; `finish` must come before the next order."""
        self.start()
        self._first = order.first
        # Weights are more than a pipe holds, and a process that is still starting takes nothing from it.
        threading.Thread(target=self._send, args=[packed(order)], daemon=True).start()

    def finish(self, look: Callable[[], object]) -> Played:
        """Wait for what it has played; where it has died, that is one failure, and what it had played is lost.

        Args:
            look: called again and again while it plays; what it raises comes through, and the process is ended.

        Raises:
            LightningWMError: it could not build what it plays with, or an environment that cannot be restarted failed.
        """
        begun = self._first
        try:
            while (message := self._next(look)) is not None:
                if isinstance(message, LightningWMError):
                    raise message
                if isinstance(message, Played):
                    return message
                begun = message
        except BaseException:
            self.close()
            raise
        return Played(numbers=begun - self._first, errors=[self._died()])

    def close(self) -> int:
        """End the process, which keeps nothing that is worth saving; it and what it has started are killed if need be.

        Returns:
            Its exit code, negative for a signal; 0 where there was none.
        """
        process, self._process = self._process, None
        if process is None:
            return 0
        self._line.close()
        try:
            return process.wait(GRACE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return process.wait()

    def _next(self, look: Callable[[], object]) -> Any:
        """The next message; None where the process has died."""
        look()
        assert self._process is not None
        while not self._line.poll(LOOK):
            look()
            # A simulator's own child may hold the other end open.
            if self._process.poll() is not None and not self._line.poll():
                return None
        try:
            return unpacked(self._line.recv_bytes())
        except (EOFError, OSError):
            return None

    def _send(self, message: bytes) -> None:
        with suppress(OSError, TypeError):  # it has died, which `finish` finds; or the line was closed meanwhile
            self._line.send_bytes(message)

    def _died(self) -> EnvironmentFailure:
        code = self.close()
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return EnvironmentFailure(f"the worker that plays episodes {how}; what it had played is lost")


# ---- in its process


class _Alone(BaseException):
    """The run's end of the line is closed: the run has ended, however it did."""


def main(descriptor: int) -> None:
    """Play what is ordered until the run's end of the line closes."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        # A scheduler sends them to every process; the run decides. Ignored ones would be so in its children too.
        signal.signal(number, lambda *_: None)
    torch.set_num_threads(1)
    with suppress(_Alone), Connection(descriptor) as line:
        _serve(line)


def _serve(line: Connection) -> None:
    make, arguments = _received(line)
    module, _, function = make.partition(":")
    try:
        player: Player = getattr(importlib.import_module(module), function)(*arguments)
    except LightningWMError as error:
        _received(line)
        _answer(line, error)
        return
    with closing(player.env):
        _play_orders(line, player)


def _play_orders(line: Connection, player: Player) -> None:
    module: Any = player.agent
    module.eval()
    actor: Actor | None = None
    explored = False
    while True:
        order: Order = _received(line)
        _put(module, order.weights)
        if actor is None or explored != order.explore:
            explored = order.explore
            actor = player.agent.actor(player.planner, seed=player.seed, rank=order.rank, explore=explored)
        actor.noise = order.noise
        try:
            answer: object = _play(line, order, player, actor)
        except LightningWMError as error:
            answer = error
        _answer(line, answer)


def _put(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Give a module weights, and first their type."""
    for name, own in module.named_parameters():
        if own.dtype != weights[name].dtype:
            module.to(weights[name].dtype)
            break
    module.load_state_dict(weights)


def _play(line: Connection, order: Order, player: Player, actor: Actor) -> Played:
    def look() -> None:
        if line.poll():  # nothing is sent meanwhile: the other end is closed
            raise _Alone

    played, steps = Played(), 0
    while steps < order.env_steps and not played.errors:
        first, rows = order.first + played.numbers, player.env.batch_size[0]
        played.numbers += rows
        _answer(line, first + rows)
        seeds = rng.episode_seeds(player.seed, order.rank, first, rows)
        episodes = play(player.env, actor, seeds, True, look, played.errors.append, first)
        played.episodes += episodes
        steps += sum(episode.env_steps for episode in episodes)
    return played


def _received(line: Connection) -> Any:
    try:
        return unpacked(line.recv_bytes())
    except (EOFError, ConnectionError) as error:
        raise _Alone from error


def _answer(line: Connection, message: object) -> None:
    try:
        line.send_bytes(packed(message))
    except ConnectionError as error:
        raise _Alone from error
