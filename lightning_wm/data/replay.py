"""Experience on disk: whole episodes in, windows out, exact to restore."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torchrl.data import TensorDictReplayBuffer

from lightning_wm.data import index
from lightning_wm.data.check import check
from lightning_wm.data.index import Commit, State
from lightning_wm.data.sampler import WindowSampler
from lightning_wm.data.schema import fields
from lightning_wm.data.storage import MappedStorage, opened
from lightning_wm.errors import UserError
from lightning_wm.protocols import Spaces
from lightning_wm.runs.failpoints import reach
from lightning_wm.runs.formats import checked


def default_slack(capacity: int) -> int:
    """Slots beyond the capacity: a tenth of it, at least 10,000 where the capacity allows."""
    return min(capacity, max(10_000, capacity // 10))


class Replay:
    """A ring of transitions in a folder, over TorchRL's `TensorDictReplayBuffer`.

    `buffer` is that buffer, for whatever TorchRL offers on top; write through
    `extend`, which checks an episode and commits it whole or not at all.
    """

    def __init__(self, storage: MappedStorage, spaces: Spaces, episodes: int) -> None:
        """Wrap a mapped folder; use `create`."""
        self.spaces = spaces
        self.episodes = episodes
        """Episodes committed so far, overwritten ones included."""
        self.restored = False
        """Whether it was taken back to a checkpoint's counts since it was opened."""
        self.storage = storage
        self.buffer = TensorDictReplayBuffer(storage=storage, sampler=WindowSampler(length=1))
        self._move(self._commit())

    @classmethod
    def create(cls, folder: Path | str | None, spaces: Spaces, capacity: int, slack: int | None = None) -> Replay:
        """Open the replay in `folder`, or make an empty one where there is none.

        Args:
            folder: where its files lie; None for a temporary folder that goes with the object.
            spaces: what the environment shows and takes.
            capacity: transitions that are drawn from, the newest.
            slack: transitions kept on disk beyond those, so that a checkpoint's stay intact while as many are
                added; `default_slack` if None. A folder that exists keeps its own.

        Raises:
            UserError: the folder is damaged or was made with other settings.
            DiskError: the file system refuses.
        """
        if capacity < 1 or (slack is not None and slack < 0):
            raise UserError(f"replay.capacity must be at least 1 and slack at least 0; got {capacity} and {slack}")
        home = Path(tempfile.mkdtemp(prefix="lightning_wm-replay-") if folder is None else folder)
        slots = capacity + (default_slack(capacity) if slack is None else slack)
        storage = opened(home, fields(spaces), capacity, slots)
        commit = index.read_commit(home)
        storage.move(commit.transitions, commit.begun)
        replay = cls(storage, spaces, commit.episodes)
        if folder is None:
            weakref.finalize(replay, shutil.rmtree, home, ignore_errors=True)
        return replay

    def __len__(self) -> int:
        """Transitions that can be drawn, at most the capacity."""
        return self.storage.span()[1]

    @property
    def transitions(self) -> int:
        """Transitions committed so far, overwritten ones included."""
        return self.storage.written

    @property
    def capacity(self) -> int:
        """Transitions that are drawn from at most."""
        return self.storage.capacity

    @property
    def folder(self) -> Path:
        """Where the files lie."""
        return self.storage.folder

    def extend(self, episode: TensorDictBase) -> None:
        """Commit one whole episode `[T]`, or nothing of it.

        An episode of n decisions has n+1 rows; `schema.fields` says what is in
        a row. A process that dies in here leaves the replay as it was.

        Raises:
            UserError: it is not one whole episode of this replay's environment.
            EnvironmentFailure, NumericsError: it holds numbers that are not finite.
            DiskError: there is no room for it.
        """
        check(episode, fields(self.spaces), self.capacity)
        before = self._commit()
        after = before.transitions + episode.batch_size[0]
        try:
            self.storage.reserve(episode.batch_size[0])
            begun = max(before.begun, after)
            if begun > self.storage.max_size:  # old rows are about to go: say so before they do
                index.write_commit(self.folder, before.model_copy(update={"begun": begun}))
            reach("episode.begun")
            self.buffer.extend(episode.to("cpu").copy(), update_priority=False)
            self.episodes += 1
            reach("episode.stored")
            index.write_commit(self.folder, self._commit())
        except BaseException:
            self._move(before.model_copy(update={"begun": self.storage.begun}))
            raise

    def sample(self, batch: int, length: int, generator: torch.Generator) -> TensorDict:
        """Draw a batch `[B, T]` of windows, uniform over their starts.

        Equal generators draw equal batches from equal content. At a window's
        first step `is_init` is as it is stored.

        Raises:
            UserError: fewer transitions are stored than a window has.
        """
        self.buffer.sampler.length = length
        self.buffer.set_rng(generator)
        try:
            drawn: TensorDict = self.buffer.sample(batch)
        finally:
            self.buffer.set_rng(None)
        return drawn.exclude("index", inplace=True)

    def state(self) -> dict[str, int]:
        """What a checkpoint has to hold for `restore`; what it refers to is on the disk before this returns.

        Raises:
            DiskError: the file system refuses.
        """
        self.storage.flush()
        index.write_commit(self.folder, self._commit())
        return dict(State(transitions=self.transitions, episodes=self.episodes, capacity=self.capacity))

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to exactly what `state()` described; whatever was added later is discarded.

        Raises:
            UserError: the state is of another replay, or what it refers to has been overwritten.
        """
        saved = self._checked(state)
        transitions, begun = saved.transitions, self.storage.begun
        if transitions > begun:
            raise UserError(
                f"the checkpoint refers to {transitions} transitions, replay in {self.folder} ever had {begun}; "
                "use the replay folder that belongs to the checkpoint"
            )
        if begun - self.storage.max_size > max(0, transitions - self.capacity):
            raise UserError(
                f"replay in {self.folder} has moved on: {begun - transitions} transitions were added after the "
                f"checkpoint, {self.storage.max_size - self.capacity} may be; use a newer checkpoint"
            )
        commit = Commit(transitions=transitions, episodes=saved.episodes, begun=begun)
        index.write_commit(self.folder, commit)
        self._move(commit)
        self.restored = True

    def _checked(self, state: object) -> State:
        def refuse(why: str) -> UserError:
            return UserError(f"the checkpoint's replay state is damaged ({why}); use an older checkpoint")

        saved = checked(State, state, refuse)
        if saved.capacity != self.capacity:
            raise UserError(
                f"the checkpoint was taken with replay.capacity={saved.capacity}, replay in {self.folder} has "
                f"{self.capacity}; type replay.capacity={saved.capacity}"
            )
        return saved

    def digest(self) -> str:
        """A hash of everything that can be drawn, in order: equal for equal content."""
        first, stored = self.storage.span()
        total = hashlib.blake2b(digest_size=16)
        for name, tensor in self.storage.tensors.items():
            total.update(name.encode())
            for row in range(first, first + stored, 1024):
                slots = torch.arange(row, min(row + 1024, first + stored)) % self.storage.max_size
                total.update(tensor[slots].view(torch.uint8).numpy().tobytes())
        return total.hexdigest()

    def _commit(self) -> Commit:
        return Commit(transitions=self.storage.written, episodes=self.episodes, begun=self.storage.begun)

    def _move(self, commit: Commit) -> None:
        self.storage.move(commit.transitions, commit.begun)
        self.episodes = commit.episodes
        cursor = commit.transitions % self.storage.max_size
        self.buffer.writer.load_state_dict({"_cursor": cursor, "_write_count": commit.transitions})
