"""Model folders on a hub of Hugging Face's kind; `HF_ENDPOINT` names another one, `HF_TOKEN` who you are."""

from __future__ import annotations

import importlib
import re
import shutil
import tempfile
from pathlib import Path
from types import ModuleType

from lightning_wm.errors import UserError
from lightning_wm.runs.interface import SPACES
from lightning_wm.runs.model_folder import CARD, CONFIG, EVALUATION, WEIGHTS
from lightning_wm.runs.untrusted import reason

NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
VIDEO = "episode.mp4"
FILES = (CONFIG, WEIGHTS, EVALUATION, SPACES, CARD, VIDEO)
"""What is shared; nothing else is fetched, whatever lies there."""


def pull(name: str, into: Path) -> Path:
    """Fetch a model folder; one that was fetched before serves where the hub cannot be reached.

    Args:
        name: `USER/NAME`.
        into: the folder to be.

    Raises:
        UserError: no such model, no hub, or `huggingface_hub` is not installed.
    """
    _check(name, "run")
    hub = _hub()
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".hub-", dir=into.parent) as place:
        fetched = Path(place)
        try:
            hub.snapshot_download(name, local_dir=fetched, allow_patterns=list(FILES))
        except Exception as error:
            if (into / WEIGHTS).is_file() and _out_of_reach(hub, error):
                return into
            raise _refusal(hub, f"run=hub:{name}", error) from error
        if not (fetched / WEIGHTS).is_file() or not (fetched / CONFIG).is_file():
            raise UserError(
                f"run=hub:{name} holds no {CONFIG} and {WEIGHTS}; expected a model folder that export wrote"
            )
        _replace(into, fetched)
    return into


def _replace(into: Path, fetched: Path) -> None:
    """Make the files of a model folder those that were fetched; evaluations and films beside them stay.

    The weights go first and come last: a folder that has them is whole.
    """
    into.mkdir(exist_ok=True)
    for name in sorted(FILES, key=lambda name: name != WEIGHTS):
        (into / name).unlink(missing_ok=True)
    for name in sorted(FILES, key=lambda name: name == WEIGHTS):
        if (fetched / name).is_file():
            (fetched / name).rename(into / name)


def push(folder: Path, name: str, video: Path | None = None) -> str:
    """Put a model folder on the hub, as one commit; returns its address.

    Args:
        folder: of export.
        name: `USER/NAME`; made where it is not there yet.
        video: an episode, shown on the card; None for none.

    Raises:
        UserError: the hub refuses, cannot be reached, or `huggingface_hub` is not installed.
    """
    _check(name, "push")
    hub = _hub()
    with tempfile.TemporaryDirectory() as place:
        staged = Path(place) / "model"
        shutil.copytree(folder, staged)
        if video is not None:
            shutil.copyfile(video, staged / VIDEO)
        try:
            api = hub.HfApi()
            address = str(api.create_repo(name, exist_ok=True))
            api.upload_folder(repo_id=name, folder_path=staged, commit_message=f"{folder.name} of lightning_wm")
        except Exception as error:
            raise _refusal(hub, f"push=hub:{name}", error) from error
    return address


def _check(name: str, key: str) -> None:
    if not NAME.fullmatch(name):
        raise UserError(f"{key}=hub:{name}: expected hub:USER/NAME; type e.g. {key}=hub:me/walker_walk")


def _hub() -> ModuleType:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise UserError("huggingface_hub is not installed; type `pip install 'lightning_wm[hub]'`") from error


def _out_of_reach(hub: ModuleType, error: Exception) -> bool:
    return not isinstance(error, hub.errors.RepositoryNotFoundError | hub.errors.GatedRepoError)


def _refusal(hub: ModuleType, asked: str, error: Exception) -> UserError:
    missing = hub.errors.RepositoryNotFoundError
    if isinstance(error, missing):
        return UserError(f"{asked}: there is no such model, or it is not yours to see; check the name, or set HF_TOKEN")
    return UserError(
        f"{asked}: the hub cannot be reached or refuses ({reason(error)}); expected an answer from HF_ENDPOINT; try "
        "again, or use a folder: run=<one of export's>"
    )
