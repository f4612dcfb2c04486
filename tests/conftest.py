"""Runs that several tests look at."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_wm.fit import main as fit

TINY = [
    "recipe=quickstart",
    "smoke=true",
    "evaluation.every=160",
    "logging.tensorboard=false",
    "logging.progress=false",
]
"""A quickstart of seconds."""

_COUNTERS = dict.fromkeys(("env_steps", "agent_steps", "episodes", "rank_episodes", "turns", "seconds"), 0)
ADDED = {"format": 1, "ranks": [{"counters": _COUNTERS, "replay": {}}], "metrics_bytes": 0}
"""The least that a checkpoint has under the key `lightning_wm`."""


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished smoke run of the quickstart; only to be read."""
    run = tmp_path_factory.mktemp("trained") / "run"
    assert fit([*TINY, f"run={run}", "evaluation.video=false"]) == 0
    return run


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Callable[[], Path]:
    """Makes a copy of the finished run that may be changed."""

    def make() -> Path:
        target = tmp_path / "copy"
        shutil.copytree(trained, target)
        return target

    return make
