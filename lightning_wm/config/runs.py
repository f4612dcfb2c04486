"""The run directory, and what may differ when a run goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_wm.config.layers import flatten
from lightning_wm.config.line import read_line
from lightning_wm.config.load import Loaded
from lightning_wm.config.recipes import NOT_STORED

_FREE = (
    "env_steps", "run", "resume", "recipe", "trust", "plugins", "rollout.failures", "rollout.failure_window",
)  # fmt: skip
_FREE_GROUPS = ("evaluation", "logging", "callbacks")


def may_differ(key: str) -> bool:
    """Whether a dotted key may change when a run is continued; `env_steps` may only grow."""
    return key in _FREE or key.partition(".")[0] in _FREE_GROUPS


def run_directory(loaded: Loaded) -> Path:
    """`run=`, or `runs/<recipe>-s<seed>`, with a hash of the overrides that make it another run."""
    if loaded.config.run:
        return Path(loaded.config.run)
    line = read_line(loaded.overrides)
    typed = dict(flatten(loaded.tree))  # 5e2 and 500 are one value there
    kept = {key: typed.get(key, value) for key, value in line.values.items() if not may_differ(key) and key != "seed"}
    name = f"{loaded.recipe}-s{loaded.config.seed}"
    if kept:
        text = json.dumps(kept, sort_keys=True)
        name += f"-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"
    return Path("runs") / name


def stored(tree: Mapping[str, Any]) -> dict[str, Any]:
    """What `config.yaml` of a run keeps of a tree."""
    return {key: value for key, value in tree.items() if key not in NOT_STORED}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What keeps a run with the stored tree `old` from going on as `new`; empty where nothing does."""
    before, after = dict(flatten(stored(old))), dict(flatten(stored(new)))
    messages = []
    for key in sorted({*before, *after}):
        if not may_differ(key) and before.get(key) != after.get(key):
            messages.append(f"{key}: the run has {_shown(before, key)}, now {_shown(after, key)}")
    had, now = before.get("env_steps"), after.get("env_steps")
    if isinstance(had, int) and isinstance(now, int) and now < had:
        messages.append(f"env_steps: the run has {had}, now {now}; it can only grow; type env_steps={had} or more")
    return messages


def _shown(flat: Mapping[str, Any], key: str) -> str:
    return json.dumps(flat[key]) if key in flat else "nothing"
