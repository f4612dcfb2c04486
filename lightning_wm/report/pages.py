"""Tables inside Markdown pages that are written from the results.

A page marks a table with a comment on the line above it, a kind of table and the rows that it shows:

    <!-- results: planners recipe=state/walker_walk run_seed=0 -->
    | planner | ...
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from lightning_wm.errors import UserError
from lightning_wm.playing.results import decimal, interval, paired, written
from lightning_wm.report import published
from lightning_wm.report.rows import CurveRow, EvaluationRow
from lightning_wm.report.tables import Level, Series, joined, labels, levels, select, training

T = TypeVar("T")
MARK = re.compile(r"(<!-- results: (\w+)((?: [\w.]+=\S+)*) -->\n)((?:\|.*\n?)*)")


@dataclass(frozen=True)
class Results:
    """What tables are made of."""

    evaluations: Sequence[EvaluationRow]
    curves: Sequence[CurveRow]


def filled(page: str, results: Results) -> str:
    """A page's text with every marked table written anew; what is not marked stays.

    Raises:
        UserError: a mark names no kind of table, or no rows.
    """

    def table(mark: re.Match[str]) -> str:
        head, kind, words, _ = mark.groups()
        if kind not in KINDS:
            raise UserError(f"there is no table {kind!r}; expected one of {', '.join(KINDS)} after '<!-- results:'")
        where = dict(word.split("=", 1) for word in words.split())
        first = where.pop("first", "")
        rows = select(results.evaluations, where)
        if not rows:
            raise UserError(f"no results for {head.strip()}; add them with python -m lightning_wm.report runs=…")
        return head + KINDS[kind](rows, results.curves, first)

    return MARK.sub(table, page)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    head, *body = (" | ".join(cell.replace("|", "\\|") for cell in row) for row in (columns, *rows))
    rule = "|".join(["---"] * len(columns))
    return "".join([f"| {head} |\n", f"|{rule}|\n", *(f"| {line} |\n" for line in body)])


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _in_training(curves: Sequence[CurveRow], row: EvaluationRow) -> str:
    return ", ".join(f"{steps / 1000:g}k: {value:.0f}" for steps, value in training(curves, row))


def _seeds(rows: Sequence[EvaluationRow], curves: Sequence[CurveRow], first: str) -> str:
    """A row a training seed."""
    cells = [
        [
            str(series.row.run_seed),
            decimal(series.mean),
            interval(*series.interval),
            f"{min(series.returns):.0f}, {max(series.returns):.0f}",
            _in_training(curves, series.row),
            series.row.revision or "-",
        ]
        for series in sorted(joined(rows), key=lambda series: series.row.run_seed)
    ]
    columns = ("training seed", "return", "95 % interval over episodes", "lowest and highest episode")
    return markdown([*columns, "in training, at thousands of env steps", "revision"], cells)


def _place(cells: dict[str, T], row: EvaluationRow, value: T) -> None:
    """Put what is of a row into the cell of its planner.

    Raises:
        UserError: another one is there, of other settings.
    """
    if row.planner in cells:
        raise UserError(
            f"{row.recipe}, seed {row.run_seed}: evaluations of {row.planner} with different settings would share a "
            "cell; name a setting that tells them apart after '<!-- results:', e.g. execute=mean"
        )
    cells[row.planner] = value


def _behaviour(rows: Sequence[EvaluationRow], curves: Sequence[CurveRow], first: str) -> str:
    """A row a run: the policy alone, planning from it, and their difference by episode."""
    pairs: dict[tuple[str | int, ...], dict[str, Series]] = {}
    for series in joined(rows):
        _place(pairs.setdefault(series.group, {}), series.row, series)
    cells = []
    for pair in pairs.values():
        if {"policy", "policy_grad_mpc"} <= pair.keys():
            policy, plan = pair["policy"], pair["policy_grad_mpc"]
            both = [f"{decimal(series.mean)} ({interval(*series.interval)})" for series in (policy, plan)]
            alike = len(policy.returns) == len(plan.returns)
            difference = written(*paired(policy.returns, plan.returns)) if alike else "-"
            row = policy.row
            cells.append([f"`{row.recipe}`", str(row.run_seed), *both, difference, _in_training(curves, row)])
    columns = ("recipe", "seed", "`policy`", "`policy_grad_mpc`", "difference, paired")
    return markdown([*columns, "in training, at thousands of env steps"], sorted(cells))


def _planners(rows: Sequence[EvaluationRow], curves: Sequence[CurveRow], first: str) -> str:
    """A row a planner, the differences to the strongest of its checkpoint or to the planner `first`."""
    groups: dict[tuple[str | int, ...], list[Series]] = {}
    for series in joined(rows):
        groups.setdefault(series.group, []).append(series)
    cells = []
    for group in groups.values():
        order = sorted(group, key=lambda series: (series.row.planner != first, -series.mean))
        for series, label in zip(order, labels([series.row for series in order]), strict=True):
            cells.append([f"`{series.row.recipe}`", label, *_planner_cells(series, order[0])])
    columns = ("recipe", "planner", "episodes", "return", "95 % interval", "median", "to the first, paired")
    return markdown([*columns, "in per cent", "predicted", "model steps"], cells)


def _planner_cells(series: Series, first: Series) -> list[str]:
    comparable = series is not first and len(series.returns) == len(first.returns)
    difference = paired(first.returns, series.returns) if comparable else None
    return [
        str(len(series.returns)),
        decimal(series.mean),
        interval(*series.interval),
        f"{median(series.returns):.0f}",
        written(*difference) if difference else "",
        written(*(100 * value / abs(first.mean) for value in difference)) if difference and first.mean else "",
        _number(series.predicted),
        _number(series.row.model_steps, 0),
    ]


def _summary(rows: Sequence[EvaluationRow], curves: Sequence[CurveRow], first: str) -> str:
    """A row a recipe: each planner's training seeds, and the strongest published number at that budget."""
    planners = sorted({row.planner for row in rows})
    cells = []
    for recipe in sorted({row.recipe for row in rows}):
        own: dict[str, Level] = {}
        for level in levels(row for row in rows if row.recipe == recipe):
            _place(own, level.row, level)
        row = next(iter(own.values())).row
        best = published.strongest(row.task, row.observation, row.env_steps)
        ours = [", ".join(f"{mean:.0f}" for mean in own[name].means) if name in own else "-" for name in planners]
        cells.append([f"`{recipe}`", *ours, f"{best.mean:.0f}, {best.method}; {best.whose}" if best else "-"])
    return markdown(["recipe", *(f"`{name}`" for name in planners), "strongest published; whose runs"], cells)


def _published(rows: Sequence[EvaluationRow], curves: Sequence[CurveRow], first: str) -> str:
    """Rows a recipe: ours, the strongest published number, and every set of DreamerV3's runs."""
    cells = []
    for recipe in sorted({row.recipe for row in rows}):
        ours = max(levels(row for row in rows if row.recipe == recipe), key=lambda level: level.mean)
        row, numbers = ours.row, published.scores(ours.row.task, ours.row.observation, ours.row.env_steps)
        above = sum(number.mean > ours.mean for number in numbers)
        method = f"ours, `{row.planner}`; {above} of {len(numbers)} published are above"
        level = [decimal(ours.mean), str(len(ours.means))]
        cells.append([f"`{recipe}`", method, "this project", str(row.action_repeat), *level, ""])
        beside = [*numbers[:1], *(number for number in numbers if number.method.startswith("DreamerV3"))]
        cells += [_published_cells(number) for number in dict.fromkeys(beside)]
    columns = ("recipe", "method", "whose runs", "action repeat", "return", "training seeds", "file or table")
    return markdown(columns, cells)


def _published_cells(number: published.Published) -> list[str]:
    mean = decimal(number.mean) if number.std is None else f"{decimal(number.mean)} ± {decimal(number.std)}"
    stated = [str(value or "not stated") for value in (number.action_repeat, number.seeds)]
    return ["", number.method, number.whose, stated[0], mean, stated[1], number.source]


Table = Callable[[Sequence[EvaluationRow], Sequence[CurveRow], str], str]
KINDS: Mapping[str, Table] = {
    "seeds": _seeds,
    "behaviour": _behaviour,
    "planners": _planners,
    "summary": _summary,
    "published": _published,
}
"""Tables by the word after `results:`."""
