"""A model folder to share: `python -m lightning_wm.export run=runs/mine out=my_model`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from lightning_wm import config as configuration
from lightning_wm.config.fields import settings
from lightning_wm.console.command import command
from lightning_wm.errors import ConfigError, UserError

if TYPE_CHECKING:
    from lightning_wm.config.schema import Config
    from lightning_wm.runs.loading import LoadedRun


@settings("")
class ExportOptions:
    """What `export` is told."""

    run: Annotated[str, Field(examples=["runs/quickstart-s0"])]
    """Run directory."""
    out: Annotated[str, Field(examples=["my_model"])]
    """Model folder, or the policy's file; it must not be there yet."""
    format: Annotated[Literal["folder", "onnx", "pt2"], Field(description="folder, onnx or pt2")] = "folder"
    """A model `folder`, or the policy alone as one file: `onnx`, or `pt2`, a program of torch.export."""
    checkpoint: Annotated[Literal["last", "best"], Field(description="last or best")] = "last"
    """`last` or `best` (by evaluation during training)."""
    plugins: list[str] = field(default_factory=list)
    """Modules to import first; those of the run's config.yaml load only if typed here or with trust=true."""
    trust: bool = False
    """Load the plugins that the run's config.yaml names."""
    licence: (
        Annotated[
            str,
            Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", description="a licence's identifier", examples=["apache-2.0"]),
        ]
        | None
    ) = None
    """Named on the card; null: to be chosen."""
    push: Annotated[str, Field(examples=["hub:me/walker_walk"])] | None = None
    """Put it on a hub too, with the newest film of the run."""
    leave_out: list[str] = field(default_factory=list)
    """Fields of the configuration that are not shared, dotted (callbacks.mine.path): their defaults count again."""


USAGE = "python -m lightning_wm.export run=RUN out=FOLDER [format=folder|onnx|pt2] [checkpoint=last|best]"


@command(lambda _: configuration.options_help(ExportOptions, USAGE))
def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    options = configuration.options(arguments, ExportOptions)
    if options.format != "folder":
        print(export_policy(options, options.format))
        return 0
    out = export(options)
    print(out)
    if options.push is not None:
        print(_pushed(out, options))
    command = shlex.join(["python", "-m", "lightning_wm.evaluate", f"run={out}"])
    first = "" if options.licence else f"add a licence to {out / 'README.md'}, then "
    print(f"{first}try it: {command}")
    return 0


def _pushed(out: Path, options: ExportOptions) -> str:
    """Put the folder on the hub; returns its address."""
    from lightning_wm.runs.hub import push
    from lightning_wm.runs.sources import locate

    assert options.push is not None
    return push(out, options.push.removeprefix("hub:"), locate(options.run).run.newest_film())


def export(options: ExportOptions) -> Path:
    """Write the model folder, whole or not at all; returns where it lies.

    Raises:
        UserError: the run cannot be read, its configuration names a path of this machine, or `out` is there already.
        DiskError: the folder cannot be written.
    """
    from lightning_wm.runs.card import card
    from lightning_wm.runs.files import write_json, write_text
    from lightning_wm.runs.interface import write_interface
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

    out = Path(options.out)
    refuse_existing(out)
    loaded = load_run(options.run, options.checkpoint, options.plugins, options.trust)
    tree = _shared(loaded.tree, options)
    _refuse_paths(tree, loaded.run.config)
    config = configuration.from_tree(tree, options.plugins, options.trust)
    judged, tensors = evaluation(loaded), loaded.agent.state_dict()
    if options.leave_out:
        _refuse_misfit(config, loaded, options.leave_out)
    with new_folder(out) as folder:
        write_weights(folder, Weights(tensors, loaded.env_steps, loaded.checkpoint))
        write_text(folder / CONFIG, configuration.to_yaml(tree))
        write_interface(folder, loaded.interface)
        if judged is not None:
            write_json(folder / EVALUATION, judged)
        parameters = sum(value.numel() for value in tensors.values())
        about = (out.resolve().name, loaded.env_steps, loaded.checkpoint, parameters, loaded.model is not None)
        write_text(folder / CARD, card(config, *about, judged, options.licence))
    return out


def _refuse_misfit(config: Config, loaded: LoadedRun, left_out: Sequence[str]) -> None:
    """What stands for a field that is left out has to be what the weights were made with."""
    from lightning_wm.runs.weights import put_weights
    from lightning_wm.training.experiment import build_agent

    try:
        put_weights(build_agent(config, loaded.interface.spaces), loaded.agent.state_dict(), loaded.folder)
    except UserError as error:
        keys = ",".join(left_out)
        raise UserError(
            f"leave_out=[{keys}]: with the defaults instead the weights do not fit ({error}); leave out paths alone"
        ) from error


def export_policy(options: ExportOptions, kind: Literal["onnx", "pt2"]) -> Path:
    """Write the policy's file, whole or not at all; returns where it lies.

    Raises:
        UserError: the run cannot be read or has learned no policy, or `out` is there already.
        DiskError: the file cannot be written.
    """
    from lightning_wm.runs.loading import load_run
    from lightning_wm.runs.model_folder import refuse_existing
    from lightning_wm.runs.policy_file import write_policy

    out = Path(options.out)
    refuse_existing(out)
    if options.push is not None:
        raise UserError(f"push={options.push} is for model folders; leave it out, or type format=folder")
    write_policy(load_run(options.run, options.checkpoint, options.plugins, options.trust), out, kind)
    return out


def evaluation(loaded: LoadedRun) -> dict[str, Any] | None:
    """What these weights earned on their task: a model folder's own file, a run's final one, else the newest; or None.

    Raises:
        UserError: its file is damaged.
    """
    from lightning_wm.runs.evaluation_file import read_evaluation
    from lightning_wm.runs.model_folder import EVALUATION

    folder, own = loaded.run.evaluations, loaded.folder / EVALUATION
    paths = sorted(folder.glob("*.json"), key=lambda path: (path.name == "final.json", path.stat().st_mtime_ns))
    for path in [*([own] if own.is_file() else []), *reversed(paths)]:
        judged = read_evaluation(path)
        theirs = (judged.env_steps, judged.checkpoint) == (loaded.env_steps, loaded.checkpoint)
        if theirs and not judged.perturb:
            return judged.as_json()
    return None


def _shared(tree: Mapping[str, Any], options: ExportOptions) -> dict[str, Any]:
    """The configuration without the fields that are left out.

    Raises:
        ConfigError: names those that it has not.
    """
    shared = deepcopy(dict(tree))
    faults = []
    for key in options.leave_out:
        *path, name = key.split(".")
        inside: object = shared
        for part in path:
            inside = inside.get(part) if isinstance(inside, dict) else None
        if isinstance(inside, dict) and name in inside:
            del inside[name]
        else:
            faults.append(f"leave_out={key}: the run's configuration has no such field")
    if faults:
        raise ConfigError(faults)
    return shared


def _refuse_paths(tree: Mapping[str, Any], file: Path) -> None:
    """A shared folder says nothing about where it was made."""
    for key, value in _texts(tree):
        if Path(value).is_absolute() or value.startswith("~"):
            raise UserError(
                f"{file}: {key}={value} is a path of this machine; expected none in what is shared; "
                f"type {shlex.quote(f'leave_out=[{key}]')} to share it without this field, whose default counts then"
            )


def _texts(value: object, key: str = "") -> list[tuple[str, str]]:
    """Every text in a tree with its dotted key."""
    if isinstance(value, Mapping):
        return [text for name, part in value.items() for text in _texts(part, f"{key}.{name}" if key else str(name))]
    if isinstance(value, list):
        return [text for part in value for text in _texts(part, key)]
    return [(key, value)] if isinstance(value, str) else []


if __name__ == "__main__":
    raise SystemExit(main(None))
