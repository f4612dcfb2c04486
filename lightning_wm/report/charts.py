"""A report's pictures, as Altair charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np

from lightning_wm.report.methods import Curve, Method
from lightning_wm.report.published import Published
from lightning_wm.report.statistics import profile

HEIGHT = 260
POINTS = 200
"""Of a learning curve at most; more cannot be told apart on a page."""
NAMED = 6
"""Published numbers that a panel marks at most."""


def learning(curves: Sequence[Curve], marks: Sequence[Published]) -> Any:
    """Mean return over training seeds with the range of seeds as a band, and published numbers as marks."""
    steps = _grid(curves)
    lines = [point for curve in curves for point in _mean(curve, steps)]
    x = alt.X("env_steps:Q", title="env steps", axis=alt.Axis(format="~s"))
    colour = alt.Color("arm:N", title=None, legend=alt.Legend(orient="bottom", columns=1, labelLimit=320))
    base = alt.Chart(_data(lines))
    band = base.mark_area(opacity=0.2).encode(x=x, y=alt.Y("low:Q", title="return"), y2="high:Q", color=colour)
    tips = ["arm:N", "env_steps:Q", alt.Tooltip("mean:Q", format=".1f"), "seeds:Q"]
    line = base.mark_line(point=len(steps) <= 30).encode(x=x, y="mean:Q", color=colour, tooltip=tips)
    layers = [band, line]
    if marks:
        layers.append(_marks(marks))
    return alt.layer(*layers).properties(width="container", height=HEIGHT)


def _marks(marks: Sequence[Published]) -> Any:
    shown = [
        {
            "env_steps": mark.env_steps,
            "mean": mark.mean,
            "method": mark.method,
            "source": mark.source,
        }
        for mark in marks[:NAMED]
    ]
    chart = alt.Chart(_data(shown)).mark_point(shape="diamond", size=70, filled=True, color="black")
    tips = ["method:N", alt.Tooltip("mean:Q", format=".1f"), "source:N"]
    return chart.encode(x="env_steps:Q", y="mean:Q", tooltip=tips)


def _grid(curves: Sequence[Curve]) -> list[int]:
    """Env steps that the curves of a panel are read at: those of all runs, thinned."""
    steps = sorted({point.env_steps for curve in curves for run in curve.runs for point in run})
    if len(steps) <= POINTS:
        return steps
    return [steps[index] for index in np.linspace(0, len(steps) - 1, POINTS).round().astype(int)]


def _mean(curve: Curve, steps: Sequence[int]) -> list[dict[str, object]]:
    lines = [
        np.interp(steps, [p.env_steps for p in run], [p.value for p in run], left=np.nan, right=np.nan)
        for run in curve.runs
        if run
    ]
    points: list[dict[str, object]] = []
    for index, step in enumerate(steps):
        values = np.array([line[index] for line in lines])
        values = values[np.isfinite(values)]
        if len(values):
            spread = {"mean": float(values.mean()), "low": float(values.min()), "high": float(values.max())}
            points.append({"arm": curve.name, "env_steps": step, **spread, "seeds": len(values)})
    return points


def cost(methods: Sequence[Method]) -> Any:
    """Return over the time of a decision, a point a method and task."""
    points = [
        {
            "method": method.name,
            "task": str(method.panel),
            "milliseconds": method.milliseconds,
            "return": float(method.scores.mean()),
        }
        for method in methods
        if method.milliseconds > 0
    ]
    tips = ["method:N", "task:N", alt.Tooltip("milliseconds:Q", format=".2f"), alt.Tooltip("return:Q", format=".1f")]
    chart = alt.Chart(_data(points)).mark_circle(size=80)
    return chart.encode(
        x=alt.X("milliseconds:Q", title="ms per decision", scale=alt.Scale(type="log")),
        y=alt.Y("return:Q"),
        color=alt.Color("task:N", title=None, legend=alt.Legend(orient="bottom", columns=1, labelLimit=320)),
        tooltip=tips,
    ).properties(width="container", height=HEIGHT)


def profiles(scores: dict[str, list[Any]]) -> Any:
    """Share of runs above each normalised score, a line a method."""
    thresholds = np.linspace(0.0, 1.0, 51)
    points = [
        {"method": name, "score": float(at), "share": float(share)}
        for name, of in scores.items()
        for at, share in zip(thresholds, profile(of, thresholds), strict=True)
    ]
    chart = alt.Chart(_data(points)).mark_line()
    return chart.encode(
        x=alt.X("score:Q", title="score (return / 1000)"),
        y=alt.Y("share:Q", title="share of runs above it"),
        color=alt.Color("method:N", title=None, legend=alt.Legend(orient="bottom", columns=1, labelLimit=320)),
        tooltip=["method:N", alt.Tooltip("score:Q", format=".2f"), alt.Tooltip("share:Q", format=".2f")],
    ).properties(width="container", height=HEIGHT)


def _data(values: Sequence[Mapping[str, object]]) -> Any:
    return alt.InlineData(values=[dict(value) for value in values])
