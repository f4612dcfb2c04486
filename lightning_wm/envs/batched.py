"""E simulators in one process as one TorchRL environment of batch `[E]`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Binary, Bounded, Composite, Unbounded
from torchrl.envs import EnvBase

from lightning_wm import rng
from lightning_wm.config.schema import ObservationConfig, TaskConfig
from lightning_wm.envs.actions import scaled
from lightning_wm.envs.layout import ObservationLayout
from lightning_wm.envs.release import release
from lightning_wm.envs.simulator import Simulator, TriesOut, build, check, layout_of, limit_of
from lightning_wm.errors import EnvironmentFailure, LightningWMError, UserError
from lightning_wm.models.ambient import settled

LARGEST = float(np.finfo(np.float32).max)


class SimulatorEnv(EnvBase):  # type: ignore[misc]
    """E independent simulators, stepped one after the other.

    Every step returns `observation` float32 `[E, O]` and/or `pixels` uint8
    `[E, 3, X, Y]`, `reward` float32 `[E, 1]` (summed over the action repeat),
    `terminated`, `truncated`, `done`, `is_init` bool `[E, 1]` and `env_steps`
    int64 `[E, 1]`: env steps really taken, fewer than the repeat where the
    episode ended within it, 0 after a reset.

    A row that is done and not reset stays as it is: its last observation,
    reward 0, done, 0 env steps. So E episodes of different lengths can be
    played side by side.

    A simulator that raises, or returns what is not finite, is an
    EnvironmentFailure. With `restart` set it is replaced by a new one instead:
    the row is in `failed`, shows zeros, and is done (truncated) from the next
    step on, until it is reset.
    """

    def __init__(self, task: TaskConfig, observation: ObservationConfig, environments: int = 1) -> None:
        check(environments)
        super().__init__(device=torch.device("cpu"), batch_size=torch.Size([environments]))
        self.task, self.shown = task, observation
        self.simulators: list[Simulator] = []
        """One for each row; empty once they are closed."""
        self._gone: set[int] = set()
        """Rows whose simulator is closed and could not be replaced."""
        self._process = os.getpid()
        self._now: dict[str, Tensor] = {}
        self._decisions = [0] * environments
        self._age = [0] * environments
        self._begun = np.zeros(environments, bool)
        self._dead = np.zeros(environments, bool)
        self.restart = False
        """Whether a row that fails is restarted instead of raising."""
        self.failed: dict[int, EnvironmentFailure] = {}
        """The rows that the last reset or step restarted."""
        self._seeds: list[int | None] = [None] * environments
        self.is_closed = False
        try:
            self._open(environments)
        except BaseException:
            self.close()
            raise

    @settled()
    def _open(self, environments: int) -> None:
        """Make the simulators and everything that follows from what they are."""
        while len(self.simulators) < environments:
            self.simulators.append(build(self.task, self.shown))
        first = self.simulators[0]
        self._low, self._high = first.low, first.high
        self.layout: ObservationLayout | None = None if self.shown.kind == "pixels" else layout_of(first)
        """How the task's own observation becomes the state vector; None without one."""
        limits = [limit for limit in (limit_of(first), self._most_steps()) if limit is not None]
        self.episode_limit: int | None = min(limits, default=None)
        """Env steps after which every episode is truncated; None where neither the task nor `task.max_decisions`
        ends them, so that one may never end."""
        self._now = self._allocate()
        self._views: dict[str, NDArray[Any]] = {name: tensor.numpy() for name, tensor in self._now.items()}
        self._specify()
        if isinstance(first, TriesOut):
            first.try_out()
        if "pixels" in self._now:
            self._try_rendering()

    def _most_steps(self) -> int | None:
        return None if self.task.max_decisions is None else self.task.max_decisions * self.task.action_repeat

    def _allocate(self) -> dict[str, Tensor]:
        """What each row shows now; rows of a finished episode keep their last values."""
        rows, size = len(self.simulators), self.shown.render.size
        now = {name: torch.zeros(rows, 1, dtype=torch.bool) for name in ("terminated", "truncated", "is_init")}
        now["env_steps"] = torch.zeros(rows, 1, dtype=torch.int64)
        if self.shown.kind != "pixels":
            now["observation"] = torch.zeros(rows, self.simulators[0].size, dtype=torch.float32)
        if self.shown.kind != "state":
            now["pixels"] = torch.zeros(rows, 3, size, size, dtype=torch.uint8)
        return now

    def _specify(self) -> None:
        batch, rows = self.batch_size, len(self.simulators)
        shown: dict[str, Any] = {
            "is_init": Binary(shape=(rows, 1), dtype=torch.bool),
            "env_steps": Bounded(0, self.task.action_repeat, shape=(rows, 1), dtype=torch.int64),
        }
        if "observation" in self._now:
            shown["observation"] = Unbounded(self._now["observation"].shape, dtype=torch.float32)
        if "pixels" in self._now:
            shown["pixels"] = Bounded(0, 255, shape=self._now["pixels"].shape, dtype=torch.uint8)
        self.observation_spec = Composite(**shown, shape=batch)
        self.action_spec = Bounded(-1.0, 1.0, shape=(rows, len(self._low)), dtype=torch.float32)
        self.reward_spec = Unbounded((rows, 1), dtype=torch.float32)
        ends = {name: Binary(shape=(rows, 1), dtype=torch.bool) for name in ("done", "terminated", "truncated")}
        self.full_done_spec = Composite(**ends, shape=batch)

    def _try_rendering(self) -> None:
        """Find out now, not in the middle of a run, whether pictures can be drawn."""
        self.simulators[0].reset(None)
        self.simulators[0].render(self.shown.render.size)

    def _set_seed(self, seed: int | None) -> None:
        """The next episode of row e, and all that follow it, depend on (seed, e) only."""
        rows = range(len(self.simulators))
        self._seeds = [None if seed is None else rng.key(seed, "environment", row) for row in rows]

    def _reset(
        self, tensordict: TensorDictBase | None = None, seeds: Sequence[int | None] | None = None, **_: object
    ) -> TensorDict:
        """Begin episodes, of the rows in `_reset` or of all; `seeds` has one entry per row, None for no seed."""
        self._alive()
        rows = len(self.simulators)
        if seeds is not None and len(seeds) != rows:
            raise ValueError(f"reset got {len(seeds)} seeds for {rows} environments; give one for each")
        mask = None if tensordict is None else tensordict.get("_reset", None)
        chosen = np.ones(rows, bool) if mask is None else mask.reshape(rows).numpy()
        given = self._seeds if seeds is None else list(seeds)
        self.failed = {}
        for row in np.flatnonzero(chosen).tolist():
            with self._surviving(row):
                self._begin(row, self._seeds[row] if given[row] is None else given[row])
        self._views["is_init"][:, 0] = chosen
        self._views["env_steps"][:] = 0
        return TensorDict(self._snapshot(), batch_size=self.batch_size, device=self.device)

    def _begin(self, row: int, seed: int | None) -> None:
        self._seeds[row] = None
        self._decisions[row] = self._age[row] = 0
        self._views["terminated"][row] = self._views["truncated"][row] = self._dead[row] = False
        with self._failing(row):
            self.simulators[row].reset(seed)
            self._look(row)
        self._begun[row] = True

    @settled()
    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        self._alive()
        views, rows = self._views, len(self.simulators)
        if not self._begun.all():
            raise RuntimeError(f"environment {int(self._begun.argmin())} was never reset; call env.reset() first")
        live = ~(views["terminated"] | views["truncated"])[:, 0] & ~self._dead
        partial = tensordict.get("_step", None)
        if partial is not None:
            live &= partial.reshape(rows).numpy()
        actions = scaled(tensordict.get("action"), self._low, self._high, live)
        rewards = torch.zeros(rows, 1, dtype=torch.float32)
        views["is_init"][:] = False
        views["env_steps"][:] = 0
        self.failed = {}
        for row in np.flatnonzero(live).tolist():
            with self._surviving(row):
                rewards[row] = self._advance(row, actions[row])
        views["truncated"][self._dead] = True
        result = self._snapshot()
        result["reward"] = rewards
        return TensorDict(result, batch_size=self.batch_size, device=self.device)

    def _advance(self, row: int, action: NDArray[np.float64]) -> float:
        """Hold one action for the repeat or until the episode ends; the summed reward."""
        simulator, total, taken = self.simulators[row], 0.0, 0
        terminated = truncated = False
        with self._failing(row):
            while taken < self.task.action_repeat and not (terminated or truncated):
                reward, terminated, truncated = simulator.step(action)
                total += reward
                taken += 1
                self._age[row] += 1
                if not abs(total) <= LARGEST:  # nor is it once it is float32
                    raise EnvironmentFailure(f"{self._where(row)}: the reward is {reward}, expected a finite number")
            self._look(row)
        self._decisions[row] += 1
        limit = self.task.max_decisions is not None and self._decisions[row] >= self.task.max_decisions
        self._views["terminated"][row] = terminated
        self._views["truncated"][row] = truncated or (limit and not terminated)
        self._views["env_steps"][row] = taken
        return total

    def _look(self, row: int) -> None:
        if "observation" in self._views:
            shown = self._views["observation"][row]
            self.simulators[row].observe(shown)
            if not np.isfinite(shown).all():
                raise EnvironmentFailure(f"{self._where(row)}: the observation is not finite: {shown.tolist()}")
        if "pixels" in self._views:
            try:
                picture = self.simulators[row].render(self.shown.render.size)
            except UserError as error:  # it could be drawn when the environment was made
                raise EnvironmentFailure(f"{self._where(row)}: {error}") from error
            self._views["pixels"][row] = picture.transpose(2, 0, 1)

    def _snapshot(self) -> dict[str, Tensor]:
        """Copies, because the caller keeps what it gets and the buffers go on changing."""
        result = {name: tensor.clone() for name, tensor in self._now.items()}
        result["done"] = result["terminated"] | result["truncated"]
        return result

    @contextmanager
    def _failing(self, row: int) -> Iterator[None]:
        try:
            yield
        except LightningWMError:
            raise
        except Exception as error:
            raise EnvironmentFailure(f"{self._where(row)}: {type(error).__name__}: {error}") from error

    @contextmanager
    def _surviving(self, row: int) -> Iterator[None]:
        try:
            yield
        except EnvironmentFailure as error:
            if not self.restart:
                raise
            self.rebuild(row)
            self.failed[row] = error

    def rebuild(self, row: int) -> None:
        """Give a row a new simulator; until its reset it shows zeros and is done.

        Raises:
            EnvironmentFailure: it cannot be made again.
        """
        self._alive()
        if row not in self._gone:
            self._gone.add(row)
            release([self.simulators[row]], self.task.name)
        try:
            self.simulators[row] = build(self.task, self.shown)
        except Exception as error:
            raise EnvironmentFailure(f"task {self.task.name} failed and cannot be made again: {error}") from error
        self._gone.discard(row)
        for name in ("observation", "pixels", "env_steps", "terminated"):
            if name in self._views:
                self._views[name][row] = 0
        self._begun[row] = self._dead[row] = True

    def _where(self, row: int) -> str:
        return f"task {self.task.name} failed in environment {row} at env step {self._age[row]} of its episode"

    def frame(self, index: int = 0, size: int | None = None) -> NDArray[np.uint8]:
        """Draw environment `index` as it is now, uint8 `[X, Y, 3]`; for videos, of state vectors too.

        Args:
            index: row of E.
            size: height and width; None for `observation.render.size`. dm_control draws up to 480.

        Raises:
            UserError: this machine or this task cannot draw.
        """
        self._alive()
        return self.simulators[index].render(size or self.shown.render.size).copy()

    def _alive(self) -> None:
        if self.is_closed:
            raise RuntimeError(f"the environment of task {self.task.name} is closed; make another with make_env")

    def close(self, *, raise_if_closed: bool = True) -> None:
        """Free the simulators and their renderers; calling it again does nothing.

        A simulator whose own `close` raises is named on standard error, and the others are closed.
        """
        if not self.is_closed:
            left = [simulator for row, simulator in enumerate(self.simulators) if row not in self._gone]
            self.simulators = []
            release(left, self.task.name)
        super().close(raise_if_closed=raise_if_closed)

    def __del__(self) -> None:
        # At exit the OpenGL libraries are gone already, and a forked process has its parent's contexts.
        if not sys.is_finalizing() and self.__dict__.get("_process") == os.getpid():
            super().__del__()
