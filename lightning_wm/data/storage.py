"""A TorchRL storage whose tensors are plain files mapped into memory.

One sparse file per key; blocks are reserved before a range is written, so that
a full disk is an error here and not a SIGBUS in the middle of a copy. Nothing
is ever unpickled: file names and sizes follow from the schema.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data.replay_buffers import TensorStorage

from lightning_wm.data import index
from lightning_wm.data.index import EMPTY, damaged
from lightning_wm.data.schema import Field
from lightning_wm.errors import DiskError, UserError, is_full, unwritable
from lightning_wm.runs.disk import sync
from lightning_wm.runs.files import write_json
from lightning_wm.runs.untrusted import refuse_shared

UNSUPPORTED = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)  # file systems that cannot reserve


class MappedStorage(TensorStorage):  # type: ignore[misc]
    """A ring of `slots` transitions on disk, of which the newest `capacity` count.

    Row i of everything ever written lies in slot `i % slots`. The slots beyond
    the capacity are slack: what a checkpoint refers to stays intact until that
    many more transitions were written.
    """

    def __init__(self, folder: Path, fields: dict[str, Field], capacity: int, slots: int) -> None:
        """Map the files of `folder`, which `make_files` made.

        Raises:
            UserError: a file is missing, has another size or is not a plain file.
        """
        self.folder = folder
        self.capacity = capacity
        self.pin = False
        """Whether samples are put into page-locked memory, for asynchronous copies to a GPU."""
        self.tensors = {name: _map(folder, name, field, slots) for name, field in fields.items()}
        self._rows = {name: tensor.view(slots, -1) for name, tensor in self.tensors.items()}
        super().__init__(TensorDict(self.tensors, [slots]).lock_())
        self.move(0, 0)

    def move(self, written: int, begun: int) -> None:
        """Let the first `written` rows count; writes were begun up to `begun`."""
        self.written = written
        self.begun = max(begun, written)
        self._len = min(written, self.max_size)

    def span(self) -> tuple[int, int]:
        """First row that counts and how many follow it, in the order of writing."""
        first = max(0, self.written - self.capacity, self.begun - self.max_size)
        return first, max(0, self.written - first)

    def reserve(self, rows: int) -> None:
        """Make sure that the next `rows` rows have room on the disk.

        Raises:
            DiskError: they have not; nothing has changed.
        """
        for name, tensor in self.tensors.items():
            row = tensor[0].numel() * tensor.itemsize
            for start, stop in self._ranges(rows):
                _reserve(_path(self.folder, name), start * row, (stop - start) * row)

    def set(self, cursor: int | Tensor, data: TensorDictBase, *, set_cursor: bool = True) -> None:
        """Append rows at the writer's cursor, or replace stored ones (`set_cursor=False`)."""
        if not set_cursor:
            super().set(cursor, data, set_cursor=False)
            return
        if isinstance(cursor, int):
            cursor, data = torch.tensor([cursor]), data.unsqueeze(0)
        self._set_last_cursor(cursor)
        rows = len(cursor)
        self.reserve(rows)
        self.begun = max(self.begun, self.written + rows)
        done = 0
        for start, stop in self._ranges(rows):
            for name, tensor in self.tensors.items():
                tensor[start:stop].copy_(data.get(name)[done : done + stop - start])
            done += stop - start
        self.move(self.written + rows, self.begun)
        self._bump_mutation_revision()

    def get(self, index: object) -> Any:
        """Rows by index; for a tensor of slots `[...]` a TensorDict of that batch size.

        `index_select` copies whole rows, ten times as fast as indexing does.
        """
        if not isinstance(index, Tensor) or index.dtype != torch.int64 or not _inside(index, len(self)):
            return super().get(index)
        return TensorDict({name: self._gather(name, index) for name in self.tensors}, index.shape)

    def pick(self, name: str, rows: Tensor) -> Tensor:
        """Entry `name` of rows `[...]` by their number in the order of writing, among those that `span` counts."""
        return self._gather(name, rows % self.max_size)

    def _gather(self, name: str, slots: Tensor) -> Tensor:
        rows = self._rows[name]
        out = torch.empty(slots.numel(), rows.shape[1], dtype=rows.dtype, pin_memory=self.pin)
        torch.index_select(rows, 0, slots.reshape(-1), out=out)
        return out.view(*slots.shape, *self.tensors[name].shape[1:])

    def flush(self) -> None:
        """Bring what was written to the disk, so that it survives a power cut.

        Raises:
            DiskError: the file system refuses.
        """
        try:
            for name in self.tensors:
                sync(_path(self.folder, name))
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def _ranges(self, rows: int) -> list[tuple[int, int]]:
        """The slots of the next rows: one range, or two around the ring's end."""
        start = self.written % self.max_size
        stop = min(start + rows, self.max_size)
        rest = rows - (stop - start)
        return [(start, stop), (0, rest)] if rest else [(start, stop)]


def opened(folder: Path, fields: dict[str, Field], capacity: int, slots: int) -> MappedStorage:
    """The storage in a folder, which is made where there is none; one that is there keeps its own `slots`.

    Raises:
        UserError: the folder is damaged, or was made for something else.
        DiskError: the file system refuses.
    """
    if not (folder / "index.json").exists():
        _make(folder, fields, capacity, slots)
    return MappedStorage(folder, fields, capacity, index.read_slots(folder, capacity, fields))


def _make(folder: Path, fields: dict[str, Field], capacity: int, slots: int) -> None:
    """Make an empty folder; the index comes last, so that a half-made folder is made again."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    if (folder / "commit.json").exists() and index.read_commit(folder).begun:
        raise damaged(folder, "index.json is missing")
    make_files(folder, fields, slots)
    index.write_commit(folder, EMPTY)
    write_json(folder / "index.json", index.layout(capacity, slots, fields).as_json())


def make_files(folder: Path, fields: dict[str, Field], slots: int) -> None:
    """Make an empty sparse file for every key.

    Raises:
        UserError: a link lies where a file belongs.
        DiskError: the file system refuses.
    """
    try:
        for name, field in fields.items():
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
            descriptor = os.open(_path(folder, name), flags, 0o644)
            try:
                os.ftruncate(descriptor, slots * field.bytes)
            finally:
                os.close(descriptor)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UserError(f"{error.filename} is a link; replay files must be plain files, remove it") from error
        raise unwritable(folder, error) from error


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.bin"


def _map(folder: Path, name: str, field: Field, slots: int) -> Tensor:
    path = _path(folder, name)
    try:
        status = os.lstat(path)
    except OSError as error:
        raise damaged(folder, f"{path.name} is missing") from error
    if not stat.S_ISREG(status.st_mode):
        raise damaged(folder, f"{path.name} is not a plain file")
    if status.st_size != slots * field.bytes:
        raise damaged(folder, f"{path.name} has {status.st_size} bytes, expected {slots * field.bytes}")
    refuse_shared(folder, [path])
    count = slots * torch.Size(field.shape).numel()
    return torch.from_file(str(path), shared=True, size=count, dtype=field.dtype).view(slots, *field.shape)


def _reserve(path: Path, start: int, length: int) -> None:
    if not hasattr(os, "posix_fallocate"):  # macOS: a full disk is not caught there
        return
    try:
        descriptor = os.open(path, os.O_RDWR)
        try:
            os.posix_fallocate(descriptor, start, length)
        finally:
            os.close(descriptor)
    except OSError as error:
        if is_full(error):
            raise DiskError(
                f"no room for {length:,} bytes of replay in {path}: {error.strerror}; "
                "free some space, or lower replay.capacity in a new run"
            ) from error
        if error.errno not in UNSUPPORTED:
            raise unwritable(path, error) from error


def _inside(index: Tensor, length: int) -> bool:
    if not index.numel():
        return False
    low, high = index.aminmax()
    return bool(low >= 0) and bool(high < length)
