"""Which run a configuration makes: its directory, and what may differ when it goes on. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_wm import registry
from lightning_wm.config.load import Loaded
from lightning_wm.config.store import completed, flatten, parse, path_of, stored

_FREE = ("env_steps", "run", "resume", "recipe", "trust", "plugins", "rollout.failures", "rollout.failure_window")
_FREE_GROUPS = ("evaluation", "logging", "callbacks")


def run_directory(loaded: Loaded) -> Path:
    """`run=`, or `runs/<recipe>-s<seed>`, with a hash of the overrides that make it another run."""
    if loaded.config.run:
        return path_of("run", loaded.config.run)
    flat, name = dict(flatten(loaded.tree)), f"{loaded.recipe}-s{loaded.config.seed}"
    typed = dict(token.split("=", 1) for token in loaded.overrides)
    # 5e2 and 500 are one value in the tree.
    kept = {key: flat[key] if key in flat else parse(text) for key, text in typed.items() if makes_another(key)}
    if kept:
        name += f"-{hashlib.blake2b(json.dumps(kept, sort_keys=True).encode(), digest_size=4).hexdigest()}"
    return Path("runs") / name


def makes_another(key: str) -> bool:
    """Whether a dotted key that is typed makes another run of a recipe; the seed is told apart by itself."""
    return key != "seed" and not may_differ(key)


def may_differ(key: str) -> bool:
    """Whether a dotted key may change when a run is continued; `env_steps` may only grow."""
    return key in _FREE or key.partition(".")[0] in _FREE_GROUPS


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What keeps a run with the stored tree `old` from going on as `new`; empty where nothing does.

    A field that `old` lacks, since it was stored before there was one, counts as its default.
    """
    before = dict(flatten(stored(completed(old, registry.configs))))
    after = dict(flatten(stored(new)))
    messages = []
    for key in sorted({*before, *after}):
        if not may_differ(key) and before.get(key) != after.get(key):
            had, now = (json.dumps(flat[key]) if key in flat else "nothing" for flat in (before, after))
            messages.append(f"{key}: the run has {had}, now {now}")
    steps, wanted = before.get("env_steps"), after.get("env_steps")
    if isinstance(steps, int) and isinstance(wanted, int) and wanted < steps:
        messages.append(
            f"env_steps: the run has {steps}, now {wanted}; it can only grow; type env_steps={steps} or more"
        )
    return messages
