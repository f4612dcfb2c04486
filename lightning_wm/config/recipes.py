"""The shipped recipes: whole experiments, and the groups they are made of.

In a checkout they lie in `recipes/` beside the package, in an installed
package inside it.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from lightning_wm.errors import UserError

PARTS = ("model", "agent", "planner")
"""Groups whose class comes from the registry; a choice replaces all of the group's fields."""
GROUPS = (*PARTS, "observation", "trainer")
"""Top-level keys that `group=name` fills from `recipes/<group>/<name>.yaml`."""
NOT_STORED = ("recipe", "run", "resume", "trust", "smoke")
"""Keys that a run's `config.yaml` lacks: they are about the command, or (smoke) have had their effect."""
_NO_RECIPES = (*GROUPS, "study")


@cache
def root() -> Path:
    """The folder of the shipped recipes.

    Raises:
        UserError: the installation is damaged.
    """
    package = Path(__file__).resolve().parent.parent
    checkout = package.parent / "recipes"
    if (package / "recipes").is_dir():
        return package / "recipes"
    if (package.parent / "pyproject.toml").is_file() and checkout.is_dir():
        return checkout
    raise UserError(f"no recipes in {package}; install again: pip install --force-reinstall lightning_wm")


def choices(group: str) -> list[str]:
    """Names of a group's files, sorted."""
    return sorted(path.stem for path in (root() / group).glob("*.yaml"))


def group_file(group: str, name: str) -> Path | None:
    """The file of `group=name`, or None where no file has the name."""
    path = root() / group / f"{name}.yaml"
    return path if re.fullmatch(r"[\w-]+", name) and path.is_file() else None


def recipe_file(name: str) -> Path | None:
    """The file of a shipped recipe, also of one that is only inherited from."""
    return root() / f"{name}.yaml" if name in names() or re.fullmatch(r"(dense|sparse|state)/base", name) else None


def names() -> list[str]:
    """Names of the shipped experiments, sorted: quickstart, dense/cheetah_run, ...; not `base`, which others share."""
    found = (path.relative_to(root()).with_suffix("") for path in root().rglob("*.yaml"))
    return sorted(name.as_posix() for name in found if name.parts[0] not in _NO_RECIPES and name.name != "base")


def recipe_names() -> list[tuple[str, str]]:
    """Each shipped experiment with the sentence in its file's first line."""
    return [(name, _first_comment(root() / f"{name}.yaml")) for name in names()]


def shown(path: Path) -> str:
    """How a file is called in messages: `recipes/...` for a shipped one."""
    try:
        return (Path("recipes") / path.resolve().relative_to(root())).as_posix()
    except ValueError:
        return str(path)


def _first_comment(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        first = file.readline().strip()
    return first.lstrip("# ") if first.startswith("#") else ""
