"""What an episode has to be before it is stored."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor

from lightning_wm.data.schema import Field
from lightning_wm.errors import EnvironmentFailure, NumericsError, UserError


def check(episode: TensorDictBase, expected: dict[str, Field], capacity: int) -> None:
    """Refuse anything but one whole, finite episode of n decisions: n+1 transitions, batch `[n+1]`.

    Raises:
        UserError: keys, types, shapes, marks or the length are not those of an episode.
        EnvironmentFailure: an observation or a reward is not finite.
        NumericsError: an action is not finite.
    """
    _check_layout(episode, expected)
    rows = episode.batch_size[0]
    if rows < 2:
        raise UserError(f"an episode has at least one decision, so 2 transitions; got {rows}")
    if rows > capacity:
        raise UserError(f"an episode of {rows} transitions does not fit into replay; type replay.capacity={rows}")
    _check_marks(episode)
    for name, field in expected.items():
        if field.dtype.is_floating_point:
            _check_finite(name, episode.get(name))


def _check_layout(episode: TensorDictBase, expected: dict[str, Field]) -> None:
    if len(episode.batch_size) != 1:
        raise UserError(f"an episode has batch size [T], one row per transition; got {list(episode.batch_size)}")
    present = {str(name) for name in episode.keys(include_nested=True, leaves_only=True)}
    faults = [f"{name!r} is missing ({field})" for name, field in expected.items() if name not in present]
    faults += [f"{name!r} is not part of it" for name in sorted(present - set(expected))]
    for name in present & set(expected):
        value = episode.get(name)
        got = Field(value.dtype, tuple(value.shape[1:]))
        if got != expected[name]:
            faults.append(f"{name!r} must be {expected[name]}, got {got}")
    if faults:
        raise UserError("not a transition of this replay: " + "; ".join(sorted(faults)))


def _check_marks(episode: TensorDictBase) -> None:
    first = episode.get("is_init").view(-1)
    if not first[0]:
        raise UserError("an episode begins with is_init at row 0; it is False there")
    if first[1:].any():
        raise UserError(f"one whole episode at a time: 'is_init' is True again at row {_row(first[1:]) + 1}")
    ended = episode.get("terminated").view(-1)
    if ended[:-1].any():
        raise UserError(f"'terminated' is True at row {_row(ended)}, before the last row ({ended.numel() - 1})")
    for name in ("action", "reward"):
        if episode.get(name)[0].any():
            raise UserError(f"{name!r} must be zero at row 0: no action led to an episode's first observation")


def _check_finite(name: str, value: Tensor) -> None:
    bad = ~torch.isfinite(value).flatten(1).all(1)
    if bad.any():
        message = f"{name!r} is not finite at row {_row(bad)} of the episode; nothing of the episode was stored"
        raise NumericsError(message) if name == "action" else EnvironmentFailure(message)


def _row(mask: Tensor) -> int:
    return int(mask.nonzero()[0, 0])
