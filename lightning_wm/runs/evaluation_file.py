"""One planner on one checkpoint: `evaluations/NAME.json` and a model folder's `evaluation.json`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field, model_validator
from scipy import stats

from lightning_wm.errors import UserError
from lightning_wm.runs.files import read_json, write_json
from lightning_wm.runs.formats import Count, FileFormat, Number, Numbers, checked

DEEPEST = 20
"""Objects and lists inside one another in a planner's settings; ours have two."""


def _shallow(settings: dict[str, Any]) -> dict[str, Any]:
    waiting: list[tuple[object, int]] = [(settings, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > DEEPEST:
            raise ValueError("settings are nested too deeply")
        inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        waiting += [(item, depth + 1) for item in inside]
    return settings


class Milliseconds(FileFormat):
    """Wall time of decisions; 0 where there were none."""

    median: Number
    p95: Number


class Evaluation(FileFormat):
    """One planner on one checkpoint, over a list of episode seeds; the statistics follow from the returns."""

    milliseconds: Numbers = Field(default=[], exclude=True, repr=False)
    """Per decision, over the environments in the call; not in the file."""
    scores: Numbers = Field(default=[], exclude=True, repr=False)
    """Score of each executed plan under the model, fallbacks have none; not in the file."""

    task: str
    agent: str
    observation: str
    planner: str
    settings: Annotated[dict[str, Any], AfterValidator(_shallow)]
    env_steps: Count
    """Of the checkpoint."""
    checkpoint: str
    run_seed: Count
    seed: Count
    """Of the first episode; the others follow it."""
    environments: Count
    """Episodes that were played at once."""
    episodes: Count
    returns: Annotated[Numbers, Field(min_length=1)]
    """Of every episode: the undiscounted sum of its rewards."""
    mean: Number = Field(default_factory=lambda data: float(np.mean(data["returns"])))
    std: Number = Field(default_factory=lambda data: _std(data["returns"]))
    """Sample standard deviation of the returns; 0 with one episode."""
    iqm: Number = Field(default_factory=lambda data: float(stats.trim_mean(data["returns"], 0.25)))
    """Interquartile mean of the returns."""
    interval95: Annotated[list[Number | None], Field(min_length=2, max_length=2)] = Field(
        default_factory=lambda data: list(student(data["returns"]) or (None, None))
    )
    """Student's t interval of the mean; two times null with one episode."""
    ms_per_decision: Milliseconds = Field(default_factory=lambda data: milliseconds(data["milliseconds"]))
    """Of the planner's call over the environments in it, so that many at once look cheap."""
    latency_ms: Milliseconds | None = None
    """From observation to action of one environment alone; null where it was not measured."""
    predicted_score: Number | None = Field(
        default_factory=lambda data: float(np.mean(data["scores"])) if data["scores"] else None
    )
    """Mean of the scores; null where nothing was planned."""
    model_steps: Number = 0.0
    sequential_calls: Number = 0.0
    fallbacks: Count = 0
    by_policy: Count | None = None
    """Plans that were the policy's own; null in files from before they were counted."""
    perturb: dict[str, Number] = Field(default={}, exclude_if=lambda factors: not factors)
    """Factors on the physics that are not 1."""

    @model_validator(mode="before")
    @classmethod
    def _counted(cls, content: object) -> object:
        """`episodes` follows from the returns as well, which come after it in the file."""
        if isinstance(content, dict) and "episodes" not in content and isinstance(content.get("returns"), list):
            return {**content, "episodes": len(content["returns"])}
        return content

    def as_json(self) -> dict[str, object]:
        """The file's content; without what was not measured, as before it was."""
        content, later = super().as_json(), ("latency_ms", "by_policy")
        return {name: value for name, value in content.items() if name not in later or value is not None}

    def save(self, path: Path) -> None:
        """Write the JSON file as a whole."""
        write_json(path, self.as_json())


_MAY_LACK = ("milliseconds", "scores", "latency_ms", "sequential_calls", "fallbacks", "by_policy", "perturb")
REQUIRED = [name for name in Evaluation.model_fields if name not in _MAY_LACK]
"""What a file must have, although it could be worked out."""


def read_evaluation(path: Path) -> Evaluation:
    """An evaluation's file, which may come from elsewhere.

    Raises:
        UserError: it is missing, damaged or something else.
    """

    def refuse(why: str) -> UserError:
        return UserError(f"{path} is damaged or foreign ({why}); expected an evaluation; remove it, or evaluate again")

    content = read_json(path)
    for name in REQUIRED if isinstance(content, dict) else ():
        if name not in content:
            raise refuse(f"{name} is missing")
    return checked(Evaluation, content, refuse)


def _std(returns: list[float]) -> float:
    return float(np.std(returns, ddof=1)) if len(returns) > 1 else 0.0


def student(values: Sequence[float]) -> tuple[float, float] | None:
    """Student's 95 % interval of the mean; None for a single value."""
    if len(values) < 2:
        return None
    mean, error = float(np.mean(values)), float(stats.sem(values))
    if error == 0.0:
        return mean, mean
    low, high = stats.t.interval(0.95, len(values) - 1, loc=mean, scale=error)
    return float(low), float(high)


def milliseconds(values: list[float]) -> Milliseconds:
    """Median and 95th percentile."""
    median, p95 = np.quantile(values, (0.5, 0.95)) if values else (0.0, 0.0)
    return Milliseconds(median=float(median), p95=float(p95))
