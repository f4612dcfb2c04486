"""A process of its own that plays episodes while the run's process learns; it acts on one thread of the CPU.

It is a fresh interpreter, neither forked nor a child of `multiprocessing`: a fork would share OpenGL contexts and
thread pools, and what runs as a daemon (as a pool's processes do) may not have such children.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe
from typing import Any

import cloudpickle
import torch
from torch import Tensor, nn
from torchrl.envs import EnvBase

from lightning_wm import rng
from lightning_wm.errors import EnvironmentFailure, LightningWMError
from lightning_wm.playing.episode import Episode
from lightning_wm.playing.play import play
from lightning_wm.protocols import Actor, Agent, Planner

LOOK = 0.2
"""Seconds between two looks at whether to go on waiting."""


@dataclass
class Company:
    """What a worker plays with."""

    env: EnvBase
    """Of batch `[E]`."""
    agent: Agent
    """Acts with the weights that it is sent."""
    planner: Planner | None
    seed: int
    """Of the streams environment, exploration and planner."""


@dataclass(frozen=True)
class Order:
    """What is to be played."""

    weights: dict[str, Tensor]
    """The agent's `state_dict`, on the CPU."""
    env_steps: int
    """To play at least, in whole rounds of an episode for each environment."""
    first: int
    """Number of the first episode."""
    rank: int
    noise: float
    explore: bool


@dataclass
class Played:
    """What has become of an order."""

    episodes: list[Episode] = field(default_factory=list)
    numbers: int = 0
    """Episodes that were begun, each with a number; those that failed are among them."""
    errors: list[LightningWMError] = field(default_factory=list)
    """Why episodes were dropped. A round with one is the last, so that whoever counts them can end the run."""


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy of what a module has learned, on the CPU."""
    return {name: value.detach().to("cpu", copy=True) for name, value in module.state_dict().items()}


class Worker:
    """The run's end of the line to the process.

    Args:
        make: builds what it plays with, in its process; sent there by cloudpickle.
    """

    def __init__(self, make: Callable[[], Company]) -> None:
        self.make = make
        self._process: subprocess.Popen[bytes] | None = None
        self._line: Connection
        self._first = 0

    def start(self) -> None:
        """Start the process, if there is none that lives; it is ready some seconds later, for which `begin` waits."""
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
        self._send(cloudpickle.dumps(self.make))

    def begin(self, order: Order) -> None:
        """Let it play; `finish` must come before the next order."""
        self.start()
        self._first = order.first
        self._send(pickle.dumps(order))

    def finish(self, look: Callable[[], object]) -> Played:
        """Wait for what it has played; where it has died, that is one failure, and what it had played is lost.

        Args:
            look: called now and then while it plays; what it raises comes through, and the process is ended.

        Raises:
            LightningWMError: an environment that cannot be restarted has failed.
        """
        begun = self._first
        try:
            while True:
                while not self._line.poll(LOOK):
                    look()
                message = pickle.loads(self._line.recv_bytes())
                if isinstance(message, LightningWMError):
                    raise message
                if isinstance(message, Played):
                    return message
                begun = message
        except (EOFError, OSError):
            return Played(numbers=begun - self._first, errors=[self._died()])
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the process; it keeps nothing that is worth saving."""
        if self._process is not None:
            self._line.close()
            self._process.kill()
            self._process.wait()
            self._process = None

    def _send(self, message: bytes) -> None:
        with suppress(OSError):  # it has died, which `finish` finds
            self._line.send_bytes(message)

    def _died(self) -> EnvironmentFailure:
        assert self._process is not None
        code = self._process.wait()
        self.close()
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return EnvironmentFailure(f"the worker that plays episodes {how}; what it had played is lost")


# ---- in its process


def main(descriptor: int) -> None:
    """Play what is ordered until the run's end of the line closes."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # a scheduler sends them to every process; the run decides
    torch.set_num_threads(1)
    with suppress(EOFError, ConnectionError), Connection(descriptor) as line:  # the run has ended, however it did
        _serve(line)


def _serve(line: Connection) -> None:
    company: Company = pickle.loads(line.recv_bytes())()
    module: Any = company.agent
    module.eval()
    actor: Actor | None = None
    explored = False
    while True:
        order: Order = pickle.loads(line.recv_bytes())
        _put(module, order.weights)
        if actor is None or explored != order.explore:
            explored = order.explore
            actor = company.agent.actor(company.planner, seed=company.seed, rank=order.rank, explore=explored)
        actor.noise = order.noise
        try:
            answer: object = _play(line, order, company, actor)
        except LightningWMError as error:
            answer = error
        line.send_bytes(pickle.dumps(answer))


def _put(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Give a module weights, and first their type."""
    name, own = next(iter(module.named_parameters()))
    if own.dtype != weights[name].dtype:
        module.to(weights[name].dtype)
    module.load_state_dict(weights)


def _play(line: Connection, order: Order, company: Company, actor: Actor) -> Played:
    def look() -> None:
        if line.poll():  # nothing is sent meanwhile: the other end is closed
            raise EOFError

    played, steps = Played(), 0
    while steps < order.env_steps and not played.errors:
        first, rows = order.first + played.numbers, company.env.batch_size[0]
        played.numbers += rows
        line.send_bytes(pickle.dumps(first + rows))
        seeds = rng.episode_seeds(company.seed, order.rank, first, rows)
        episodes = play(company.env, actor, seeds, True, look, played.errors.append, first)
        played.episodes += episodes
        steps += sum(episode.env_steps for episode in episodes)
    return played
