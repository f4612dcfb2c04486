"""One decision as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from lightning_wm.inspection import Inspection
from lightning_wm.inspection.decision import Decision
from lightning_wm.inspection.future import Future
from lightning_wm.inspection.landscape import Cut, Landscape
from lightning_wm.planning.trace import Scored
from lightning_wm.runs.disk import write_atomically

LINES = 32
"""Candidates up to which each has a line; more are shown by their quantiles."""
VECTORS = 6
"""Entries of a state vector that are shown: those that move most."""
FRAMES = 9
"""Pictures that are shown of each side."""


def draw(inspection: Inspection, picture: Path, title: str) -> None:
    """Write the PNG: the search above, the score around the plan in the middle, the future below."""
    decision, landscape, future = inspection.decision, inspection.landscape, inspection.future
    rows = [4.0, *([2.6] if "pixels" in future.real else []), *([2.6] if "observation" in future.real else [])]
    figure = Figure(figsize=(15, 3.4 + sum(rows)), layout="constrained")
    figure.suptitle(title)
    grid = figure.subfigures(1 + len(rows), 1, squeeze=False, height_ratios=[3.4, *rows])
    parts: list[SubFigure] = list(grid[:, 0])
    top = parts[0].subplots(1, 4, width_ratios=[1.5, 1, 1, 1])
    _scores(top[0], decision)
    _steps(top[1], decision.plan, "executed plan", "action")
    _gradient(top[2], landscape)
    _rewards(top[3], future)
    _landscape(parts[1], decision, landscape)
    below = iter(parts[2:])
    if "pixels" in future.real:
        _frames(next(below), future)
    if "observation" in future.real:
        _vectors(next(below), future)
    write_atomically(picture, lambda file: figure.savefig(file, format="png", dpi=100))


def _shown(score: Tensor) -> np.ndarray[Any, Any]:
    """Scores with gaps where they are not finite."""
    return torch.where(score.isfinite(), score, torch.nan).double().cpu().numpy()


def _scores(axis: Axes, decision: Decision) -> None:
    scored = [scoring for scoring in decision.scored if scoring.noise is None]  # others are no candidates' search
    if len(scored) > 1 and scored[-1].score.shape[1] == 1 < scored[-2].score.shape[1]:
        scored = scored[:-1]  # the executed mean, which has its own line
    for first, last in _runs(scored):
        values = np.stack([_shown(scoring.score[0]) for scoring in scored[first:last]])  # I, N
        x = np.arange(first, last)
        if values.shape[1] <= LINES:
            axis.plot(x, values, ".-" if scored[first].climbed else ".", color="tab:blue", alpha=0.5, linewidth=1)
            continue
        known = np.isfinite(values).any(1)
        x, values = np.flatnonzero(known) + first, values[known]
        if not len(x):
            continue
        low, middle, high = np.nanquantile(values, (0.1, 0.5, 0.9), axis=1)
        axis.fill_between(x, low, high, color="tab:blue", alpha=0.25, label="10 % to 90 %")
        axis.plot(x, middle, color="tab:blue", label="median")
        axis.plot(x, np.nanmax(values, axis=1), ".-", color="tab:green", label="best")
    if np.isfinite(decision.score):
        axis.axhline(decision.score, color="tab:red", linestyle="--", linewidth=1, label="executed")
    number = "" if not scored else f" ({', '.join(dict.fromkeys(str(scoring.score.shape[1]) for scoring in scored))})"
    _label(axis, f"scores of the candidates{number}", "iteration", "predicted score")


def _runs(scored: list[Scored]) -> list[tuple[int, int]]:
    """Ranges of scorings that belong together: one number of candidates, and climbing or not."""
    edges = [0]
    for i in range(1, len(scored)):
        before, now = scored[i - 1], scored[i]
        if before.score.shape != now.score.shape or (now.climbed and not before.climbed):
            edges.append(i)
    return list(zip(edges, [*edges[1:], len(scored)], strict=True)) if scored else []


def _steps(axis: Axes, values: Tensor, title: str, name: str) -> None:
    for index, line in enumerate(values.cpu().unbind(1)):
        axis.plot(range(len(values)), line, ".-", label=f"{name} {index}")
    axis.set_ylim(-1.05, 1.05)
    _label(axis, title, "step of the plan", name, values.shape[1] <= VECTORS)


def _gradient(axis: Axes, landscape: Landscape) -> None:
    for label, gradient in (("best start", landscape.gradient_start), ("executed plan", landscape.gradient_end)):
        if gradient is not None:
            axis.plot(range(len(gradient)), gradient.norm(dim=1).cpu(), ".-", label=label)
    if landscape.gradient_start is None:
        axis.text(0.5, 0.5, "this model has no gradient", ha="center", transform=axis.transAxes)
    axis.set_ylim(bottom=0)
    _label(axis, "norm of the score's gradient", "step of the plan", "score per action")


def _rewards(axis: Axes, future: Future) -> None:
    steps = len(future.rewards)
    sums = future.predicted[:steps].sum(), future.rewards.sum()
    axis.plot(range(1, len(future.predicted) + 1), future.predicted, ".--", label=f"imagined, sum {sums[0]:.2f}")
    axis.plot(range(1, steps + 1), future.rewards, ".-", color="black", label=f"real, sum {sums[1]:.2f}")
    _label(axis, "reward, the plan in open loop", "step", "reward")


def _landscape(part: SubFigure, decision: Decision, landscape: Landscape) -> None:
    axes = part.subplots(1, 3)
    leading = "spread of the candidates" if landscape.curvature is None else "curvature"
    _cut(axes[0], decision, landscape.random, "score, two random directions")
    _cut(axes[1], decision, landscape.leading, f"score, the two directions of most {leading}")
    for name, style, direction in zip(("first", "second"), "-:", landscape.leading.directions.cpu(), strict=True):
        for index, line in enumerate(direction.unbind(1)):
            axes[2].plot(range(len(line)), line, style, color=f"C{index % 10}", label=f"{name}, action {index}")
    values = [] if landscape.curvature is None else [f"{value:.3g}" for value in landscape.curvature[:2].tolist()]
    title = "those two directions" + (f" (curvature {', '.join(values)})" if values else "")
    _label(axes[2], title, "step of the plan", "share of the action", decision.plan.shape[1] <= 3)


def _cut(axis: Axes, decision: Decision, cut: Cut, title: str) -> None:
    scores, x = _shown(cut.scores), cut.axis.cpu().numpy()
    if np.isfinite(scores).any():
        shades = axis.pcolormesh(x, x, scores, shading="nearest", cmap="viridis")
        axis.figure.colorbar(shades, ax=axis)
        if np.isfinite(scores).all() and scores.max() > scores.min():
            axis.contour(x, x, scores, levels=8, colors="white", linewidths=0.5)
    candidates = decision.candidates()
    if candidates is not None:
        shadow = _project(candidates - decision.plan, cut.directions).cpu()
        inside = shadow[(shadow.abs() <= 1).all(1)][:200]
        axis.plot(inside[:, 0], inside[:, 1], "o", color="white", markeredgecolor="black", markeredgewidth=0.5,
                  markersize=4, label="candidates at the end")  # fmt: skip
    axis.plot([0], [0], "r+", markersize=12, markeredgewidth=2, label="executed")
    axis.set_xlim(-1, 1)
    axis.set_ylim(-1, 1)
    _label(axis, title, "first direction", "second direction")
    axis.grid(visible=False)


def _project(moves: Tensor, directions: Tensor) -> Tensor:
    """Coordinates `[N, 2]` of moves `[N, H, A]` on a plane, what lies off the plane left out."""
    flat = directions.flatten(1)
    return moves.flatten(1) @ flat.T / flat.square().sum(1).clamp(min=1e-12)


def _vectors(part: SubFigure, future: Future) -> None:
    part.suptitle("observations: imagined from the decision on, and what then happened in open loop", fontsize="medium")
    real, imagined = future.real["observation"], future.imagined.get("observation")
    order = real.std(0, correction=0).argsort(descending=True)[:VECTORS].sort().values
    for axis, index in zip(np.ravel(part.subplots(1, len(order))), order.tolist(), strict=True):
        if imagined is not None:
            axis.plot(range(len(imagined)), imagined[:, index], ".--", label="imagined")
        axis.plot(range(len(real)), real[:, index], ".-", color="black", label="real")
        _label(axis, f"observation {index}", "step", "", index == order[0])


def _frames(part: SubFigure, future: Future) -> None:
    real, imagined = future.real["pixels"], future.imagined.get("pixels")
    title = "imagined from the decision on (above), and what then happened in open loop (below)"
    if imagined is None:
        title = "what then happened in open loop; the model has no decoder to show what it imagined"
    part.suptitle(f"pixels: {title}", fontsize="medium")
    steps = np.unique(np.linspace(0, len(real) - 1, FRAMES).round().astype(int)).tolist()
    sides = [pixels for pixels in (imagined, real) if pixels is not None]
    grid = np.reshape(part.subplots(len(sides), len(steps)), (len(sides), len(steps)))
    for axes, pixels in zip(grid, sides, strict=True):
        for axis, step in zip(axes, steps, strict=True):
            axis.imshow(pixels[step].permute(1, 2, 0).numpy())
            axis.axis("off")
            if axes is grid[0]:
                axis.set_title(f"step {step}", fontsize="small")


def _label(axis: Axes, title: str, x: str, y: str, legend: bool = True) -> None:
    axis.set_title(title, fontsize="medium")
    axis.set(xlabel=x, ylabel=y)
    if "step" in x or x == "iteration":
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)
    if legend and axis.get_legend_handles_labels()[1]:
        axis.legend(fontsize="x-small", loc="best")  # named: the default warns where drawing is slow
