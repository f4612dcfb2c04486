"""A model folder to share: `python -m lightning_wm.export run=runs/mine out=my_model`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from lightning_wm import config as configuration
from lightning_wm.config.fields import settings
from lightning_wm.errors import UserError, exits

if TYPE_CHECKING:
    from lightning_wm.runs.loading import LoadedRun


@settings("")
class ExportOptions:
    """What `export` is told."""

    run: Annotated[str, Field(examples=["runs/quickstart-s0"])]
    """Run directory."""
    out: Annotated[str, Field(examples=["my_model"])]
    """Model folder; it must not be there yet."""
    checkpoint: Annotated[Literal["last", "best"], Field(description="last or best")] = "last"
    """`last` or `best` (by evaluation during training)."""
    plugins: list[str] = field(default_factory=list)
    """Modules to import first; those of the run's config.yaml load only if typed here or with trust=true."""
    trust: bool = False
    """Load the plugins that the run's config.yaml names."""


USAGE = "python -m lightning_wm.export run=RUN out=FOLDER [checkpoint=last|best]"


@exits
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = list(argv or [])
    if "--help" in arguments or "-h" in arguments:
        print(configuration.options_help(ExportOptions, USAGE))
        return 0
    asked = configuration.options(arguments, ExportOptions)
    out = export(asked)
    print(out)
    print(f"add a licence to {out / 'README.md'}, then try it: python -m lightning_wm.evaluate run={out}")
    return 0


def export(asked: ExportOptions) -> Path:
    """Write the model folder, whole or not at all; returns where it lies.

    Raises:
        UserError: the run cannot be read, its configuration names a path of this machine, or `out` is there already.
        DiskError: the folder cannot be written.
    """
    from lightning_wm.runs.card import card
    from lightning_wm.runs.files import write_json, write_text
    from lightning_wm.runs.loading import load_run
    from lightning_wm.runs.model_folder import (
        CARD,
        CONFIG,
        EVALUATION,
        Weights,
        new_folder,
        refuse_existing,
        write_weights,
    )

    out = Path(asked.out)
    refuse_existing(out)
    loaded = load_run(asked.run, asked.checkpoint, asked.plugins, asked.trust)
    _refuse_paths(loaded.tree, loaded.run.config)
    found, tensors = evaluation(loaded), loaded.agent.state_dict()
    with new_folder(out) as folder:
        write_weights(folder, Weights(tensors, loaded.env_steps, loaded.checkpoint))
        write_text(folder / CONFIG, configuration.to_yaml(loaded.tree))
        if found is not None:
            write_json(folder / EVALUATION, found)
        parameters = sum(value.numel() for value in tensors.values())
        name = out.resolve().name
        write_text(folder / CARD, card(loaded.config, name, loaded.env_steps, loaded.checkpoint, parameters, found))
    return out


def evaluation(loaded: LoadedRun) -> dict[str, Any] | None:
    """The run's evaluation of just these weights: the final one, else the newest; None without any.

    Raises:
        UserError: its file is damaged.
    """
    from lightning_wm.runs.evaluation_file import read_evaluation

    folder = loaded.run.evaluations
    paths = sorted(folder.glob("*.json"), key=lambda path: (path.name == "final.json", path.stat().st_mtime_ns))
    for path in reversed(paths):
        found = read_evaluation(path)
        if (found["env_steps"], found["checkpoint"]) == (loaded.env_steps, loaded.checkpoint):
            return found
    return None


def _refuse_paths(tree: Mapping[str, Any], file: Path) -> None:
    """A shared folder says nothing about where it was made."""
    for key, value in _texts(tree):
        if Path(value).is_absolute() or value.startswith("~"):
            raise UserError(
                f"{file}: {key}={value} is a path of this machine; expected none in what is shared; "
                f"change it there, and then export"
            )


def _texts(value: Any, key: str = "") -> list[tuple[str, str]]:
    """Every text in a tree with its dotted key."""
    if isinstance(value, Mapping):
        return [found for name, one in value.items() for found in _texts(one, f"{key}.{name}" if key else str(name))]
    if isinstance(value, list):
        return [found for one in value for found in _texts(one, key)]
    return [(key, value)] if isinstance(value, str) else []


if __name__ == "__main__":
    raise SystemExit(main(None))
