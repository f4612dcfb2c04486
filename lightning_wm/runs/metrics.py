"""The end of a metrics.jsonl, which may be long and may be written to meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TAIL = 1 << 16
"""Bytes."""


def tail(path: Path) -> list[dict[str, Any]]:
    """The newest rows that have a time and a number of env steps; none where there is no such file yet."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL))
            lines = file.read().splitlines()
    except OSError:
        return []
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):  # the first may be cut, the last half written
            continue
        if isinstance(row, dict) and all(type(row.get(name)) in (int, float) for name in ("seconds", "env_steps")):
            rows.append(row)
    return rows
