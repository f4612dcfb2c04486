"""The shipped recipes and groups, and the file that a recipe's name means."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from lightning_wm.config.store import PARTS, path_of
from lightning_wm.errors import UserError, hint

GROUPS = (*PARTS, "observation", "trainer")
"""Top-level keys that `group=name` fills from `recipes/<group>/<name>.yaml`."""
SHARED = "base"
"""What a recipe is called that only holds what those beside it share: `defaults` name it, no list does."""


@cache
def root() -> Path:
    """The folder of the shipped recipes: in a checkout beside the package, in an installed one inside it.

    Raises:
        UserError: the installation is damaged.
    """
    package = Path(__file__).resolve().parent.parent
    if (package / "recipes").is_dir():
        return package / "recipes"
    if (package.parent / "pyproject.toml").is_file() and (package.parent / "recipes").is_dir():
        return package.parent / "recipes"
    raise UserError(f"no recipes in {package}; install again: pip install --force-reinstall lightning_wm")


@cache
def choices(group: str) -> list[str]:
    """Names of a group's files, sorted."""
    return sorted(path.stem for path in (root() / group).glob("*.yaml"))


def group_file(group: str, name: str) -> Path | None:
    """The file of `group=name`, or None where no file has the name."""
    return root() / group / f"{name}.yaml" if name in choices(group) else None


@cache
def _shipped() -> list[str]:
    """Names of the shipped recipes, sorted."""
    names = (path.relative_to(root()).with_suffix("") for path in root().rglob("*.yaml"))
    return sorted(name.as_posix() for name in names if name.parts[0] not in (*GROUPS, "study"))


@cache
def names() -> list[str]:
    """Names of the shipped experiments, sorted: quickstart, dense/cheetah_run, ...; not what they share."""
    return [name for name in _shipped() if name.rpartition("/")[2] != SHARED]


def recipe_names() -> list[tuple[str, str]]:
    """Each shipped experiment with the sentence in its file's first line."""
    first = ((name, (root() / f"{name}.yaml").read_text("utf-8").partition("\n")[0]) for name in names())
    return [(name, line.lstrip("# ").strip() if line.startswith("#") else "") for name, line in first]


def shown(path: Path) -> str:
    """How a file is called in messages: `recipes/...` for a shipped one."""
    whole = path.resolve()
    return f"recipes/{whole.relative_to(root()).as_posix()}" if whole.is_relative_to(root()) else str(path)


def find(name: str, beside: Path | None = None) -> Path:
    """The file of a recipe: a shipped name, or a path (from a recipe's `defaults`, relative to it).

    Raises:
        UserError: there is no such recipe.
    """
    if name in _shipped():
        return root() / f"{name}.yaml"
    try:
        path = (beside.parent if beside else Path()) / path_of("recipe", name)
        if path.is_file():
            return path
        if (path / "config.yaml").is_file():
            raise UserError(f"recipe={name} is a folder; type recipe={path / 'config.yaml'}")
    except (OSError, ValueError) as error:  # too long, a null byte
        raise UserError(f"recipe={name}: no path that can be read ({error})") from error
    if name.endswith((".yaml", ".yml")):
        raise UserError(f"recipe={name}: there is no such file")
    raise UserError(f"recipe={name}: there is no such recipe; type recipe=list to see them all{hint(name, names())}")
