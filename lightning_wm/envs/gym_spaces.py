"""What Gymnasium's spaces say: the parts of the state vector, the picture among them, the actions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lightning_wm.envs.layout import WHOLE, ObservationLayout, Part, Tree
from lightning_wm.envs.pictures import PictureForm, is_image, picture_form
from lightning_wm.envs.simulator import bounds
from lightning_wm.errors import UserError

if TYPE_CHECKING:
    import gymnasium

    Space = gymnasium.Space[Any]


@dataclass(frozen=True)
class Observed:
    """How a task's observations are read."""

    layout: ObservationLayout
    picture: str | None = None
    """Name of the part that is the pixels; None where they are drawn."""
    form: PictureForm | None = None
    """Of that part."""


def observed(task: str, space: Space, kind: str) -> Observed:
    """How the observations of a space become a state vector and pixels.

    Args:
        task: its name, for messages.
        space: Box, Discrete, MultiBinary and MultiDiscrete, and Dict and Tuple of these, in the space's own order.
        kind: `state`, `pixels` or `both`; with pixels, the picture among the parts is taken.

    Raises:
        UserError: another space, several pictures, pictures in a state vector, or nothing but pictures for one.
    """
    boxes: dict[str, gymnasium.spaces.Box] = {}
    tree = _tree(task, space, space, "", boxes)
    if kind == "state":
        images = [name for name, box in boxes.items() if is_image(box.shape, box.dtype)]
        if images:
            other = "pixels" if len(images) == len(ObservationLayout(tree).parts) else "both"
            raise UserError(
                f"task {task} observes images ({', '.join(images)} in {_short(space)}), expected the numbers of a "
                f"state; type observation.kind={other}"
            )
        return Observed(ObservationLayout(tree))
    forms = {name: form for name, box in boxes.items() if (form := _form(box)) is not None}
    if len(forms) > 1:
        raise UserError(f"task {task} observes several pictures ({', '.join(forms)}), expected one; wrap it")
    for name, form in forms.items():
        layout = ObservationLayout(_without(tree, name))
        if kind == "both" and not layout.parts:
            raise UserError(f"task {task} observes a picture alone ({_short(space)}); type observation.kind=pixels")
        return Observed(layout, name, form)
    return Observed(ObservationLayout(tree))


def _tree(task: str, space: Space, whole: Space, path: str, boxes: dict[str, gymnasium.spaces.Box]) -> Tree:
    from gymnasium import spaces

    if isinstance(space, spaces.Dict | spaces.Tuple):
        named = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        inside = f"{path}/" if path else ""
        return {str(name): _tree(task, part, whole, f"{inside}{name}", boxes) for name, part in named}
    if isinstance(space, spaces.Box):
        boxes[path or WHOLE] = space
        return Part(space.shape)
    if isinstance(space, spaces.MultiBinary):
        return Part(space.shape)
    if isinstance(space, spaces.Discrete):
        return Part((), ((int(space.start), int(space.n)),))
    if isinstance(space, spaces.MultiDiscrete):
        levels = zip(space.start.flat, space.nvec.flat, strict=True)
        return Part(space.shape, tuple((int(first), int(count)) for first, count in levels))
    raise UserError(f"task {task} observes {whole}, expected what flattens to a vector")


def _form(box: gymnasium.spaces.Box) -> PictureForm | None:
    if not box.low.size:
        return None
    return picture_form(box.shape, box.dtype, float(box.low.min()), float(box.high.max()))


def _without(tree: Tree, name: str, path: str = "") -> Tree:
    """The same parts, of which one is not part of the vector."""
    if isinstance(tree, Part):
        return replace(tree, left_out=(path or WHOLE) == name)
    return {key: _without(branch, name, f"{path}/{key}" if path else key) for key, branch in tree.items()}


def _short(space: Space) -> str:
    text = str(space)
    return text if len(text) < 200 else f"{text[:200]}…"


def action_box(task: str, space: Space) -> tuple[gymnasium.spaces.Box, NDArray[np.float64], NDArray[np.float64]]:
    """The Box of a task's actions and its bounds `[A]`.

    Raises:
        UserError: no Box, a Box of whole numbers, one without numbers or without usable bounds.
    """
    from gymnasium.spaces import Box

    if not isinstance(space, Box):
        raise UserError(
            f"task {task} takes actions of {space}, expected a Box; choose another task, e.g. task.name=gym/Pendulum-v1"
        )
    if space.dtype.kind != "f":
        raise UserError(
            f"task {task} takes whole numbers as actions ({space}), expected a Box of floats; choose another task, or "
            "register it with a wrapper that rounds"
        )
    low, high = bounds(task, space.low, space.high)
    if low.size == 0 or not (low <= high).all():
        raise UserError(f"task {task} takes actions of {space}, expected one number or more, each with low <= high")
    return space, low, high


def number(value: object, name: str) -> float:
    """A reward as a float; arrays of one number are.

    Raises:
        ValueError: no number, or several.
    """
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "fiub":
        raise ValueError(f"the {name} is {_value(array)}, expected one number")
    return float(array.reshape(()))


def flag(value: object, name: str) -> bool:
    """`terminated` or `truncated` as a bool; 0 and 1 are, and arrays of one.

    Raises:
        ValueError: anything else.
    """
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "iub" or array.reshape(()) not in (0, 1):
        raise ValueError(f"{name} is {_value(array)}, expected True or False")
    return bool(array.reshape(()))


def pair(result: object) -> object:
    """The observation of what `reset` returned.

    Raises:
        ValueError: not an observation and a dictionary.
    """
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping)):
        raise ValueError(f"reset returned {_kind(result)}, expected (observation, info)")
    return result[0]


def five(result: object) -> tuple[object, object, object, object]:
    """Observation, reward, terminated and truncated of what `step` returned.

    Raises:
        ValueError: not five values.
    """
    if not (isinstance(result, tuple | list) and len(result) == 5):
        raise ValueError(f"step returned {_kind(result)}, expected (observation, reward, terminated, truncated, info)")
    return result[0], result[1], result[2], result[3]


def _value(array: NDArray[np.generic]) -> str:
    if array.dtype.kind in "fiub" and array.ndim:
        return f"{array.dtype} {list(array.shape)}"
    return repr(array.item())[:80] if array.ndim == 0 else f"{array.dtype} {list(array.shape)}"


def _kind(result: object) -> str:
    return f"{len(result)} values" if isinstance(result, tuple | list) else f"a {type(result).__name__}"
