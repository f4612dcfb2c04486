"""What the core's values may be, beyond their types."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning_wm.config.schema import Config
from lightning_wm.errors import hint


@dataclass(frozen=True)
class AtLeast:
    """A finite number with a lower bound, and perhaps an upper one."""

    low: float
    what: str
    """Words for a value that fits."""
    example: float
    high: float = math.inf

    def fault(self, key: str, value: Any) -> str | None:
        """The message for a value out of range, or None."""
        if value is None or (math.isfinite(value) and self.low <= value <= self.high):
            return None
        return f"{key}={value}: expected {self.what}; type e.g. {key}={self.example}"


@dataclass(frozen=True)
class OneOf:
    """One of a few words."""

    words: tuple[str, ...]

    def fault(self, key: str, value: Any) -> str | None:
        """The message for another word, or None."""
        if value in self.words:
            return None
        return f"{key}={value}: expected one of {', '.join(self.words)}{hint(value, self.words)}"


@dataclass(frozen=True)
class TaskName:
    """A suite and a task."""

    def fault(self, key: str, value: Any) -> str | None:
        """The message for a name without a suite, or None."""
        suite, slash, task = value.partition("/")
        if suite and slash and task:
            return None
        return f"{key}={value}: expected dmc/<task> or gym/<id>; type e.g. {key}=dmc/{value or 'cartpole_swingup'}"


Range = AtLeast | OneOf | TaskName
_PRECISIONS = ("32-true", "bf16-mixed", "64-true", "16-mixed", "bf16-true", "16-true", "32", "64", "16", "bf16")


def _some(what: str, example: float) -> AtLeast:
    return AtLeast(1, f"a positive number of {what}", example)


def _any(what: str, example: float) -> AtLeast:
    return AtLeast(0, f"0 or more {what}", example)


RANGES: Mapping[str, Range] = {
    "seed": AtLeast(0, "a seed of 0 or more", 0),
    "env_steps": _some("env steps", 100000),
    "task.name": TaskName(),
    "task.action_repeat": _some("env steps per action", 2),
    "task.max_decisions": _some("decisions (or null)", 100),
    "observation.kind": OneOf(("state", "pixels", "both")),
    "observation.render.quality": OneOf(("fast", "standard")),
    "observation.render.size": AtLeast(1, "1 to 4096 pixels", 64, 4096),
    "observation.render.camera": AtLeast(-1, "a camera's index (-1 for the free camera)", 0),
    "replay.capacity": _some("transitions", 100000),
    "replay.batch": _some("sequences", 16),
    "replay.length": AtLeast(2, "2 or more agent steps", 50),
    "rollout.seed_episodes": _any("episodes", 5),
    "rollout.hold": _some("decisions", 1),
    "rollout.env_steps": _some("env steps", 1000),
    "rollout.environments": _some("environments", 1),
    "rollout.noise": _any("(a standard deviation)", 0.3),
    "rollout.stop_noise_after": _any("env steps (or null)", 50000),
    "rollout.failures": _any("episodes", 3),
    "rollout.failure_window": _any("seconds", 300),
    "trainer.updates_per_turn": _some("updates", 100),
    "trainer.pretrain_updates": _any("updates", 0),
    "trainer.accelerator": OneOf(("auto", "cpu", "gpu", "cuda")),
    "trainer.devices": _some("ranks", 1),
    "trainer.precision": OneOf(_PRECISIONS),
    "trainer.threads": _some("threads (or null)", 1),
    "evaluation.every": _any("env steps", 10000),
    "evaluation.episodes": _some("episodes", 5),
    "evaluation.final_episodes": _some("episodes", 10),
    "evaluation.environments": _some("environments", 10),
    "evaluation.seed": AtLeast(0, "a seed of 0 or more", 10000),
    "evaluation.final_seed": AtLeast(0, "a seed of 0 or more", 20000),
    "logging.every": _some("updates", 20),
    "resume": OneOf(("auto", "never")),
}


def across(config: Config) -> list[str]:
    """Faults of values that do not fit each other."""
    faults = []
    if config.replay.length > config.replay.capacity:
        faults.append(
            f"replay.length={config.replay.length}: longer than replay.capacity={config.replay.capacity}; "
            f"expected a window that fits; type e.g. replay.capacity={10 * config.replay.length}"
        )
    return faults
