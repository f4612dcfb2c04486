"""Weights that come from a file, into a model that a configuration beside it describes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lightning_wm.errors import UserError
from lightning_wm.runs.untrusted import reason, shown

_SLACK_PARAMETERS, _SLACK_TENSORS = 1_000_000, 1_000
"""What a model may have beyond four times the file's: parameters that are made and then replaced."""
_MAKERS: tuple[Callable[..., Tensor], ...] = (torch.empty, torch.zeros, torch.ones, torch.full)
"""What torch's modules make their parameters with."""


class _Budget(TorchFunctionMode):
    """Counts the numbers and tensors that this thread makes, before their memory is reserved."""

    def __init__(self, numbers: int, tensors: int, error: UserError) -> None:
        super().__init__()
        self.numbers, self.tensors, self.error = numbers, tensors, error

    def __torch_function__(
        self,
        func: Callable[..., Tensor],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> Tensor:
        given = dict(kwargs or {})
        if func in _MAKERS and "out" not in given:
            planned = func(*args, **{**given, "device": "meta", "pin_memory": False})
            self.numbers, self.tensors = self.numbers - planned.numel(), self.tensors - 1
            if self.numbers < 0 or self.tensors < 0:
                raise self.error
        return func(*args, **given)


@contextmanager
def no_larger_than(path: Path, weights: Mapping[str, object]) -> Iterator[None]:
    """Stop building a model that asks for much more than a file's weights, before its memory is touched.

    A configuration of a few lines can describe a model of any size.

    Raises:
        UserError: inside the block, at the first tensor too many.
    """
    numbers = 4 * sum(_stored(value) for value in weights.values()) + _SLACK_PARAMETERS
    tensors = 4 * len(weights) + _SLACK_TENSORS
    try:
        with _Budget(numbers, tensors, _misfit(path, "the configuration describes a much larger model")):
            yield
    except (MemoryError, RuntimeError, OverflowError) as error:
        raise _misfit(path, f"the model cannot be built: {reason(error)}") from error


def _stored(value: object) -> int:
    """How many numbers a tensor has, at most one for each byte: a view of a few can pretend to have any number."""
    if not isinstance(value, Tensor) or not _is_plain(value):
        return 0
    return min(value.numel(), value.untyped_storage().nbytes())


def _is_plain(value: Tensor) -> bool:
    return (
        type(value) in (Tensor, torch.nn.Parameter)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_complex()
        and not value.is_quantized
    )


def check_weights(agent: torch.nn.Module, weights: object, path: Path) -> None:
    """Compare names, shapes and kinds of a file's weights with an agent's.

    Raises:
        UserError: they are not this agent's.
    """
    fault = _difference(agent.state_dict(), weights)
    if fault is not None:
        raise _misfit(path, fault)


def put_weights(agent: torch.nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load weights of a file, after `check_weights`.

    Raises:
        UserError: they are not this agent's; nothing has changed.
    """
    check_weights(agent, weights, path)
    try:
        agent.load_state_dict(weights)
    except (RuntimeError, TypeError, ValueError, KeyError) as error:
        raise _misfit(path, reason(error)) from error


def _difference(own: Mapping[str, object], weights: object) -> str | None:
    """The first thing that keeps `weights` from being loaded as `own`, or None."""
    if not isinstance(weights, Mapping):
        return "its weights are no mapping"
    missing, foreign = own.keys() - weights.keys(), weights.keys() - own.keys()
    if missing:
        return f"{min(missing)} is missing"
    if foreign:
        return f"{sorted(map(shown, foreign))[0]} is not part of the model"
    for name, value in own.items():
        stored = weights[name]
        if not isinstance(value, Tensor):
            continue
        if not isinstance(stored, Tensor) or not _is_plain(stored):
            return f"{name} is no plain tensor"
        if stored.shape != value.shape:
            return f"{name} is {list(stored.shape)}, the model has {list(value.shape)}"
        if stored.is_floating_point() != value.is_floating_point():
            return f"{name} is {stored.dtype}, the model has {value.dtype}"
    return None


def _misfit(path: Path, why: str) -> UserError:
    return UserError(f"{path} does not fit the config.yaml beside it ({why}); expected the model it was saved with")
