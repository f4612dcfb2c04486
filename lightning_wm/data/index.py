"""What a replay folder says about itself: two small JSON files, nothing that could be executed.

`index.json` is written once: format, capacity, slots and the layout of every
file. `commit.json` is replaced with every episode: how much of the files
counts. Neither is trusted: the index is compared with what the caller expects,
and names and sizes of files follow from the caller's spaces, not from it.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning_wm.data.schema import Field
from lightning_wm.errors import UserError
from lightning_wm.runs.files import write_json
from lightning_wm.runs.untrusted import shown

FORMAT = 1
LARGEST = 1_000_000  # bytes of a JSON file; ours have a few hundred


@dataclass(frozen=True)
class Commit:
    """How much of a replay folder counts."""

    transitions: int = 0
    """Transitions of all committed episodes since the folder was made, overwritten ones included."""
    episodes: int = 0
    """Committed episodes since the folder was made."""
    begun: int = 0
    """Highest count of transitions that a write was ever begun up to: what lies `slots` before it may be gone."""


def damaged(folder: Path, why: str) -> UserError:
    """The error for a folder that cannot be read."""
    return UserError(f"replay folder {folder} is damaged: {why}; restore it from a copy, or choose another run=")


def layout(capacity: int, slots: int, fields: dict[str, Field]) -> dict[str, Any]:
    """The content of `index.json`."""
    keys = {name: {"dtype": str(f.dtype).removeprefix("torch."), "shape": list(f.shape)} for name, f in fields.items()}
    return {"format": FORMAT, "capacity": capacity, "slots": slots, "keys": keys}


def sync(path: Path) -> None:
    """Bring a file's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> dict[str, Any]:
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise damaged(path.parent, f"{path.name} is not a plain file")
        with open(path, "rb") as file:
            text = file.read(LARGEST + 1)
        content = json.loads(text) if len(text) <= LARGEST else None
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path.parent, f"{path.name} cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise damaged(path.parent, f"{path.name} does not hold an object")
    return content


def _count(path: Path, content: dict[str, Any], name: str) -> int:
    value = content.get(name)
    if type(value) is not int or not 0 <= value < 2**62:
        raise damaged(path.parent, f"{path.name} has {name}={shown(value)}, expected a count")
    return value


def read_slots(folder: Path, capacity: int, fields: dict[str, Field]) -> int:
    """The slots of an existing folder, after comparing it with what is asked for.

    Raises:
        UserError: the index is damaged, or the folder was made for something else.
    """
    path = folder / "index.json"
    found = _read(path)
    slots = _count(path, found, "slots")
    there, asked = _flat(found), _flat(layout(capacity, slots, fields))
    faults = [
        f"{name} is {there.get(name, 'absent')} there, {asked.get(name, 'absent')} asked for"
        for name in sorted(there.keys() | asked.keys())
        if there.get(name) != asked.get(name)
    ]
    if faults:
        raise UserError(
            f"replay folder {folder} was made with other settings: {'; '.join(faults)}; "
            "use those again or choose another run="
        )
    if slots < capacity:
        raise damaged(folder, f"{path.name} has {slots} slots for a capacity of {capacity}")
    return slots


def _flat(content: dict[str, Any]) -> dict[str, str]:
    """What is to be compared, as it is shown: `{"capacity": "100", "action": "float32 [6]"}`."""
    keys = content.get("keys")
    flat = {_named(name): shown(value) for name, value in content.items() if name != "keys"}
    for name, key in keys.items() if isinstance(keys, dict) else ():
        flat[_named(name)] = f"{key['dtype']} {key['shape']}" if _is_field(key) else shown(key)
    return flat


def _named(name: str) -> str:
    return name if name.isidentifier() and len(name) < 40 else shown(name)


def _is_field(key: Any) -> bool:
    """Whether an entry of `keys` looks like one of ours, so that it can be printed whole."""
    if not isinstance(key, dict) or key.keys() != {"dtype", "shape"}:
        return False
    dtype, shape = key["dtype"], key["shape"]
    return (
        (isinstance(dtype, str) and dtype.isalnum() and len(dtype) < 20)
        and (isinstance(shape, list) and len(shape) < 10)
        and all(type(one) is int and one < 2**62 for one in shape)
    )


def read_commit(folder: Path) -> Commit:
    """What of an existing folder counts.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / "commit.json"
    found = _read(path)
    commit = Commit(**{name: _count(path, found, name) for name in ("transitions", "episodes", "begun")})
    if commit.begun < commit.transitions or commit.episodes > commit.transitions:
        raise damaged(folder, f"{path.name} has counts that contradict each other")
    return commit


def write_commit(folder: Path, commit: Commit) -> None:
    """Replace `commit.json`, whole or not at all.

    Raises:
        DiskError: the file system refuses.
    """
    write_json(folder / "commit.json", asdict(commit))
