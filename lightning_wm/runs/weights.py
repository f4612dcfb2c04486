"""Weights that come from a file, into a model that a configuration beside it describes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.module import register_module_parameter_registration_hook

from lightning_wm.errors import UserError
from lightning_wm.runs.untrusted import shown

_SLACK_PARAMETERS, _SLACK_TENSORS = 1_000_000, 1_000
"""What a model may have beyond four times the file's: parameters that are made and then replaced."""


@contextmanager
def no_larger_than(path: Path, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Stop building a model that asks for much more than a file's weights, before its memory is touched.

    A configuration of a few lines can describe a model of any size.

    Raises:
        UserError: inside the block, at the first tensor too many.
    """
    budget = 4 * sum(_stored(value) for value in weights.values()) + _SLACK_PARAMETERS
    tensors = 4 * len(weights) + _SLACK_TENSORS

    def count(module: torch.nn.Module, name: str, value: torch.nn.Parameter | None) -> None:
        nonlocal budget, tensors
        budget, tensors = budget - (0 if value is None else value.numel()), tensors - 1
        if budget < 0 or tensors < 0:
            raise UserError(_does_not_fit(path, "the configuration describes a much larger model"))

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    except (MemoryError, RuntimeError, OverflowError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(_does_not_fit(path, f"the model cannot be built: {reason}")) from error
    finally:
        handle.remove()


def _stored(value: Any) -> int:
    """How many numbers a tensor has, at most one for each byte: a view of a few can pretend to have any number."""
    return min(value.numel(), value.untyped_storage().nbytes()) if _is_plain(value) else 0


def _is_plain(value: Any) -> bool:
    return (
        type(value) in (Tensor, torch.nn.Parameter)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_complex()
        and not value.is_quantized
    )


def put_weights(agent: torch.nn.Module, weights: Any, path: Path) -> None:
    """Load weights of a file, after comparing names, shapes and kinds.

    Raises:
        UserError: they are not this agent's; nothing has changed.
    """
    own = agent.state_dict()
    fault = _difference(own, weights)
    if fault is not None:
        raise UserError(_does_not_fit(path, fault))
    try:
        agent.load_state_dict(weights)
    except (RuntimeError, TypeError, ValueError, KeyError) as error:
        raise UserError(_does_not_fit(path, str(error).splitlines()[-1].strip())) from error


def _difference(own: Mapping[str, Any], weights: Any) -> str | None:
    """The first thing that keeps `weights` from being loaded as `own`, or None."""
    if not isinstance(weights, Mapping):
        return "its weights are no mapping"
    missing, foreign = own.keys() - weights.keys(), weights.keys() - own.keys()
    if missing:
        return f"{min(missing)} is missing"
    if foreign:
        return f"{sorted(map(shown, foreign))[0]} is not part of the model"
    for name, there in own.items():
        found = weights[name]
        if not isinstance(there, Tensor):
            continue
        if not _is_plain(found):
            return f"{name} is no plain tensor"
        if found.shape != there.shape:
            return f"{name} is {list(found.shape)}, the model has {list(there.shape)}"
        if found.is_floating_point() != there.is_floating_point():
            return f"{name} is {found.dtype}, the model has {there.dtype}"
    return None


def _does_not_fit(path: Path, why: str) -> str:
    return f"{path} does not fit the config.yaml beside it ({why}); expected the model it was saved with"
