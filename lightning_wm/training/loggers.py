"""Where metrics go: metrics.jsonl, one JSON object a line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from lightning_wm.runs.checkpoint import Counters
from lightning_wm.runs.disk import append

COUNTERS = ("env_steps", "agent_steps", "episodes")


def measured(metrics: Mapping[str, float]) -> dict[str, float]:
    """What was measured, without the counters that Lightning adds to every update, logged or not."""
    return {name: value for name, value in metrics.items() if name not in ("epoch", "step")}


class JSONLinesLogger(Logger):
    """Appends to metrics.jsonl; every line begins with the run's counters.

    Args:
        path: the file.
        counters: of the run.
    """

    def __init__(self, path: Path, counters: Counters) -> None:
        super().__init__()
        self.path, self.counters = path, counters

    @property
    def name(self) -> str:
        return "jsonl"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: object, *args: object, **kwargs: object) -> None:
        """Nothing to do: config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write one line; values that are not finite become null."""
        line: dict[str, Any] = {"updates": step or 0, **{name: getattr(self.counters, name) for name in COUNTERS}}
        line["seconds"] = round(self.counters.seconds, 3)
        values = measured(metrics)
        if not values:
            return
        line |= {name: float(value) if math.isfinite(value) else None for name, value in values.items()}
        append(self.path, json.dumps(line) + "\n")
