"""A study's file: arms × seeds become cells, all of them checked before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from lightning_wm import config as configuration
from lightning_wm.config import Config
from lightning_wm.config.fields import Seed, settings
from lightning_wm.config.shipped import root
from lightning_wm.config.store import laid
from lightning_wm.errors import ConfigError, UserError, hint
from lightning_wm.runs.identity import differences


@settings("arms")
class Arm:
    """One line of a comparison, or one for each of several recipes."""

    recipe: str | None = None
    """As `fit recipe=`."""
    recipes: list[str] = field(default_factory=list)
    """In its place, lists of the study's `recipes`: an arm for each recipe in them, named TASK_ARM."""
    overrides: list[str] = field(default_factory=list)
    """`key=value`, laid over the study's own."""

    def __post_init__(self) -> None:
        if (self.recipe is None) == (not self.recipes):
            raise ValueError(
                f"recipe={self.recipe}, recipes={self.recipes}: expected one of them; "
                "type recipe: state/walker_walk, or recipes: [dense] with recipes: {dense: [state/walker_walk]} above"
            )


@settings("")
class Study:
    """What is run."""

    arms: Annotated[dict[str, Any], Field(min_length=1)]
    """Name to an `Arm`."""
    seeds: Annotated[list[Seed], Field(min_length=1)]
    overrides: list[str] = field(default_factory=list)
    """`key=value` for every arm."""
    recipes: dict[str, list[str]] = field(default_factory=dict)
    """Lists of recipes, by name."""

    def single(self) -> dict[str, Arm]:
        """Its arms, each of one recipe.

        Raises:
            ConfigError: no such list of recipes, or two arms of one name.
        """
        named: dict[str, Arm] = {}
        for name, plain in self.arms.items():
            arm = Arm(**laid(plain))
            for recipe in self._recipes(name, arm):
                own = name if arm.recipe else f"{recipe.rpartition('/')[2]}_{name}"
                if own in named:
                    raise ConfigError([f"arms.{name}: {own} is the name of another arm too; rename one of them"])
                named[own] = Arm(recipe, overrides=arm.overrides)
        return named

    def _recipes(self, name: str, arm: Arm) -> list[str]:
        if arm.recipe is not None:
            return [arm.recipe]
        unknown = [given for given in arm.recipes if given not in self.recipes]
        if unknown:
            known = ", ".join(self.recipes) or "none"
            raise ConfigError([f"arms.{name}.recipes={unknown[0]}: no such list in recipes; there is {known}"])
        return [recipe for given in arm.recipes for recipe in self.recipes[given]]


@dataclass(frozen=True)
class Cell:
    """One run of a study."""

    arm: str
    seed: int
    run: Path
    arguments: tuple[str, ...]
    """Of `fit`."""
    env_steps: int
    devices: int = 1
    """Processes of the run."""
    gpus: bool = False
    """Whether each of them asks for a GPU."""

    @property
    def name(self) -> str:
        """`ARM/seedS`."""
        return f"{self.arm}/seed{self.seed}"

    def beside(self, ending: str) -> Path:
        """A file beside the run: its `log`, and the marks `finished` and `failed`."""
        return self.run.parent / f"{self.run.name}.{ending}"


def study_file(name: str) -> Path:
    """The file of a shipped study, or of a path.

    Raises:
        UserError: there is none.
    """
    shipped = {path.stem: path for path in (root() / "study").glob("*.yaml")}
    if name in shipped:
        return shipped[name]
    if name.endswith((".yaml", ".yml")):
        return Path(name).expanduser()
    raise UserError(
        f"study={name}: there is no such study; expected {', '.join(sorted(shipped))} or a path that ends in .yaml"
        f"{hint(name, shipped)}"
    )


def sized(path: Path, size: str) -> dict[str, Any]:
    """A study's file in one size: what stands below `small` or `full` replaces what stands beside it.

    Raises:
        ConfigError: no keys and values below one of them.
    """
    tree = configuration.read_tree(path)
    sizes = {name: tree.pop(name, {}) for name in ("small", "full")}
    faults = [f"{name}: expected keys and values" for name, value in sizes.items() if not isinstance(value, dict)]
    if faults:
        raise ConfigError([f"{fault} (in {path})" for fault in faults])
    return {**tree, **sizes[size]}


def read_study(path: Path, size: str) -> Study:
    """The arms of a study of one size.

    Raises:
        ConfigError: keys or values that a study has not.
    """
    try:
        study = Study(**{name: value for name, value in sized(path, size).items() if name != "bench"})
        for name, arm in study.arms.items():
            if not isinstance(arm, dict) or "/" in name or name.startswith("."):
                raise ConfigError([f"arms.{name}={arm}: expected a plain name, with recipe and overrides below it"])
            Arm(**arm)
    except ConfigError as error:
        raise ConfigError([f"{fault} (in {path})" for fault in error.faults]) from None
    twice = sorted({seed for seed in study.seeds if study.seeds.count(seed) > 1})
    if twice:
        raise ConfigError([f"seeds={study.seeds}: {twice[0]} is there twice; keep one of them (in {path})"])
    return study


_OWN = {
    "recipe": "the arm's recipe stands beside them; type recipe: there",
    "run": "a study has its runs in its own folder; type out=<a folder> on the command line",
    "seed": "every arm has the study's seeds; type seeds: [0, 1] in the file",
}
"""What an arm's overrides cannot say, and where it is said."""


def cells(study: Study, out: Path) -> list[Cell]:
    """Every cell, the seeds of an arm beside each other.

    Raises:
        ConfigError: the faults of all arms, each with its arm.
    """
    made, faults = [], []
    for name, arm in study.single().items():
        typed = dict(token.partition("=")[::2] for token in (*study.overrides, *arm.overrides))
        tokens = (f"recipe={arm.recipe}", *(f"{key}={text}" for key, text in typed.items()))
        own = [f"arms.{name}: {key}={typed[key]} in overrides: {_OWN[key]}" for key in _OWN if key in typed]
        if own:
            faults += own
            continue
        try:
            loaded = configuration.load(tokens)
        except ConfigError as error:
            faults += [f"arms.{name}: {fault}" for fault in error.faults]
            continue
        except UserError as error:
            faults.append(f"arms.{name}: {error}")
            continue
        for seed in study.seeds:
            run = out / name / f"seed{seed}"
            faults += foreign(run, {**loaded.tree, "seed": seed})
            made.append(cell(name, seed, run, tokens, loaded.config))
    if faults:
        raise ConfigError(faults)
    return made


def cell(arm: str, seed: int, run: Path, tokens: Sequence[str], config: Config) -> Cell:
    """One run; `tokens` are those of `fit` without its seed and its place."""
    trainer = config.trainer
    arguments = (*tokens, f"seed={seed}", f"run={run}")
    return Cell(arm, seed, run, arguments, config.env_steps, trainer.devices, trainer.accelerator in ("gpu", "cuda"))


def foreign(run: Path, tree: dict[str, Any]) -> list[str]:
    """What keeps the run that lies there from being the cell's."""
    if not (run / "config.yaml").is_file():
        return []
    found = differences(configuration.read_tree(run / "config.yaml"), tree)
    return [f"{run}: {fault}; type out=<another folder>" for fault in found]
