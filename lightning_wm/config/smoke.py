"""`smoke=true`: any recipe in seconds, to see that it runs. Nothing else knows of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_wm.config.store import flatten

DECISIONS = 20
"""Longest episode, in agent steps."""
_SMALL = {
    "task": {"max_decisions": DECISIONS},
    "replay": {"capacity": 1000, "batch": 4, "length": 8},
    "trainer": {"updates_per_turn": 2, "pretrain_updates": 2, "compile": False},
    "evaluation": {"episodes": 1, "final_episodes": 1, "environments": 1},
    "logging": {"every": 1},
    "planner": {"horizon": 4, "replan": 4, "iterations": 2, "candidates": 4, "elites": 2, "compile": False},
}
_WIDTHS = {"deter": 16, "hidden": 16, "units": 16, "stoch": 4, "depth": 4}
"""Layer sizes of the model and the agent, by a field's last word."""


def shrink(tree: Mapping[str, Any], typed: set[str]) -> dict[str, Any]:
    """What `smoke=true` changes: dotted key to the smaller value.

    Args:
        tree: the whole resolved configuration; only keys that are in it change, and only downwards.
        typed: dotted keys of the command line, which win.
    """
    flat = dict(flatten(tree))
    widths = {key: _WIDTHS.get(key.rpartition(".")[2]) for key in flat if key.startswith(("model.", "agent."))}
    wanted: dict[str, Any] = {**dict(flatten(_SMALL)), **widths, **_steps(flat, typed)}
    if "planner.candidates" in typed:  # the smaller number of elites is meant for the smaller number of candidates
        wanted["planner.elites"] = flat["planner.candidates"]
    if "planner.elites" in typed:
        wanted["planner.candidates"] = max(4, flat["planner.elites"] or 0)
    smaller = {}
    for key, small in wanted.items():
        value = flat.get(key)
        if small is not None and value is not None and key not in typed and _least(value, small) != value:
            smaller[key] = _least(value, small)
    if flat["task.max_decisions"] is None and "task.max_decisions" not in typed:
        smaller["task.max_decisions"] = DECISIONS
    return smaller


def _steps(flat: Mapping[str, Any], typed: set[str]) -> dict[str, int]:
    """Env steps: seed episodes, one for each rank, and two turns of one short episode for each."""

    def now(key: str, small: int) -> int:
        return int(flat[key]) if key in typed else min(int(flat[key]), small)

    ranks = flat["trainer.devices"]
    decisions = flat["task.max_decisions"] if "task.max_decisions" in typed else None
    episode = (decisions or DECISIONS) * flat["task.action_repeat"]
    seeds, turn = now("rollout.seed_episodes", ranks), now("rollout.env_steps", episode * ranks)
    total = now("env_steps", seeds * episode + 2 * turn)
    return {"rollout.seed_episodes": seeds, "rollout.env_steps": turn, "env_steps": total, "evaluation.every": total}


def _least(value: Any, small: Any) -> Any:
    """The smaller of two numbers or booleans; of a list, each."""
    if isinstance(value, list):
        return [_least(item, small) for item in value]
    return min(value, small) if type(value) is type(small) or isinstance(value, float) else value
