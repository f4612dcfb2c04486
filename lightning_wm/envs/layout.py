"""The parts of a task's own observation and how they become its state vector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Part:
    """An array of the observation."""

    shape: tuple[int, ...] = ()
    """As the task shows it."""
    levels: tuple[tuple[int, int], ...] = ()
    """(first, count) of every entry that is a whole number and becomes one-hot; empty for plain numbers."""
    left_out: bool = False
    """Whether it is no part of the vector, such as a picture."""

    @property
    def size(self) -> int:
        """How many numbers of the state vector it becomes."""
        return sum(count for _, count in self.levels) if self.levels else int(np.prod(self.shape, dtype=np.int64))

    def rows(self, value: NDArray[np.generic], name: str) -> NDArray[np.float32]:
        """The part of the vector `[..., size]` for a value `[..., *shape]`.

        Raises:
            ValueError: what is no real number, a shape that does not fit, or a whole number beyond its range.
        """
        if value.dtype.kind not in "fiub":
            raise ValueError(f"{name} is of {value.dtype}, expected numbers")
        batch = self._batch(value.shape)
        if batch is None:
            raise ValueError(f"{name} has shape {list(value.shape)}, expected {list(self.shape)}")
        flat = value.reshape(*batch, -1)
        if not self.levels:
            with np.errstate(over="ignore"):  # infinities are the caller's to refuse
                return flat.astype(np.float32)
        hot = []
        for index, (first, count) in enumerate(self.levels):
            equal = flat[..., index, None] == np.arange(first, first + count)
            if not equal.any(-1).all():
                expected = f"a whole number from {first} to {first + count - 1}"
                raise ValueError(f"{name} is {flat[..., index].tolist()}, expected {expected}")
            hot.append(equal.astype(np.float32))
        return np.concatenate(hot, axis=-1)

    def _batch(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """The leading axes of a value; axes of length 1 may be missing or more than they are."""
        rank = len(shape) - len(self.shape)
        if rank >= 0 and shape[rank:] == self.shape:
            return shape[:rank]
        same = [size for size in shape if size != 1] == [size for size in self.shape if size != 1]
        return () if same else None


Tree: TypeAlias = "Part | Mapping[str, Tree]"


class ObservationLayout:
    """The order in which the parts of an observation make up the state vector `[O]`.

    Args:
        tree: a Part, or a mapping from names to Parts and further mappings, in the vector's order. The fields of a
            tuple are named `0`, `1`, ...

    Raises:
        ValueError: two parts have the same name.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        all_parts = list(_parts(tree))
        names = [name for name, _ in all_parts]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two parts of the observation are named {twice[0]}")
        self.parts = {name: part for name, part in all_parts if not part.left_out}
        """By name, in the vector's order; parts of inner mappings are named `outer/inner`."""

    @property
    def top(self) -> tuple[str, ...]:
        """The names of the outermost mapping; none where the observation is a single array."""
        return () if isinstance(self._tree, Part) else tuple(self._tree)

    def leaves(self) -> list[tuple[tuple[str, ...], Part]]:
        """All parts, left out of the vector or not, each with its names from the outermost mapping on."""
        return list(_leaves(self._tree))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parts, in the vector's order."""
        return tuple(self.parts)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many numbers of the vector each part is, in its order."""
        return tuple(part.size for part in self.parts.values())

    @property
    def size(self) -> int:
        """O."""
        return sum(self.sizes)

    def described(self) -> list[str]:
        """The parts in words, each with its size: `velocity (2)`."""
        return [f"{name} ({size})" for name, size in zip(self.names, self.sizes, strict=True)]

    def flatten(self, observation: object) -> NDArray[np.float32]:
        """The state vector of the task's own observation.

        Args:
            observation: what the task's `reset` and `step` return: a mapping (dm_control's and Gymnasium's), nested
                as the layout is, or an array where the layout has a single Part. All parts may have the same
                leading axes: `[E, ...]` for E environments.

        Returns:
            `[O]`, or `[..., O]` with the leading axes. Values beyond float32 become infinite, and what is not
            finite stays so.

        Raises:
            ValueError: names every part that is missing, is not in the layout or has another shape.
        """
        faults: list[str] = []
        values = {name: value for name, value in _values(self._tree, observation, "", faults) if name in self.parts}
        rows = []
        for name, value in values.items():
            try:
                rows.append(self.parts[name].rows(_array(value, name), name))
            except ValueError as error:
                faults.append(str(error))
        batches = {row.shape[:-1] for row in rows}
        if all(np.prod(batch) == 1 for batch in batches) and () in batches:
            rows = [row.reshape(-1) for row in rows]  # a number that comes as an array of one
        elif not faults and len(batches) > 1:
            leading = {name: list(row.shape[:-1]) for name, row in zip(values, rows, strict=True)}
            faults.append(f"the parts have different leading axes: {leading}")
        if faults:
            raise ValueError(f"the observation does not fit the task: {'; '.join(faults)}")
        return np.concatenate(rows, axis=-1) if rows else np.zeros(0, np.float32)

    def split(self, vector: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """The numbers of each part of a state vector `[..., O]` by name, flat: `[..., size]`.

        Raises:
            ValueError: the vector has another length.
        """
        if vector.shape[-1] != self.size:
            raise ValueError(f"the state vector has {vector.shape[-1]} numbers, expected {self.size}")
        return dict(zip(self.names, np.split(vector, np.cumsum(self.sizes)[:-1], axis=-1), strict=True))

    def part(self, observation: object, name: str) -> NDArray[np.generic]:
        """The part `name` of the task's own observation as it is, left out of the vector or not.

        Raises:
            ValueError: names what is missing or is not in the layout.
        """
        faults: list[str] = []
        values = dict(_values(self._tree, observation, "", faults))
        if faults:
            raise ValueError(f"the observation does not fit the task: {'; '.join(faults)}")
        return _array(values[name], name)

    def entry(self, index: int) -> str:
        """Name of the number `index` of the vector: `velocity[1]`."""
        for name, size in zip(self.names, self.sizes, strict=True):
            if index < size:
                return f"{name}[{index}]"
            index -= size
        raise IndexError(f"the state vector has {self.size} numbers")


def _array(value: object, name: str) -> NDArray[np.generic]:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    array: ArrayLike = value  # type: ignore[assignment]
    try:
        return np.asarray(array)
    except ValueError as error:  # lists of different lengths
        raise ValueError(f"{name} is no array: {error}") from error


def entries(layout: ObservationLayout | None, size: int) -> list[str]:
    """Names of the numbers of a state vector of a size, by their place where no layout of that size is known."""
    if layout is None or layout.size != size:
        return [f"observation[{index}]" for index in range(size)]
    return [layout.entry(index) for index in range(size)]


WHOLE = "observation"
"""Name of the part where the observation is a single array."""


def _leaves(tree: Tree, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Part]]:
    if isinstance(tree, Part):
        yield path, tree
        return
    for name, branch in tree.items():
        yield from _leaves(branch, (*path, name))


def _parts(tree: Tree) -> Iterator[tuple[str, Part]]:
    for path, part in _leaves(tree):
        yield "/".join(path) or WHOLE, part


def _values(tree: Tree, value: object, path: str, faults: list[str]) -> Iterator[tuple[str, object]]:
    """Each part's name and value, in the layout's order; what does not fit goes into `faults`."""
    if isinstance(tree, Part):
        yield path or WHOLE, value
        return
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = {str(index): item for index, item in enumerate(value)}
    expected = ", ".join(tree)
    if not isinstance(value, Mapping):
        faults.append(f"{path or WHOLE} is of {type(value).__name__}, expected a mapping with {expected}")
        return
    inside = f"{path}/" if path else ""
    if extra := [str(name) for name in value if str(name) not in tree]:
        faults.append(f"{', '.join(inside + name for name in extra)} is not in it (it has {expected})")
    by_name = {str(name): item for name, item in value.items()}
    for name, branch in tree.items():
        if name in by_name:
            yield from _values(branch, by_name[name], inside + name, faults)
        else:
            faults.append(f"{inside}{name} is missing")
