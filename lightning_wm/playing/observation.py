"""What an actor takes from outside: looked at once, before anything that it remembers changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from lightning_wm.envs.layout import ObservationLayout
from lightning_wm.errors import UserError
from lightning_wm.protocols import Spaces


@dataclass(frozen=True)
class Observed:
    """An observation that fits."""

    rows: TensorDict
    """`observation` float `[E, O]` and/or `pixels` uint8 `[E, C, X, Y]`."""
    finite: Tensor
    """bool `[E]`, on the CPU."""
    batched: bool
    """Whether it came with a batch."""
    arrays: bool
    """Whether it came as arrays, so that the action is to be one."""


class ObservationIntake:
    """Takes observations as tensors or arrays, `[E, ...]` or of one environment, by name or as the task shows them.

    Args:
        spaces: what the agent sees.
        layout: of the task's own observation, where there is one.
    """

    def __init__(self, spaces: Spaces, layout: ObservationLayout | None = None) -> None:
        self.layout = layout
        self.shapes: dict[str, tuple[int, ...]] = {}
        """Of one environment, by name."""
        if spaces.observation is not None:
            self.shapes["observation"] = (spaces.observation,)
        if spaces.pixels is not None:
            self.shapes["pixels"] = tuple(spaces.pixels)

    def take(self, observation: object) -> Observed:
        """The observation in the agent's form.

        Raises:
            UserError: a name, shape or type that does not fit, or entries of different batches; says what was expected.
        """
        named = self._named(observation)
        arrays = not any(isinstance(value, Tensor) for value in named.values())
        tensors = {name: self._tensor(name, value) for name, value in named.items()}
        batched = [tensors[name].ndim > len(shape) for name, shape in self.shapes.items()]
        if len(set(batched)) > 1 or len({len(value) for value in tensors.values() if batched[0]}) > 1:
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in tensors.items())
            raise UserError(f"entries of different batches: {shapes}; expected {self._expected()}")
        if not batched[0]:
            tensors = {name: value.unsqueeze(0) for name, value in tensors.items()}
        rows = TensorDict(tensors, [len(next(iter(tensors.values())))])
        finite = torch.ones(len(rows), dtype=torch.bool)
        if "observation" in tensors:
            finite = tensors["observation"].isfinite().flatten(1).all(1).cpu()
        return Observed(rows, finite, batched[0], arrays)

    def refuse(self, observed: Observed) -> None:
        """Refuse what is not finite.

        Raises:
            UserError: names the first entry.
        """
        if bool(observed.finite.all()):
            return
        row = int((~observed.finite).nonzero()[0])
        vector = observed.rows["observation"][row]
        index = int((~vector.isfinite()).nonzero()[0])
        name = f"observation[{index}]" if self.layout is None else self.layout.entry(index)
        where = f" of environment {row}" if observed.batched else ""
        raise UserError(
            f"{name}{where} is {float(vector[index])}; expected finite numbers; nothing was done with it: act on the "
            "next observation, or set actor.missing='predict' to act on what the model expects instead"
        )

    def _named(self, observation: Any) -> dict[str, object]:
        """The entries by the agent's names; the task's own parts become the state vector."""
        mapping = isinstance(observation, Mapping | TensorDictBase)
        if mapping and not self._is_own(observation) and all(name in observation for name in self.shapes):
            return {name: observation[name] for name in self.shapes}
        if not mapping and len(self.shapes) == 1:
            return dict.fromkeys(self.shapes, observation)
        if self.layout is not None and "observation" in self.shapes:
            pixels = {} if list(self.shapes) == ["observation"] else self._pixels(observation)
            own = {name: observation[name] for name in observation if name not in pixels} if pixels else observation
            try:
                return {"observation": self.layout.flatten(own), **pixels}
            except ValueError as error:
                raise UserError(f"{error}; expected {self._expected()}") from error
        raise UserError(f"an observation with {_described(observation)}; expected {self._expected()}")

    def _is_own(self, observation: Any) -> bool:
        """Whether it has parts of the task's own beside one that may be called like ours."""
        own = () if self.layout is None else self.layout.top
        return any(name in observation for name in own if name not in self.shapes)

    def _pixels(self, observation: Any) -> dict[str, object]:
        """The picture beside the task's own parts."""
        if not isinstance(observation, Mapping | TensorDictBase) or "pixels" not in observation:
            raise UserError(f"an observation with {_described(observation)}; expected {self._expected()}")
        return {"pixels": observation["pixels"]}

    def _tensor(self, name: str, value: object) -> Tensor:
        shape = self.shapes[name]
        try:
            tensor = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
        except (TypeError, ValueError) as error:
            raise UserError(f"{name} is no array of numbers ({error}); expected {self._expected()}") from error
        if name == "pixels":
            tensor = _channels_first(tensor, shape)
        fits = tensor.ndim in (len(shape), len(shape) + 1) and tuple(tensor.shape[-len(shape) :]) == shape
        if not fits or tensor.shape[0] == 0:
            raise UserError(f"{name} has shape {list(tensor.shape)}; expected {self._expected()}")
        if name == "pixels":
            if tensor.dtype != torch.uint8:
                raise UserError(f"pixels are {tensor.dtype}; expected {self._expected()}")
        elif tensor.is_complex():
            raise UserError(f"{name} is {tensor.dtype}; expected {self._expected()}")
        return tensor if tensor.is_floating_point() or name == "pixels" else tensor.to(torch.float32)

    def _expected(self) -> str:
        kinds = {"observation": "numbers", "pixels": "uint8"}
        entries = [f"{name!r} {kinds[name]} {list(shape)}" for name, shape in self.shapes.items()]
        expected = f"a mapping with {' and '.join(entries)} (or [E, ...] for E environments)"
        if self.layout is not None and "observation" in self.shapes:
            parts = self.layout.described()
            parts += [f"pixels {list(self.shapes['pixels'])}"] if "pixels" in self.shapes else []
            expected += f", or the task's own: {', '.join(parts)}"
        return expected


def _channels_first(pixels: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A picture `[..., X, Y, C]`, as simulators draw it, in the agent's order `[..., C, X, Y]`; others as they are."""
    last = (*shape[1:], shape[0])
    if pixels.ndim >= len(shape) and last != shape and tuple(pixels.shape[-len(shape) :]) == last:
        return pixels.movedim(-1, -3)
    return pixels


def _described(observation: object) -> str:
    """Names and sizes of what came."""
    if not isinstance(observation, Mapping | TensorDictBase):
        return type(observation).__name__
    return ", ".join(f"{name} {_size(value)}" for name, value in observation.items()) or "nothing"


def _size(value: object) -> str:
    shape = getattr(value, "shape", None)
    return f"({type(value).__name__})" if shape is None else str(list(shape))
