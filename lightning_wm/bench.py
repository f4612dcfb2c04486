"""Measure, beside a peer: `python -m lightning_wm.bench all`, `python -m lightning_wm.bench planner run=RUN`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from lightning_wm import config as configuration
from lightning_wm.config.fields import Count, Seed, settings
from lightning_wm.console.command import command
from lightning_wm.errors import UserError, hint

if TYPE_CHECKING:
    from lightning_wm.benchmarks.timing import Setting
    from lightning_wm.protocols import WorldModel

ALL = ("update", "behaviour", "sac", "replay", "render", "trainer", "planners")
"""What `all` measures, each a module of `benchmarks` with `rows(setting)`."""
TRAINED = ("planner", "gradient", "policy")
"""What is measured on a trained run, each a function of `benchmarks.trained`."""
WORDS = {
    "all": "every one below but memory, planner, gradient, policy and optimum",
    "update": "an update of the world model beside TorchRL's and beside bare matrix products",
    "behaviour": "an update with actor and critic beside the world model's alone",
    "sac": "an update of agent=sac beside TorchRL's SACLoss in a bare loop",
    "replay": "drawing a batch beside SliceSampler",
    "render": "an agent step with pixels beside DMControlWrapper",
    "trainer": "Lightning's Trainer beside a bare loop",
    "planners": "one decision beside TorchRL's CEMPlanner and beside bare rollouts",
    "memory": "resident memory while pixels are collected (minutes)",
    "planner": "what planners earn on a trained model, and what that costs",
    "gradient": "a model's gradient of the return beside the simulator's own, by horizon",
    "policy": "a run's policy learned anew on its frozen model and replay, with other settings of the agent",
    "optimum": "how near planners come to the optimum of known problems: share of the way from doing nothing",
}


Updates = Annotated[int, Field(ge=1, description="one or more updates", examples=[1000])]
Budget = Annotated[float, Field(gt=0, allow_inf_nan=False, description="milliseconds above 0", examples=[10])]


@settings("sweep")
class SweepConfig:
    """One number, and what it is set to, one value after the other."""

    of: str | None = None
    """A field of every planner, or perturb.mass and the like; null: nothing is swept."""
    values: list[float] = field(default_factory=list)
    """Comma separated. Where candidates are swept, elites are in proportion."""

    def __post_init__(self) -> None:
        if (self.of is None) == bool(self.values):
            raise ValueError(
                f"sweep.of={self.of}, sweep.values={self.values}: expected both or neither; "
                "type sweep.of=candidates sweep.values=1,10,100"
            )


@settings("")
class BenchOptions:
    """What `bench` is told, after the word for what to measure."""

    run: str | None = None
    """Run directory: its model for planners; null: a fresh model of the quickstart's size."""
    runs: list[str] = field(default_factory=list)
    """Of gradient: several run directories beside each other, comma separated."""
    json: str | None = None
    """File to write; null: bench.json, on a trained run RUN/bench/planners.json and the like."""
    repeats: Annotated[Count, Field(description="one or more repetitions", examples=[10])] | None = None
    """Timed repetitions; null: each benchmark's own."""
    smoke: bool = False
    """Tiny sizes: that it runs, not how fast it is."""
    env_steps: Annotated[Count, Field(description="a positive number of env steps")] = 100_000
    """Of memory."""
    planners: list[str] = field(default_factory=lambda: ["grad_mpc", "cem", "cem:candidates=100:elites=10"])
    """Of planner and optimum: names, comma separated, each with fields of its own: cem:candidates=100:elites=10. Of
    gradient: the first plays."""
    agents: list[str] = field(default_factory=lambda: ["dreamer"])
    """Of policy: the run's agent, comma separated, each time with fields of its own: dreamer:gradient=reinforce."""
    updates: list[Updates] = field(default_factory=lambda: [1000, 2000])
    """Of policy: updates after which it plays, comma separated."""
    budgets_ms: list[Budget] = field(default_factory=list)
    """Of planner: milliseconds per decision, comma separated, that iterations or candidates are scaled to."""
    sweep: SweepConfig = field(default_factory=SweepConfig)
    """Of planner: one number of the planners or of the simulator, at several values."""
    episodes: Annotated[Count, Field(description="one or more episodes")] = 10
    """Of planner, gradient and policy: episodes of each, on the same seeds."""
    seed: Seed = 20_000
    """Of planner, gradient and policy: seed of the first episode; the others follow it."""
    environments: Annotated[Count, Field(description="one or more environments")] = 1
    """Of planner and policy: episodes that are played at once."""
    plugins: list[str] = field(default_factory=list)
    """Modules to import first; those of the run's config.yaml load only if typed here or with trust=true."""
    trust: bool = False
    """Load the plugins that the run's config.yaml names."""


def usage(_: Sequence[str] = ()) -> str:
    """What there is to type."""
    words = "\n".join(f"  {word:10}{about}" for word, about in WORDS.items())
    line = f"python -m lightning_wm.bench <what> [key=value …]\n\n<what> is one of\n{words}"
    return configuration.options_help(BenchOptions, line)


@command(usage)
def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    what, rest = _word(arguments)
    options = configuration.options(rest, BenchOptions)
    if options.runs and what != "gradient":
        raise UserError(f"runs={','.join(options.runs)}: {what} knows one run; type run={options.runs[0]}")
    from lightning_wm.benchmarks.timing import one_thread
    from lightning_wm.training.launch import quiet

    quiet()
    with one_thread():
        if what in TRAINED:
            from lightning_wm.benchmarks import trained

            getattr(trained, what)(options)
        elif what == "optimum":
            _optimum(options)
        else:
            _measure(what, options)
    return 0


def _word(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """What to measure, and the options after it."""
    listed = ", ".join(WORDS)
    if not arguments or "=" in arguments[0]:
        raise UserError(f"nothing to measure; expected one of {listed} first; type python -m lightning_wm.bench all")
    what = arguments[0]
    if what not in WORDS:
        raise UserError(f"there is no benchmark {what!r}{hint(what, WORDS) or '.'} Known: {listed}")
    return what, list(arguments[1:])


def _measure(what: str, options: BenchOptions) -> None:
    """Rows of one benchmark or of all, as a table and as `bench.json`."""
    import importlib

    from lightning_wm.benchmarks import report

    setting = _setting(options)
    rows: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    path, names = Path(options.json or "bench.json"), ALL if what == "all" else (what,)

    def written() -> None:
        report.show(report.table(rows), [f"{name} was left out: {why}" for name, why in skipped.items()])
        report.save(path, rows, {"skipped": skipped, "run": options.run, "smoke": options.smoke})
        print(path)

    try:
        for number, name in enumerate(names, 1):
            module = importlib.import_module(f"lightning_wm.benchmarks.{name}")
            print(f"measuring {name} ({number} of {len(names)}) …", file=sys.stderr)
            try:
                rows += module.rows(setting)
            except UserError as error:
                if what != "all":
                    raise
                skipped[name] = str(error)  # a machine without GL has the other numbers all the same
    except BaseException:
        if rows:  # what was measured is kept
            written()
        raise
    written()


def _setting(options: BenchOptions) -> Setting:
    from lightning_wm.benchmarks.timing import Setting

    model = None if options.run is None else _trained(options, options.run)
    return Setting(options.repeats, options.smoke, options.env_steps, model)


def _trained(options: BenchOptions, run: str) -> WorldModel:
    from lightning_wm.runs.loading import load_run

    model = load_run(run, "last", options.plugins, options.trust).model
    if model is None:
        raise UserError(f"{run} has no world model to plan with; type run=<a run of agent planet>")
    return model


def _optimum(options: BenchOptions) -> None:
    """The table of planners on known problems, and its JSON."""
    from lightning_wm.benchmarks import optimum, report

    smallest = list(optimum.PROBLEMS)[:1] if options.smoke else list(optimum.PROBLEMS)
    measured = optimum.rows(options.planners, smallest)
    report.show(optimum.table(measured))
    path = Path(options.json or "bench.json")
    report.save(path, measured, {"what": "optimum"})
    print(path)


def _script() -> None:
    raise SystemExit(main(None))


if __name__ == "__main__":
    _script()
