"""A report to look at: `index.html` in one file, `report.md` with figures as PNG and SVG."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lightning_wm.errors import UserError, printable
from lightning_wm.playing.results import decimal, interval
from lightning_wm.report.methods import Method, Panel, curves, methods, panels, shared
from lightning_wm.report.published import scores as published_scores
from lightning_wm.report.rows import CurveRow, EvaluationRow
from lightning_wm.report.statistics import Estimate, difference, improvement, iqm, stratified
from lightning_wm.runs.directory import RunDirectory
from lightning_wm.runs.files import write_text

WIDTH = 560
"""Of figures, in pixels."""
STYLE = """\
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:0 1rem;color:#222}
h1,h2,h3{line-height:1.2}section{margin:2.5rem 0}.wide{overflow-x:auto}.chart{width:100%}
table{border-collapse:collapse;font-size:.875rem}
th,td{padding:.25rem .6rem;border-bottom:1px solid #ddd;text-align:left}
td.n{text-align:right;font-variant-numeric:tabular-nums}video,img{max-width:100%}
"""


@dataclass
class Section:
    """A heading with what stands below it, in order: text, tables and charts."""

    title: str
    parts: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Table:
    """Cells as text; a column is aligned by whether its cells begin with a digit or a sign."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Chart:
    """An Altair chart and the name of its files."""

    name: str
    chart: Any


@dataclass(frozen=True)
class Film:
    """A video or a picture of a run."""

    caption: str
    path: Path


def sections(
    evaluations: Sequence[EvaluationRow], points: Sequence[CurveRow], runs: Iterable[Path] = ()
) -> list[Section]:
    """What a report shows of these rows, and of these run directories' films and pictures."""
    from lightning_wm.report import charts

    found = methods(evaluations)
    shown = [_panel(panel, [method for method in found if method.panel == panel], points) for panel in panels(found)]
    together = _together(found)
    if any(method.milliseconds > 0 for method in found):
        shown.append(Section("Return and time of a decision", [Chart("cost", charts.cost(found))]))
    films = [film for run in runs for film in _films(run)]
    return [*together, *shown, *([Section("Episodes and predictions", films)] if films else []), _settings(evaluations)]


def _panel(panel: Panel, found: Sequence[Method], points: Sequence[CurveRow]) -> Section:
    from lightning_wm.report import charts

    section, learned = Section(str(panel)), curves(points, panel.task, panel.observation)
    marks = published_scores(panel.task, panel.observation, panel.env_steps)
    if learned:
        name = f"learning-{panel.task.replace('/', '-')}-{panel.observation}-{panel.env_steps}"
        section.parts.append(Chart(name, charts.learning(learned, marks)))
    section.parts.append(Table(_RETURNS, [_returns(method) for method in found]))
    if any(len(method.series) < 2 for method in found):
        section.parts.append("A method with one training seed has no interval over training seeds.")
    pairs = _pairs(found)
    if pairs:
        section.parts += ["Paired by episode, on the same checkpoints:", Table(_PAIRS, pairs)]
    strong = [[decimal(mark.mean), mark.method, mark.whose] for mark in marks[:5]]
    if strong:
        section.parts.append(Table(("published", "method", "whose runs"), strong))
    return section


_RETURNS = ("method", "training seeds", "mean return", "95 % interval over seeds", "IQM of episodes", "ms per decision")
_PAIRS = ("planner", "to", "difference", "95 % interval", "verdict")


def _returns(method: Method) -> list[str]:
    def mean(scores: Sequence[Any]) -> float:
        return float(scores[0].mean())

    over = stratified(mean, [method.scores])
    episodes = iqm([np.asarray(series.returns) for series in method.series])
    seeds = ", ".join(decimal(float(score)) for score in method.scores)
    spread = interval(over.low, over.high)
    return [method.name, seeds, decimal(over.value), spread, decimal(episodes), f"{method.milliseconds:.2f}"]


def _pairs(found: Sequence[Method]) -> list[list[str]]:
    """Every method against the best one of the same agent, where both have played the same episodes and as many."""
    rows = []
    for index, first in enumerate(found):
        arm = first.name.partition(": ")[0]
        if any(other.name.startswith(f"{arm}: ") for other in found[:index]):
            continue
        for other in found[index + 1 :]:
            if not other.name.startswith(f"{arm}: "):
                continue
            mine, its = _same_episodes(first, other)
            if mine:
                apart = difference(mine, its)
                spread = interval(apart.low, apart.high)
                rows.append([other.name, first.name, decimal(apart.mean, "+"), spread, apart.verdict])
    return rows


def _same_episodes(first: Method, other: Method) -> tuple[list[float], list[float]]:
    mine: list[float] = []
    its: list[float] = []
    for series in first.series:
        for twin in other.series:
            if series.group == twin.group and len(series.returns) == len(twin.returns):
                mine += series.returns
                its += twin.returns
    return mine, its


def _together(found: Sequence[Method]) -> list[Section]:
    """Over all tasks, for the methods that have all of them."""
    from lightning_wm.report import charts

    scores = shared(found)
    tasks = len(next(iter(scores.values()), []))
    if len(scores) < 1 or tasks < 2:
        return []
    table = Table(("method", "IQM of runs", "95 % interval"), [_aggregate(name, of) for name, of in scores.items()])
    section = Section(f"All {tasks} tasks", ["Scores are returns over 1000.", table])
    section.parts.append(Chart("profiles", charts.profiles(scores)))
    names = list(scores)
    better = [
        [name, other, _share(stratified(improvement, scores[name], scores[other]))]
        for index, name in enumerate(names)
        for other in names[index + 1 :]
    ]
    if better:
        section.parts += ["How likely a run of the first is better than one of the other on the same task:"]
        section.parts.append(Table(("first", "other", "probability"), better))
    return [section]


def _aggregate(name: str, scores: Sequence[Any]) -> list[str]:
    over = stratified(iqm, scores)
    spread = "-" if over.low is None or over.high is None else f"{over.low:.3f} to {over.high:.3f}"
    return [name, f"{over.value:.3f}", spread]


def _share(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.2f}"
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"


def _settings(evaluations: Sequence[EvaluationRow]) -> Section:
    runs = dict.fromkeys((row.recipe, row.agent, row.run_settings, row.revision) for row in evaluations)
    rows = [[recipe, agent, changed.removeprefix("{}"), revision] for recipe, agent, changed, revision in runs]
    return Section("What was changed", [Table(("recipe", "agent", "changed on the command line", "revision"), rows)])


def _films(path: Path) -> list[Film]:
    run = RunDirectory(path)
    shown = [run.newest_film(), run.newest_prediction(), *sorted((run.path / "inspect").glob("*.png"))[-1:]]
    return [Film(f"{run.path.name}: {film.stem}", film) for film in shown if film]


# ---- writing


def write(out: Path, shown: Sequence[Section]) -> list[Path]:
    """Write `index.html`, `report.md` and `figures/` with what `require` asks for; returns the two files.

    Raises:
        DiskError: something cannot be written.
    """
    for section in shown:
        for part in section.parts:
            if isinstance(part, Chart):
                _draw(part, out / "figures")
    page, text = out / "index.html", out / "report.md"
    write_text(page, _html(shown))
    write_text(text, _markdown(shown))
    return [page, text]


def require() -> None:
    """Raises:
    UserError: Altair or vl-convert is not installed.
    """
    try:
        import altair  # noqa: F401
        import vl_convert  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"it needs {error.name}, which is not installed; type `pip install 'lightning_wm[report]'`, or page=false"
        ) from error


def _draw(part: Chart, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    chart = part.chart.properties(width=WIDTH)
    chart.save(folder / f"{part.name}.png", scale_factor=2)
    chart.save(folder / f"{part.name}.svg")


def _html(shown: Sequence[Section]) -> str:
    body, specs = [], {}
    for number, section in enumerate(shown):
        body.append(f"<section><h2>{_escaped(section.title)}</h2>")
        for index, part in enumerate(section.parts):
            name = f"chart-{number}-{index}"
            if isinstance(part, Chart):
                specs[name] = part.chart.to_dict()
            body.append(_element(part, name))
        body.append("</section>")
    draw = "".join(f"vegaEmbed('#{name}',{_script(spec)},{{actions:false}});" for name, spec in specs.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><title>lightning_wm report</title>'
        f'<link rel="icon" href="data:,"><style>{STYLE}</style></head><body><h1>Results</h1>{"".join(body)}'
        f"<script>{_library()}</script><script>{draw}</script></body></html>\n"
    )


def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed in one piece, with all that they need."""
    import vl_convert

    bundle: Any = vl_convert.javascript_bundle  # its type stub lacks the default
    return str(bundle())


def _script(spec: dict[str, Any]) -> str:
    """JSON that cannot end the script that it stands in."""
    return json.dumps(spec, separators=(",", ":")).replace("<", "\\u003c")


def _element(part: object, name: str) -> str:
    if isinstance(part, Chart):
        return f'<div class="chart" id="{name}"></div>'
    if isinstance(part, Table):
        head = "".join(f"<th>{_escaped(column)}</th>" for column in part.columns)
        rows = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in part.rows)
        return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    if isinstance(part, Film):
        return _figure(part)
    return f"<p>{_escaped(str(part))}</p>"


def _cell(text: str) -> str:
    kind = ' class="n"' if text[:1].isdigit() or text[:1] in "+-" else ""
    return f"<td{kind}>{_escaped(text)}</td>"


def _figure(film: Film) -> str:
    content = base64.b64encode(film.path.read_bytes()).decode()
    if film.path.suffix == ".png":
        shown = f'<img alt="{_escaped(film.caption)}" src="data:image/png;base64,{content}">'
    else:
        shown = f'<video controls muted playsinline src="data:video/mp4;base64,{content}"></video>'
    return f"<figure>{shown}<figcaption>{_escaped(film.caption)}</figcaption></figure>"


def _escaped(text: str) -> str:
    return html.escape(printable(text))


def _markdown(shown: Sequence[Section]) -> str:
    lines = ["# Results", ""]
    for section in shown:
        lines += [f"## {_plain(section.title)}", ""]
        for part in section.parts:
            lines += [*_text(part), ""]
    return "\n".join(lines)


def _text(part: object) -> list[str]:
    if isinstance(part, Chart):
        return [f"![{part.name}](figures/{part.name}.svg)"]
    if isinstance(part, Table):
        rows = [part.columns, ["---"] * len(part.columns), *part.rows]
        return [f"| {' | '.join(map(_plain, row))} |" for row in rows]
    if isinstance(part, Film):
        return [f"[{_plain(part.caption)}](<{part.path.resolve()}>)"]
    return [_plain(str(part))]


def _plain(text: str) -> str:
    return html.escape(printable(text), quote=False).replace("|", "\\|")
