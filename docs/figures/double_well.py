"""Draws double_well.png: where planners end when the gradient points to the lower of two peaks.

From the root of a checkout: `python -m docs.figures.double_well`. The model is exact and costs nothing, so what fails
here is the search alone. Every point is one draw of a planner's generator; nothing is averaged.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from lightning_wm.registry import build, lookup
from tests.problems import DoubleWell, generators

DRAWS = 12
DECISIONS = 12
HORIZONS = (2, 3, 4, 5, 6, 8, 12)
PLANNERS = ("grad_mpc", "cem_gd", "mppi", "icem", "cem", "random_shooting")
SINGLE = {"candidates": 1, "init_std": 1e-3, "step_size": 0.1}
"""One candidate from almost zero actions: where the gradient leads."""
SPREAD = {"candidates": 32, "init_std": 1.0, "colour": 2.0, "execute": "best"}
"""Many smooth candidates far apart."""


def planner(name: str, **changes: Any) -> Any:
    """A planner with its default settings but for the changes."""
    return build("planner", replace(lookup("planner", name).Config(), **changes))


def positions(one: Any) -> Tensor:
    """Where the plans lead, `[E, H+1]`, the start included."""
    well = DoubleWell(DRAWS)
    actions = one.plan(well.problem, well.state, None, generators(DRAWS))["actions"][..., 0]
    return torch.cat([well.state["x"], well.state["x"] + 0.4 * actions.cumsum(1)], 1)


def closed_loop(one: Any) -> Tensor:
    """Where E environments are after `DECISIONS` decisions, each planned anew, `[E]`."""
    well = DoubleWell(DRAWS)
    state, memory = well.state, None
    for decision in range(DECISIONS):
        plan = one.plan(well.problem, state, memory, generators(DRAWS, decision))
        state, memory = well.imagine(state, plan["action"]), plan["memory"]
    return state["x"][:, 0]


def scatter(axis: Axes, column: float, values: Tensor, **style: Any) -> None:
    """Points of one column, moved apart a little."""
    spread = torch.linspace(-0.18, 0.18, len(values))
    axis.plot(column + spread, values, "o", markersize=4, alpha=0.7, **style)


def draw_reward(axis: Axes) -> None:
    """The reward of a position, lying on its side."""
    well = DoubleWell(1)
    x = torch.linspace(-1.2, 2.3, 400, dtype=torch.float64)
    axis.plot(well.reward({"x": x[:, None]}), x, color="black")
    axis.axhline(float(well.state["x"][0]), color="black", linestyle=":", linewidth=1)
    axis.set(title="reward", xlabel="reward of a step", ylabel="position (dotted: the start)")


def draw_plans(axis: Axes) -> None:
    """One plan each: the gradient's own way, several smooth candidates, samples."""
    shown = {
        "grad_mpc, one candidate from zero": planner("grad_mpc", **SINGLE),
        "grad_mpc, 32 smooth candidates": planner("grad_mpc", **SPREAD),
        "cem": planner("cem"),
    }
    for label, one in shown.items():
        axis.plot(positions(one)[0], label=label)
    axis.set(title="one plan", xlabel="imagined steps")
    axis.legend(fontsize="small", loc="upper left", bbox_to_anchor=(0.0, -0.2))


def draw_ends(axis: Axes) -> None:
    """Where each planner's plan ends."""
    columns = {"one candidate": planner("grad_mpc", **SINGLE), **{name: planner(name) for name in PLANNERS}}
    for column, one in enumerate(columns.values()):
        scatter(axis, column, positions(one)[:, -1], color="tab:blue" if column else "tab:gray")
    axis.set_xticks(range(len(columns)), list(columns), rotation=90)
    axis.set(title=f"end of the plan, default settings, {DRAWS} draws")


def draw_horizons(axis: Axes) -> None:
    """Where planning at every decision ends, by horizon."""
    for offset, name in ((-0.2, "grad_mpc"), (0.2, "cem")):
        style = {"color": "tab:blue" if name == "grad_mpc" else "tab:green"}
        for column, horizon in enumerate(HORIZONS):
            scatter(axis, column + offset, closed_loop(planner(name, horizon=horizon)), **style)
        axis.plot([], [], "o", label=name, **style)
    axis.set_xticks(range(len(HORIZONS)), [str(horizon) for horizon in HORIZONS])
    axis.set(title=f"after {DECISIONS} decisions, by horizon", xlabel="horizon H")
    axis.legend(fontsize="small", loc="center left")


def main() -> None:
    """Draw the picture beside this file."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    axes = figure.subplots(1, 4, sharey=True, width_ratios=[1, 1.6, 2, 2])
    for draw, axis in zip((draw_reward, draw_plans, draw_ends, draw_horizons), axes, strict=True):
        draw(axis)
        axis.grid(alpha=0.3)
        for peak in (-0.5, 1.5):
            axis.axhline(peak, color="tab:gray", linestyle="--", linewidth=1, zorder=0)
    axes[0].set_ylim(-1.2, 2.3)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main()
