"""Where `run=` points: a folder, a model that ships (`zoo:NAME`), or one of a hub (`hub:USER/NAME`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lightning_wm.errors import UserError, nearest
from lightning_wm.runs.directory import RunDirectory

ZOO = Path(__file__).resolve().parents[1] / "zoo"


@dataclass(frozen=True)
class Source:
    """A run or model folder, and where what is made of it goes."""

    folder: Path
    """Is read, and may belong to the installation."""
    run: RunDirectory
    """Takes evaluations and films."""


def zoo() -> list[str]:
    """The names of the models that ship."""
    return sorted(path.name for path in ZOO.iterdir() if (path / "config.yaml").is_file()) if ZOO.is_dir() else []


def locate(run: Path | str) -> Source:
    """Find what `run=` names.

    Raises:
        UserError: there is no such model in the zoo, or it cannot be had from the hub.
    """
    place, colon, name = str(run).partition(":")
    if colon and place == "zoo":
        return Source(_shipped(name), RunDirectory(Path("runs") / f"zoo-{name}"))
    if colon and place == "hub":
        from lightning_wm.runs.hub import pull

        folder = pull(name, Path("runs") / f"hub-{name.replace('/', '--')}")
        return Source(folder, RunDirectory(folder))
    return Source(Path(run), RunDirectory(run))


def _shipped(name: str) -> Path:
    known = zoo()
    if name not in known:
        near = nearest(name, known) or next(iter(known), "NAME")
        raise UserError(f"run=zoo:{name}: no such model ships; expected one of {', '.join(known)}; type run=zoo:{near}")
    return ZOO / name
