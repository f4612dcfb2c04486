"""Weights & Biases and trackio, and what every tracker is told of a run."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from lightning_wm import config as configuration
from lightning_wm.config import Config
from lightning_wm.config.store import flatten, plain
from lightning_wm.errors import UserError, unwritable
from lightning_wm.runs.checkpoint import Counters
from lightning_wm.runs.directory import RunDirectory
from lightning_wm.runs.files import write_text
from lightning_wm.training.loggers import measured

PROJECT = "lightning_wm"


@runtime_checkable
class Tracker(Protocol):
    """A logger that shows more than numbers."""

    def log_film(self, name: str, path: Path) -> None:
        """Show a film."""
        ...

    def log_result(self, results: Mapping[str, float]) -> None:
        """Show what the run has come to."""
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


def trackers(loggers: Iterable[object]) -> list[Tracker]:
    """Those of a Trainer's loggers that show more than numbers."""
    return [logger for logger in loggers if isinstance(logger, Tracker)]


def over_updates(name: str) -> bool:
    """Whether a metric is measured at updates, many of them between two env steps."""
    return name.startswith("train/")


@dataclass(frozen=True)
class About:
    """What trackers are told of a run."""

    name: str
    group: str | None
    tags: list[str] = field(default_factory=list)
    tree: dict[str, Any] = field(default_factory=dict)
    """The resolved configuration as plain containers."""

    @property
    def flat(self) -> dict[str, str | float | bool]:
        """Dotted key to number, word or truth; lists and nulls as text."""
        leaves = flatten(self.tree)
        return {key: value if isinstance(value, (int, float, str)) else str(value) for key, value in leaves}

    @property
    def yaml(self) -> str:
        """As the run's config.yaml."""
        return configuration.to_yaml(self.tree)


def about(config: Config, run: RunDirectory) -> About:
    """A run's directory is its name; its recipe is its group, unless `logging.group` says otherwise."""
    recipe = config.recipe or ""
    group = config.logging.group or (Path(recipe).stem if recipe.endswith((".yaml", ".yml")) else recipe) or None
    tags = [config.task.name, config.agent.name, config.planner.name, *config.logging.tags]
    return About(run.path.name, group, list(dict.fromkeys(tags)), plain(config))


class EnvStepWandb(WandbLogger):
    """Weights & Biases, its files in the run directory, over env steps, and over updates what is measured there.

    A run that goes on is the same run there: its id is in `wandb.id`.

    Args:
        run: its directory.
        counters: of the run.
        about: what is said of it.

    Raises:
        UserError: the package is not installed.
    """

    def __init__(self, run: RunDirectory, counters: Counters, about: About) -> None:
        try:
            super().__init__(
                project=PROJECT,
                name=about.name,
                save_dir=run.path,
                id=kept_id(run.path / "wandb.id"),
                resume="allow",
                group=about.group,
                tags=about.tags,
                config=about.tree,
            )
        except ModuleNotFoundError as error:
            raise _missing("wandb") from error
        self._wandb_init.pop("anonymous", None)  # W&B warns of it, and Lightning always gives it
        self.counters = counters

    @property
    def experiment(self) -> Any:
        """The run there, begun on first use."""
        new = self._experiment is None
        run: Any = super().experiment
        if new:
            run.define_metric("env_steps", hidden=True)
            run.define_metric("updates", hidden=True)
            run.define_metric("*", step_metric="env_steps")
            run.define_metric("train/*", step_metric="updates")
        return run

    @rank_zero_only
    def log_hyperparams(self, params: object, *args: object, **kwargs: object) -> None:
        """Nothing to do: the whole configuration is there from the beginning."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log with both numbers that things are drawn over."""
        if values := measured(metrics):
            self.experiment.log({**values, "env_steps": self.counters.env_steps, "updates": step or 0})

    def log_film(self, name: str, path: Path) -> None:
        """Show a film."""
        import wandb

        film = wandb.Video(str(path), format="mp4")
        self.experiment.log({name: film, "env_steps": self.counters.env_steps})

    def log_result(self, results: Mapping[str, float]) -> None:
        """The run's summary."""
        self.experiment.summary.update(dict(results))

    def close(self) -> None:
        """End the run there, so that another one can begin in this process."""
        if self._experiment is not None:
            self._experiment.finish()
            self._experiment = None


class Trackio(Logger):
    """Trackio, which keeps its own database on this machine, over env steps.

    A run that goes on is the same run there, by its name: the directory's and a few letters, which `trackio.id` keeps.
    Trackio draws over env steps; `updates` is a metric beside them, which its dashboard can take for the x axis.

    Args:
        run: its directory.
        counters: of the run.
        about: what is said of it; tags become part of the configuration, since there are none in trackio.

    Raises:
        UserError: the package is not installed.
    """

    def __init__(self, run: RunDirectory, counters: Counters, about: About) -> None:
        super().__init__()
        try:
            import trackio
        except ModuleNotFoundError as error:
            raise _missing("trackio") from error
        self.trackio, self.counters, self.about = trackio, counters, about
        self._name = f"{about.name}-{kept_id(run.path / 'trackio.id')}"
        self._run: Any = None

    @property
    def name(self) -> str:
        return PROJECT

    @property
    def version(self) -> str:
        return self._name

    @property
    def experiment(self) -> Any:
        """The run there, begun on first use."""
        if self._run is None:
            told: dict[str, Any] = {**self.about.flat, "tags": ", ".join(self.about.tags)}
            self._run = self.trackio.init(
                PROJECT, self._name, group=self.about.group, config=told, resume="allow", embed=False
            )
        return self._run

    @rank_zero_only
    def log_hyperparams(self, params: object, *args: object, **kwargs: object) -> None:
        """Nothing to do: the whole configuration is there from the beginning."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log at the current number of env steps."""
        if values := measured(metrics):
            self.experiment.log({**values, "updates": step or 0}, step=self.counters.env_steps)

    def log_film(self, name: str, path: Path) -> None:
        """Show a film."""
        self.experiment.log({name: self.trackio.Video(path, format="mp4")}, step=self.counters.env_steps)

    def log_result(self, results: Mapping[str, float]) -> None:
        """As metrics of the last env step: a run has no summary there."""
        self.experiment.log(dict(results), step=self.counters.env_steps)

    def close(self) -> None:
        """End the run there."""
        if self._run is not None:
            self._run.finish()
            self._run = None


def kept_id(path: Path) -> str:
    """What a run is called elsewhere, made up once and kept in the run directory; nothing on ranks that tell nobody.

    Raises:
        UserError: the file cannot be read.
    """
    if getattr(rank_zero_only, "rank", 0):  # ranks begin together, and each would make up its own
        return ""
    if not path.exists():
        write_text(path, f"{secrets.token_hex(4)}\n")
    try:
        return path.read_text("utf-8").strip()
    except OSError as error:
        raise unwritable(path, error) from error


def _missing(package: str) -> UserError:
    return UserError(f'logging.{package}=true needs the package {package}; type pip install "lightning_wm[{package}]"')
