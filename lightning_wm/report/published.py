"""Numbers that others have published, as the package ships them.

`published_results.csv` has a row a number: task, observation (`state` or `pixels`), env steps, method, mean, standard
deviation over seeds, seeds, source. Where a source counts in another way, it says so there.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

FILE = "published_results.csv"


@dataclass(frozen=True)
class Published:
    """One published number."""

    task: str
    """Without the simulator: `walker_walk`."""
    observation: str
    env_steps: int
    method: str
    mean: float
    std: float | None
    """Over seeds; None where it is not known."""
    seeds: int | None
    source: str

    @property
    def whose(self) -> str:
        """Whose runs they are: the GitHub repository or the paper that the number is from.

        It need not be the method's: many numbers are from another method's comparison.
        """
        repository = re.match(r"[\w.-]+/[\w.-]+", self.source)
        return repository[0] if repository else self.source.partition(" Table")[0]

    @property
    def action_repeat(self) -> int | None:
        """Env steps that an action was held for; None where method and source do not say."""
        stated = re.search(r"repeat (\d+)", f"{self.method}; {self.source}")
        return int(stated[1]) if stated else None


@cache
def published() -> tuple[Published, ...]:
    """Every number, in the file's order."""
    text = (files(__package__) / FILE).read_text(encoding="utf-8")
    return tuple(
        Published(
            task=line["task"],
            observation=line["observation"],
            env_steps=int(line["env_steps"]),
            method=line["method"],
            mean=float(line["mean"]),
            std=float(line["std"]) if line["std"] else None,
            seeds=int(line["seeds"]) if line["seeds"] else None,
            source=line["source"],
        )
        for line in csv.DictReader(text.splitlines())
    )


def scores(task: str, observation: str, env_steps: int) -> list[Published]:
    """The published numbers at exactly that budget, the strongest first.

    Args:
        task: as in a recipe (`dmc/walker_walk`) or without the simulator.
        observation: `state` or `pixels`.
        env_steps: the budget, seed episodes included.
    """
    name = task.removeprefix("dmc/")
    same = [row for row in published() if (row.task, row.observation, row.env_steps) == (name, observation, env_steps)]
    return sorted(same, key=lambda row: (-row.mean, row.method, row.source))


def strongest(task: str, observation: str, env_steps: int) -> Published | None:
    """The strongest published number at that budget; None where there is none."""
    return next(iter(scores(task, observation, env_steps)), None)
