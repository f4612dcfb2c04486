"""`smoke=true`: any recipe in seconds, to see that it runs. Nothing else knows of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_wm.config.store import flatten

DECISIONS = 20
"""Longest episode, in agent steps."""
_CORE = {
    "task.max_decisions": DECISIONS,
    "replay.capacity": 1000,
    "replay.batch": 4,
    "replay.length": 8,
    "trainer.updates_per_turn": 2,
    "trainer.pretrain_updates": 2,
    "evaluation.episodes": 1,
    "evaluation.final_episodes": 1,
    "evaluation.environments": 1,
    "logging.every": 1,
    "planner.horizon": 4,
    "planner.replan": 4,
    "planner.iterations": 2,
    "planner.candidates": 4,
    "planner.elites": 2,
}
_WIDTHS = {"deter": 16, "hidden": 16, "units": 16, "stoch": 4, "depth": 4}
_COMPILE = ("trainer.compile", "planner.compile")


def shrink(tree: Mapping[str, Any], typed: set[str]) -> dict[str, Any]:
    """What `smoke=true` changes: dotted key to the smaller value.

    Args:
        tree: the whole resolved configuration; only keys that are in it change, and only downwards.
        typed: dotted keys of the command line, which win.
    """
    flat = dict(flatten(tree))
    wanted: dict[str, Any] = {**_CORE, **_widths(flat), **_steps(flat, typed)}
    if "planner.candidates" in typed:  # the smaller number of elites is meant for the smaller number of candidates
        wanted["planner.elites"] = flat["planner.candidates"]
    if "planner.elites" in typed:
        wanted["planner.candidates"] = max(4, flat["planner.elites"])
    smaller = {
        key: _least(flat[key], value) for key, value in wanted.items() if flat.get(key) is not None and key not in typed
    }
    if flat["task.max_decisions"] is None and "task.max_decisions" not in typed:
        smaller["task.max_decisions"] = DECISIONS
    smaller.update({key: False for key in _COMPILE if flat.get(key) and key not in typed})
    return {key: value for key, value in smaller.items() if value != flat[key]}


def _widths(flat: Mapping[str, Any]) -> dict[str, int]:
    """Layer sizes of the model and the agent, by the field's last word."""
    found = {}
    for key in flat:
        group, last = key.partition(".")[0], key.rpartition(".")[2]
        if group in ("model", "agent") and last in _WIDTHS:
            found[key] = _WIDTHS[last]
    return found


def _steps(flat: Mapping[str, Any], typed: set[str]) -> dict[str, int]:
    """Env steps: seed episodes, one for each rank, and two turns of one short episode for each."""

    def now(key: str, small: int) -> int:
        return int(flat[key]) if key in typed else min(int(flat[key]), small)

    ranks = flat["trainer.devices"]
    decisions = flat["task.max_decisions"] if "task.max_decisions" in typed else None
    episode = (decisions or DECISIONS) * flat["task.action_repeat"]
    seeds, turn = now("rollout.seed_episodes", ranks), now("rollout.env_steps", episode * ranks)
    total = now("env_steps", seeds * episode + 2 * turn)
    return {
        "rollout.seed_episodes": seeds,
        "rollout.env_steps": turn,
        "env_steps": total,
        "evaluation.every": total,
    }


def _least(value: Any, small: Any) -> Any:
    """The smaller of two numbers; of a list, each."""
    if isinstance(value, list):
        return [_least(one, small) for one in value]
    return min(value, small) if isinstance(value, int | float) and not isinstance(value, bool) else value
