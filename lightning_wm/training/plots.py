"""Pictures of runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning_wm.runs.disk import write_atomically


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; a last line cut short by a crash is left out, and so is what fit did not write."""
    lines = []
    for text in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            break
        if isinstance(line, dict):
            lines.append(line)
    return lines


def series(lines: list[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Env steps and values of one metric."""
    pairs: list[tuple[Any, Any]] = [(line.get("env_steps"), line.get(name)) for line in lines]
    points = [pair for pair in pairs if all(type(value) in (int, float) for value in pair)]
    return [steps for steps, _ in points], [value for _, value in points]


def learning_curve(metrics: Path, picture: Path, title: str) -> None:
    """Draw returns, losses and the open-loop error over env steps as a PNG."""
    from matplotlib.figure import Figure

    lines = read_metrics(metrics)
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.plot(*series(lines, "rollout/return"), ".", alpha=0.5, label="collected, with noise")
    left.plot(*series(lines, "evaluation/return"), "o-", label="evaluation")
    left.set(title=title, ylabel="return")
    for name in ("reconstruction", "reward", "kl"):
        middle.plot(*series(lines, f"train/loss/{name}"), label=name)
    middle.set(title="losses", yscale="log")
    right.plot(*series(lines, "model/open_loop_error"), label="open-loop error")
    right.set(title="prediction without observations", yscale="log")
    for axis in (left, middle, right):
        axis.set_xlabel("env steps")
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize="small")
    write_atomically(picture, lambda file: figure.savefig(file, format="png", dpi=120))
