"""What a replay folder says about itself: two small JSON files, nothing that could be executed.

`index.json` is written once: format, capacity, slots and the layout of every
file. `commit.json` is replaced with every episode: how much of the files
counts. Neither is trusted: the index is compared with what the caller expects,
and names and sizes of files follow from the caller's spaces, not from it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from lightning_wm.data import schema
from lightning_wm.errors import UserError
from lightning_wm.runs.files import read_json, write_json
from lightning_wm.runs.formats import Count, FileFormat, checked, named

FORMAT = 1
LARGEST = 1_000_000  # bytes of a JSON file; ours have a few hundred


class Layout(FileFormat):
    """One file of a replay folder."""

    dtype: Annotated[str, Field(pattern="^[a-z0-9]{1,20}$")]
    shape: Annotated[list[Count], Field(max_length=10)]

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}"


class Index(FileFormat):
    """`index.json`."""

    format: Count = FORMAT
    capacity: Count
    slots: Count
    keys: Annotated[dict[str, Layout], Field(max_length=100)]


class Counts(FileFormat):
    """What has been stored since a folder was made, what was overwritten since included."""

    transitions: Count
    episodes: Count

    @model_validator(mode="after")
    def _agree(self) -> Counts:
        if self.episodes > self.transitions:
            raise ValueError("its counts contradict each other")
        return self


class State(Counts):
    """What a checkpoint holds of a replay."""

    capacity: Count


class Commit(Counts):
    """`commit.json`: how much of a replay folder counts."""

    begun: Count
    """Highest count of transitions that a write was ever begun up to: what lies `slots` before it may be gone."""

    @model_validator(mode="after")
    def _begun_before(self) -> Commit:
        if self.begun < self.transitions:
            raise ValueError("its counts contradict each other")
        return self


EMPTY = Commit(transitions=0, episodes=0, begun=0)


def damaged(folder: Path, why: str) -> UserError:
    """The error for a folder that cannot be read."""
    return UserError(f"replay folder {folder} is damaged: {why}; restore it from a copy, or choose another run=")


def layout(capacity: int, slots: int, fields: dict[str, schema.Field]) -> Index:
    """The index of a folder for these entries of a transition."""
    keys = {name: Layout(dtype=field.name, shape=list(field.shape)) for name, field in fields.items()}
    return Index(capacity=capacity, slots=slots, keys=keys)


def _read(path: Path) -> Any:
    if path.is_symlink() or not path.is_file():
        raise damaged(path.parent, f"{path.name} is missing or not a plain file")
    try:
        return read_json(path, LARGEST)
    except UserError as error:
        raise damaged(path.parent, str(error)) from error


def _refuse(path: Path, why: str) -> UserError:
    return damaged(path.parent, f"{path.name}: {why}")


def read_slots(folder: Path, capacity: int, fields: dict[str, schema.Field]) -> int:
    """The slots of an existing folder, after comparing it with what is expected.

    Raises:
        UserError: the index is damaged, or the folder was made for something else.
    """
    path = folder / "index.json"
    index = checked(Index, _read(path), partial(_refuse, path))
    stored, expected = _flat(index), _flat(layout(capacity, index.slots, fields))
    faults = [
        f"{name} is {stored.get(name, 'absent')} there, {expected.get(name, 'absent')} asked for"
        for name in sorted(stored.keys() | expected.keys())
        if stored.get(name) != expected.get(name)
    ]
    if faults:
        raise UserError(
            f"replay folder {folder} was made with other settings: {'; '.join(faults)}; "
            "use those again or choose another run="
        )
    if index.slots < capacity:
        raise damaged(folder, f"{path.name} has {index.slots} slots for a capacity of {capacity}")
    return index.slots


def _flat(index: Index) -> dict[str, str]:
    """What is to be compared, as it is shown: `{"capacity": "100", "action": "float32 [6]"}`."""
    counts = {name: str(value) for name, value in index if name != "keys"}
    return counts | {named(name): str(key) for name, key in index.keys.items()}


def read_commit(folder: Path) -> Commit:
    """What of an existing folder counts.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / "commit.json"
    return checked(Commit, _read(path), partial(_refuse, path))


def write_commit(folder: Path, commit: Commit) -> None:
    """Replace `commit.json`, whole or not at all.

    Raises:
        DiskError, UserError: the file system refuses.
    """
    write_json(folder / "commit.json", commit.as_json())
