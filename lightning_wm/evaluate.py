"""Play a trained run with any planner: `python -m lightning_wm.evaluate run=runs/mine planner=grad_mpc,cem`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import Field

from lightning_wm import config as configuration
from lightning_wm.config.fields import Count, Natural, settings
from lightning_wm.config.schema import PerturbConfig
from lightning_wm.console.command import command

if TYPE_CHECKING:
    from lightning_wm.console.meter import Meter
    from lightning_wm.protocols import Actor, PlannerSettings
    from lightning_wm.runs.evaluation_file import Evaluation
    from lightning_wm.runs.loading import LoadedRun


@settings("")
class EvaluateOptions:
    """What `evaluate` is told."""

    run: Annotated[str, Field(examples=["runs/quickstart-s0"])]
    """Run directory, model folder of `export`, a model that ships (zoo:NAME), or one of a hub (hub:USER/NAME)."""
    planner: str | None = None
    """One or more planners, comma separated; null: the run's own. `planner.<field>=` sets a field of each."""
    planner_fields: dict[str, Any] = field(default_factory=dict)
    perturb: PerturbConfig = field(default_factory=PerturbConfig)
    """Factors on the physics, on top of the run's own `task.perturb`: perturb.mass=1.5."""
    episodes: Count = 10
    """Episodes of each planner, on the same seeds."""
    seed: Natural = 20_000
    """Seed of the first episode; the others follow it."""
    environments: Count = 10
    """Episodes that are played at once."""
    checkpoint: Annotated[Literal["last", "best"], Field(description="last or best")] = "last"
    """`last` or `best` (by evaluation during training)."""
    name: (
        Annotated[str, Field(pattern=r"^[\w.-]+$", description="letters, digits, '.', '_' and '-'", examples=["mine"])]
        | None
    ) = None
    """Files are evaluations/NAME-PLANNER.json; null: eval-<env steps>-s<seed>, and what is perturbed."""
    video: bool = False
    """Film the first episode of each planner."""
    plans: Annotated[Natural, Field(description="a number of decisions", examples=[200])] = 0
    """Film this many decisions of the first episode with what their candidates were expected to lead to."""
    inspect: Annotated[Natural, Field(description="the number of a decision, from 0", examples=[50])] | None = None
    """Look at this decision (from 0) of the first episode instead: inspect/NAME-PLANNER-step<N>.png and .json."""
    threads: Annotated[Count, Field(examples=[1])] | None = None
    """CPU threads of torch; null leaves torch's choice."""
    plugins: list[str] = field(default_factory=list)
    """Modules to import first; those of the run's config.yaml load only if typed here or with trust=true."""
    trust: bool = False
    """Load the plugins that the run's config.yaml names."""


USAGE = "python -m lightning_wm.evaluate run=RUN [planner=grad_mpc,cem] [planner.<field>=…] [episodes=10] [seed=20000]"


@command(lambda _: configuration.options_help(EvaluateOptions, USAGE))
def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    options = configuration.options(arguments, EvaluateOptions)
    if options.inspect is not None:
        for path in inspected(options, options.inspect):
            print(path)
        return 0
    for path in evaluate(options):
        print(path)
    return 0


class Contender(NamedTuple):
    """One of the planners that are evaluated."""

    name: str
    """The planner's, or what was typed where several have it; with a number where that is the same too."""
    planner: PlannerSettings
    actor: Actor


def _load(options: EvaluateOptions) -> tuple[LoadedRun, list[Contender], str]:
    """The run, every planner with what plays by it, and what the files' names begin with.

    Raises:
        UserError: a planner asks for what the run has not learned; none of the others has played by then.
    """
    import torch

    from lightning_wm.registry import build
    from lightning_wm.runs.loading import load_run, planner_config

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    loaded = load_run(options.run, options.checkpoint, options.plugins, options.trust)
    names = options.planner.split(",") if options.planner else [loaded.config.planner.name]
    planners = [planner_config(loaded, name, options.planner_fields) for name in names]
    loaded = loaded.perturbed(options.perturb)
    apart = "".join(f"-{name}{factor:g}" for name, factor in options.perturb.changed().items())
    actors = [loaded.agent.actor(build("planner", planner), seed=options.seed) for planner in planners]
    contenders = [Contender(*each) for each in zip(_names(planners, names), planners, actors, strict=True)]
    return loaded, contenders, options.name or f"eval-{loaded.env_steps}-s{options.seed}{apart}"


def evaluate(options: EvaluateOptions) -> list[Path]:
    """Play every planner, write its file and print the table; returns the paths of files and films.

    Whatever ends it before the last planner has played, the table of those that have is printed.
    """
    from lightning_wm.console.meter import Meter
    from lightning_wm.playing.results import show

    loaded, contenders, stem = _load(options)
    if options.plans:
        from lightning_wm.inspection.decision import watchable

        for each in contenders:
            watchable(each.actor, range(options.plans))
    files = [loaded.run.evaluations / f"{stem}-{each.name}.json" for each in contenders]
    results: list[Evaluation] = []
    try:
        with Meter() as meter:
            for result in _played(loaded, contenders, options, meter):
                results.append(result)
                result.save(files[len(results) - 1])
    finally:
        if results:
            named = zip(results, contenders, strict=False)  # fewer results where something ended it
            show([{**result.as_json(), "planner": each.name} for result, each in named])
    films = _films(loaded, contenders, options.seed, stem) if options.video else []
    return files + films + (_plans(loaded, contenders, options, stem) if options.plans else [])


def _played(
    loaded: LoadedRun, contenders: Sequence[Contender], options: EvaluateOptions, meter: Meter
) -> Iterator[Evaluation]:
    """The planners' evaluations, one after the other."""
    from lightning_wm.playing.play import side_by_side
    from lightning_wm.playing.results import line
    from lightning_wm.training.evaluation import evaluate_planner

    with closing(loaded.environments(side_by_side(options.environments, options.episodes))) as env:
        for number, (name, planner, actor) in enumerate(contenders, 1):
            result = evaluate_planner(
                loaded.config,
                actor,
                planner,
                env,
                episodes=options.episodes,
                seed=options.seed,
                env_steps=loaded.env_steps,
                checkpoint=loaded.checkpoint,
                meter=meter,
                label=f"{name} ({number} of {len(contenders)})",
            )
            meter.say(line(result, name))
            yield result


def _names(planners: Sequence[PlannerSettings], typed: Sequence[str]) -> list[str]:
    """What each is called; see `Contender.name`."""
    own = [planner.name for planner in planners]
    names = [word if own.count(name) > 1 else name for name, word in zip(own, typed, strict=True)]
    counts = [names[: index + 1].count(name) for index, name in enumerate(names)]
    return [name if count == 1 else f"{name}-{count}" for name, count in zip(names, counts, strict=True)]


def inspected(options: EvaluateOptions, step: int) -> list[Path]:
    """Look at one decision of every planner; returns the files, a PNG and a JSON each."""
    from dataclasses import asdict

    from lightning_wm.inspection import inspect
    from lightning_wm.inspection.picture import draw
    from lightning_wm.runs.files import write_json

    loaded, contenders, stem = _load(options)
    about = {"task": loaded.config.task.name, "env_steps": loaded.env_steps, "checkpoint": loaded.checkpoint}
    files: list[Path] = []
    with closing(loaded.environments(1)) as env:
        for name, planner, actor in contenders:
            seen = inspect(env, actor, loaded.model, options.seed, step)
            picture = loaded.run.path / "inspect" / f"{stem}-{name}-step{step}.png"
            title = f"{planner.name} on {about['task']}, seed {options.seed}, decision {seen.decision.number}"
            draw(seen, picture, title)
            numbers = picture.with_suffix(".json")
            write_json(numbers, {**about, "planner": planner.name, "settings": asdict(planner), **seen.as_json()})
            files += [picture, numbers]
    return files


def _films(loaded: LoadedRun, contenders: Sequence[Contender], seed: int, stem: str) -> list[Path]:
    from lightning_wm.training.video import film

    paths: list[Path] = []
    with closing(loaded.environments(1)) as env:
        for name, _, actor in contenders:
            path = loaded.run.videos / f"{stem}-{name}.mp4"
            film(env, actor, seed, path)
            paths.append(path)
    return paths


def _plans(loaded: LoadedRun, contenders: Sequence[Contender], options: EvaluateOptions, stem: str) -> list[Path]:
    """Films of the candidates over time."""
    from lightning_wm.inspection.plans import filmed

    paths: list[Path] = []
    with closing(loaded.environments(1)) as env:
        for name, _, actor in contenders:
            path = loaded.run.videos / f"{stem}-{name}-plans.mp4"
            filmed(env, actor, loaded.model, options.seed, options.plans, path)
            paths.append(path)
    return paths


if __name__ == "__main__":
    raise SystemExit(main(None))
