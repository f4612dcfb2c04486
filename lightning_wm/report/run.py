"""A run directory, read into rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from lightning_wm import config as configuration
from lightning_wm.errors import UserError
from lightning_wm.report.rows import CurveRow, EvaluationRow, Run, compact, curve_rows, evaluation_row
from lightning_wm.runs.directory import RunDirectory
from lightning_wm.runs.evaluation_file import read_evaluation
from lightning_wm.runs.files import read_json
from lightning_wm.runs.identity import makes_another
from lightning_wm.runs.untrusted import check_folder

REVISION = 7
"""Letters of a git revision that a row keeps."""


def read_run(path: Path | str) -> tuple[list[EvaluationRow], list[CurveRow]]:
    """A run directory's evaluations and its learning curve.

    Raises:
        UserError: it is no run directory, or its metrics are missing or end in the middle of a line.
    """
    folder = RunDirectory(path)
    if not folder.exists() or not folder.meta.is_file():
        raise UserError(f"{path} is not the folder of a run (no config.yaml or meta.json); type runs=<one of fit's>")
    check_folder(folder.path)
    run = describe(folder)
    evaluations = [_evaluation(file, run) for file in sorted(folder.evaluations.glob("*.json"))]
    return evaluations, curve_rows(read_whole_metrics(folder.metrics), run)


def _evaluation(file: Path, run: Run) -> EvaluationRow:
    content = read_evaluation(file).as_json()
    try:
        return evaluation_row(content, run)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged or foreign ({error}); expected an evaluation; remove it") from error


def describe(folder: RunDirectory) -> Run:
    """Which run a directory is of, from its `config.yaml` and `meta.json`.

    Raises:
        UserError: one of them lacks what it should have.
    """
    config, meta = configuration.read_tree(folder.config), read_json(folder.meta)
    if not isinstance(meta, dict):
        raise UserError(f"{folder.meta} is damaged (it holds no object); expected what fit wrote")
    argv = meta.get("argv")
    typed = typed_settings(argv if isinstance(argv, list) else [])
    recipe, revision = typed.get("recipe"), meta.get("revision")
    try:
        return Run(
            recipe=recipe_name(recipe) if recipe else folder.path.resolve().name.removesuffix(f"-s{config['seed']}"),
            task=str(config["task"]["name"]),
            observation=str(config["observation"]["kind"]),
            agent=str(config["agent"]["name"]),
            action_repeat=int(config["task"]["action_repeat"]),
            run_seed=int(config["seed"]),
            settings=compact(run_settings(typed, config)),
            revision=revision[:REVISION] if isinstance(revision, str) else "",
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder.config} is damaged or foreign ({error}); expected what fit wrote") from error


def typed_settings(argv: list[Any]) -> dict[str, str]:
    """`key=value` tokens of a command line as they were typed, the last of a key."""
    pairs = (token.partition("=") for token in argv if isinstance(token, str) and "=" in token)
    return {key: value for key, _, value in pairs}


def run_settings(typed: Mapping[str, str], config: Mapping[str, Any]) -> dict[str, Any]:
    """What a command line changed of its recipe, each value as the run's configuration has it."""
    kept: dict[str, Any] = {}
    for key, text in typed.items():
        if not makes_another(key):
            continue
        value: object = config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        changed = text if isinstance(value, Mapping) or value is None else value
        # `compact` leaves out what is off by itself, but what was switched off on the command line is a change.
        kept[key] = changed if changed else json.dumps(changed)
    return kept


def recipe_name(text: str) -> str:
    """A shipped recipe's name as it is; of a path the file's name, or its folder's where it is a `config.yaml`."""
    path = PurePath(text)
    if path.suffix not in (".yaml", ".yml"):
        return text
    return path.parent.name if path.stem == "config" and path.parent.name else path.stem


def read_whole_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`, all of them.

    Raises:
        UserError: there is none, a line is none of fit's, or the last line is cut short.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; expected the metrics of a run; let the run learn first")
    lines: list[dict[str, Any]] = []
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        for number, text in enumerate(file, 1):
            line = _line(text)
            if line is None:
                raise UserError(
                    f"{path}, line {number} is damaged or half written; "
                    "wait for the run, or continue it with the command that started it"
                )
            lines.append(line)
    if not lines:
        raise UserError(f"{path} is empty; let the run learn first")
    return lines


def _line(text: str) -> dict[str, Any] | None:
    """A line that is whole and has the counters of every line."""
    try:
        content = json.loads(text) if text.endswith("\n") else None
    except (ValueError, RecursionError):
        return None
    counted = isinstance(content, dict) and all(type(content.get(name)) is int for name in ("env_steps", "updates"))
    return content if counted else None
