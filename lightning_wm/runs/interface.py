"""What a model takes and gives, stored beside its weights: `spaces.json` of a model folder.

The order in which the parts of a task's own observation make up the state vector is what the model was trained with.
It is written down, so that no simulator is needed to act, and one that has another order now is found out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from lightning_wm.envs.layout import ObservationLayout, Part, Tree
from lightning_wm.errors import UserError
from lightning_wm.protocols import Spaces
from lightning_wm.runs.files import read_json, write_json
from lightning_wm.runs.formats import Count, FileFormat, checked

SPACES = "spaces.json"
LARGEST = 1_000_000
"""Bytes; dm_control's dog has 2,000."""

Size = Annotated[int, Field(ge=0, le=2**24)]
Side = Annotated[int, Field(ge=1, le=4096)]
Whole = Annotated[int, Field(gt=-(2**62), lt=2**62)]


class StoredPart(FileFormat):
    """One array of the task's own observation."""

    path: Annotated[list[str], Field(max_length=20)]
    """Its name, below those of the mappings around it; empty where the observation is a single array."""
    shape: Annotated[list[Size], Field(max_length=8)]
    levels: list[Annotated[list[Whole], Field(min_length=2, max_length=2)]] = Field(default=[])
    """(first, count) of every entry that becomes one-hot."""
    left_out: bool = False


class StoredSpaces(FileFormat):
    """The file."""

    action: Count
    """A."""
    observation: Size | None
    """O."""
    pixels: Annotated[list[Side], Field(min_length=3, max_length=3)] | None
    """C, X, Y."""
    parts: list[StoredPart] | None
    """In the order of the state vector; null without one."""


@dataclass(frozen=True)
class Interface:
    """What an agent sees and does, and how a task's own observation becomes it."""

    spaces: Spaces
    layout: ObservationLayout | None

    def as_json(self) -> dict[str, object]:
        """The content of `spaces.json`."""
        spaces, parts = self.spaces, None
        if self.layout is not None:
            parts = [
                {"path": list(path), "shape": list(part.shape), "levels": [list(level) for level in part.levels]}
                | ({"left_out": True} if part.left_out else {})
                for path, part in self.layout.leaves()
            ]
        pixels = None if spaces.pixels is None else list(spaces.pixels)
        return {"action": spaces.action, "observation": spaces.observation, "pixels": pixels, "parts": parts}

    def refuse_other(self, shown: Interface, task: str) -> None:
        """Refuse a simulator that shows or takes something else.

        Raises:
            UserError: names both.
        """
        if self.as_json() != shown.as_json():
            raise UserError(
                f"task {task} is not what the model was trained on: it has {shown.described()}, expected "
                f"{self.described()}; install the versions that it was trained with, or another model"
            )

    def described(self) -> str:
        """In words: the parts in their order, pixels, the action's size."""
        seen = []
        if self.layout is not None:
            seen.append(", ".join(self.layout.described()))
        elif self.spaces.observation is not None:
            seen.append(f"a vector of {self.spaces.observation}")
        if self.spaces.pixels is not None:
            seen.append(f"pixels {list(self.spaces.pixels)}")
        return f"{', '.join(seen)} and actions of {self.spaces.action}"


def write_interface(folder: Path, interface: Interface) -> None:
    """Write `spaces.json`.

    Raises:
        DiskError: it cannot be written.
    """
    write_json(folder / SPACES, interface.as_json())


def read_interface(folder: Path) -> Interface | None:
    """Read `spaces.json`, which may come from elsewhere; None where there is none.

    Raises:
        UserError: it is damaged, or its parts do not make up its vector.
    """
    path = folder / SPACES

    def refuse(why: str) -> UserError:
        return UserError(f"{path} is damaged or foreign ({why}); expected what python -m lightning_wm.export writes")

    if not path.exists():
        return None
    stored = checked(StoredSpaces, read_json(path, LARGEST), refuse)
    pixels = None if stored.pixels is None else (stored.pixels[0], stored.pixels[1], stored.pixels[2])
    spaces = Spaces(stored.action, stored.observation, pixels)
    if stored.observation is None and pixels is None:
        raise refuse("it has neither a vector nor pixels")
    if stored.parts is None:
        return Interface(spaces, None)
    total = sum(_size(part) for part in stored.parts if not part.left_out)
    if stored.observation != total:
        raise refuse(f"parts of {total} numbers for a vector of {stored.observation}")
    try:
        return Interface(spaces, ObservationLayout(_tree(stored.parts)))
    except ValueError as error:
        raise refuse(str(error)) from error


def _size(part: StoredPart) -> int:
    return sum(count for _, count in part.levels) if part.levels else prod(part.shape)


def _tree(parts: list[StoredPart]) -> Tree:
    """Mappings inside one another, from the paths of their parts.

    Raises:
        ValueError: a part that has parts, or is there twice.
    """
    leaves = {tuple(part.path): _part(part) for part in parts}
    if len(leaves) < len(parts):
        raise ValueError("a part is there twice")
    if () in leaves:
        if len(leaves) > 1:
            raise ValueError("a single array with parts beside it")
        return leaves[()]
    tree: dict[str, Any] = {}
    for path, part in leaves.items():
        inside = tree
        for name in path[:-1]:
            inside = inside.setdefault(name, {})
            if not isinstance(inside, Mapping):
                raise ValueError(f"{name} is a part and has parts")
        if path[-1] in inside:
            raise ValueError(f"{path[-1]} is a part and has parts")
        inside[path[-1]] = part
    return tree


def _part(stored: StoredPart) -> Part:
    if any(count < 1 for _, count in stored.levels) or (stored.levels and len(stored.levels) != prod(stored.shape)):
        raise ValueError("levels that do not fit their shape")
    return Part(tuple(stored.shape), tuple((first, count) for first, count in stored.levels), stored.left_out)
