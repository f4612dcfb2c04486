"""What `bench` measures on a trained run: planners, the gradient they follow, and its policy learned anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_wm.benchmarks import gradient_views as views
from lightning_wm.benchmarks import gradients, pareto, relearned, report, returns, sweep
from lightning_wm.benchmarks.returns import Games, Played, table
from lightning_wm.console.meter import Meter
from lightning_wm.errors import UserError
from lightning_wm.playing.results import line
from lightning_wm.runs.loading import LoadedRun, load_run

if TYPE_CHECKING:
    from lightning_wm.bench import BenchOptions


def planner(options: BenchOptions) -> None:
    """The table of planners on one trained model, its JSON and, with budgets, its CSV and picture."""
    if options.run is None:
        raise UserError("run is missing: planners are compared on a trained model; type run=runs/quickstart-s0")
    if not options.planners:
        raise UserError("planners is empty; expected one or more names; type planners=grad_mpc,cem")
    if options.budgets_ms and options.sweep.of:
        raise UserError(f"budgets_ms and sweep.of={options.sweep.of}: a picture has one axis; type one of them")
    loaded = load_run(options.run, "last", options.plugins, options.trust)
    games = Games(options.episodes, options.seed, options.environments)
    path = _file(options, loaded, "planners")
    played: list[Played] = []
    try:
        with Meter() as meter:
            for newest in _games(options, loaded, games, meter):
                played.append(newest)
                # A large planner plays for an hour: what is known by then is kept.
                rows = [each.as_json(played[0].evaluation) for each in played]
                report.save(
                    path, rows, {"run": options.run, "budgets_ms": options.budgets_ms, "swept": options.sweep.of}
                )
                meter.say(line(newest.evaluation))
    finally:
        if played:
            report.show(table(played))
    print(path)
    if options.budgets_ms or options.sweep.of:
        for file in _drawn(options, played, path):
            print(file)


def _games(options: BenchOptions, loaded: LoadedRun, games: Games, meter: Meter) -> Iterator[Played]:
    """What is played, one after the other."""
    if options.sweep.of:
        return sweep.played(
            sweep.points(loaded, options.planners, options.sweep.of, options.sweep.values), games, meter
        )
    planners = returns.entries(loaded, options.planners)
    return returns.compare(loaded, planners, games, options.budgets_ms, options.repeats or 3, meter)


def _drawn(options: BenchOptions, played: list[Played], path: Path) -> tuple[Path, Path]:
    """Rows and picture beside a file."""
    rows, picture = path.with_suffix(".csv"), path.with_suffix(".png")
    pareto.write_rows(played, rows)
    if options.sweep.of:
        sweep.draw(played, picture, options.sweep.of)
    else:
        pareto.draw(played, picture)
    return rows, picture


def gradient(options: BenchOptions) -> None:
    """The table of both gradients by horizon, its JSON, CSV and picture."""
    runs = options.runs if options.run is None else [options.run, *options.runs]
    if not runs:
        raise UserError("run is missing: gradients are those of a trained model; type run=runs/quickstart-s0")
    if not options.planners:
        raise UserError("planners is empty; expected one that plays; type planners=grad_mpc")
    all_loaded = [load_run(run, "last", options.plugins, options.trust) for run in runs]
    measured: list[dict[str, Any]] = []
    with Meter() as meter:
        for run, loaded in zip(runs, all_loaded, strict=True):
            found = gradients.compare(loaded, options.planners[0], options.episodes, options.seed, meter)
            measured += [{"run": views.name(run), **row} for row in views.rows(found)]
    report.show(views.table(measured))
    path = _file(options, all_loaded[0], "gradients")
    report.save(path, measured, {"runs": runs, "planner": options.planners[0], "seed": options.seed})
    views.write_rows(measured, path.with_suffix(".csv"))
    views.draw(measured, path.with_suffix(".png"))
    for file in (path, path.with_suffix(".csv"), path.with_suffix(".png")):
        print(file)


def policy(options: BenchOptions) -> None:
    """The table of policies that were learned anew, and its JSON."""
    if options.run is None:
        raise UserError("run is missing: a policy is learned anew on a trained model; type run=runs/walker_walk-s0")
    if not options.agents or not options.updates:
        raise UserError("agents and updates expect one or more each; type agents=dreamer updates=1000,2000")
    loaded = load_run(options.run, "last", options.plugins, options.trust)
    games = Games(options.episodes, options.seed, options.environments)
    path = _file(options, loaded, "policies")
    found: list[relearned.Relearned] = []

    def keep(newest: relearned.Relearned) -> None:
        found.append(newest)
        report.save(path, [each.as_json() for each in found], {"run": options.run})

    try:
        with Meter() as meter:
            relearned.relearn(loaded, options.agents, options.updates, games, meter, keep)
    finally:
        if found:
            report.show(relearned.table(found))
    print(path)


def _file(options: BenchOptions, loaded: LoadedRun, name: str) -> Path:
    """Where the rows go: what was typed, or the run's own folder."""
    return Path(options.json) if options.json else loaded.run.path / "bench" / f"{name}.json"
