"""Gather results: `python -m lightning_wm.report runs=runs/a,runs/b out=docs/results`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from lightning_wm import config as configuration
from lightning_wm.config.fields import settings
from lightning_wm.console.command import command
from lightning_wm.errors import UserError
from lightning_wm.report import store
from lightning_wm.report.rows import CurveRow, EvaluationRow

USAGE = "python -m lightning_wm.report [runs=runs/a,runs/b] [out=results] [pages=README.md,docs/learning.md]"


def _folder(out: str) -> str:
    if Path(out).exists() and not Path(out).is_dir():
        raise ValueError("it is a file; expected a folder; type e.g. out=results")
    return out


def _page(page: str) -> str:
    if not Path(page).is_file():
        raise ValueError(f"{page} is missing; expected a Markdown file; type e.g. pages=README.md")
    return page


@settings("")
class ReportOptions:
    """What `report` is told."""

    runs: list[str] = field(default_factory=list)
    """Run directories, comma separated, whose evaluations and curves are added; none: show what is there."""
    out: Annotated[str, AfterValidator(_folder)] = "results"
    """Folder of evaluations.csv and curves.csv, which are made or grow."""
    pages: list[Annotated[str, AfterValidator(_page)]] = field(default_factory=list)
    """Markdown files, comma separated, whose marked tables are written anew from the results."""
    page: bool = True
    """Write index.html, report.md and figures into `out` too."""


@command(lambda _: configuration.options_help(ReportOptions, USAGE))
def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    options = configuration.options(arguments, ReportOptions)
    out, runs = Path(options.out), list(dict.fromkeys(options.runs))
    evaluations, curves = store.read_evaluations(out), store.read_curves(out)
    if not runs and not evaluations and not curves:
        raise UserError(f"there are no results in {out} and no runs to add; type runs=runs/quickstart-s0 out={out}")
    from lightning_wm.report import show

    if runs:
        new, points = _read(runs)
        store.write_evaluations(out, store.merged_evaluations(evaluations, new))
        store.write_curves(out, store.merged_curves(curves, points))
        show.show(show.added(new, points, out))
        if options.page:
            evaluations, curves = store.read_evaluations(out), store.read_curves(out)
    else:
        show.show(show.overview(evaluations))
    for page in options.pages:
        _fill(Path(page), out)
    if options.page:
        _draw(out, evaluations, curves, runs)
    return 0


def _draw(out: Path, evaluations: Sequence[EvaluationRow], curves: Sequence[CurveRow], runs: Sequence[str]) -> None:
    """The page and its figures; without the libraries that draw, a line that says so."""
    from lightning_wm.report import page

    try:
        page.require()
    except UserError as error:
        print(f"no page: {error}", file=sys.stderr)
        return
    shown = page.sections(evaluations, curves, map(Path, runs))
    for path in page.write(out, shown):
        print(path)


def _read(runs: Sequence[str]) -> tuple[list[EvaluationRow], list[CurveRow]]:
    """Rows of every run, all of them read before anything is written.

    Raises:
        UserError: one cannot be read, or two are the same run.
    """
    from lightning_wm.report.run import read_run

    evaluations: list[EvaluationRow] = []
    curves: list[CurveRow] = []
    folders: dict[tuple[str | int, ...], str] = {}
    for path in runs:
        rows, points = read_run(path)
        if not points:
            raise UserError(f"{path} has no returns yet; let the run play some episodes first")
        other = folders.setdefault(points[0].run, path)
        if other != path:
            raise UserError(f"{other} and {path} are the same recipe, settings and seed; type one of them")
        evaluations += rows
        curves += points
    return evaluations, curves


def _fill(page: Path, out: Path) -> None:
    from lightning_wm.report.pages import Results, filled
    from lightning_wm.runs.files import write_text

    try:
        before = page.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"pages={page}: not UTF-8 ({error}); expected a page of text, as docs/learning.md") from error
    after = filled(before, Results(store.read_evaluations(out), store.read_curves(out)))
    if after != before:
        write_text(page, after)
    print(f"{page}: {'tables written' if after != before else 'nothing to change'}")


if __name__ == "__main__":
    raise SystemExit(main(None))
