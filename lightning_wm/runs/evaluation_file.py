"""Reading `evaluations/NAME.json` and a model folder's `evaluation.json`, which may come from elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning_wm.errors import UserError
from lightning_wm.runs.files import read_json
from lightning_wm.runs.untrusted import shown


def read_evaluation(path: Path) -> dict[str, Any]:
    """The content of an evaluation's file, after comparing it with what `Evaluation.as_json` writes.

    Raises:
        UserError: it is missing, damaged or something else.
    """
    content = read_json(path)
    fault = "it holds no object" if not isinstance(content, dict) else _fault(content, _SHAPE)
    if fault is not None:
        raise UserError(f"{path} is damaged or foreign ({fault}); expected an evaluation; remove it, or evaluate again")
    return dict(content)


def _fault(content: Mapping[str, Any], shape: Mapping[str, Callable[[Any], bool]]) -> str | None:
    """The first key that is missing or has the wrong kind of value."""
    for name, fits in shape.items():
        if name not in content:
            return f"{name} is missing"
        if not fits(content[name]):
            return f"{name} is {shown(content[name])}"
    return None


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**62


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max  # of whole numbers of any length, too


def _maybe(value: Any) -> bool:
    return value is None or _number(value)


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_number(one) for one in value)


def _interval(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_maybe(one) for one in value)


def _cost(value: Any) -> bool:
    return isinstance(value, dict) and all(_number(value.get(name)) for name in ("median", "p95"))


_SHAPE: Mapping[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("task", "agent", "observation", "planner", "checkpoint"), _text),
    **dict.fromkeys(("env_steps", "run_seed", "seed", "environments", "episodes"), _count),
    "settings": lambda value: isinstance(value, dict),
    "returns": _numbers,
    **dict.fromkeys(("mean", "std", "iqm", "model_steps"), _number),
    "interval95": _interval,
    "ms_per_decision": _cost,
    "predicted_score": _maybe,
}
