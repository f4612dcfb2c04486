"""Text, JSON and tensors as files that are whole or absent, and JSON back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning_wm.errors import UserError
from lightning_wm.runs import checksum
from lightning_wm.runs.disk import write_atomically

LARGEST_JSON = 50_000_000
"""Bytes; an evaluation of a thousand episodes has 20,000."""


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole.

    Raises:
        DiskError, UserError: of `write_atomically`.
    """
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path: Path, content: object) -> None:
    """Write a JSON file as a whole; not-a-number becomes null.

    Raises:
        DiskError, UserError: of `write_atomically`.
    """
    write_text(path, json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")


def write_tensors(path: Path, content: object) -> None:
    """Write plain containers and tensors as a whole, with a checksum, for `torch.load(path, weights_only=True)`.

    Raises:
        DiskError, UserError: of `write_atomically`.
    """
    packed = checksum.packed(content)  # torch.save into a file hides a full disk behind a RuntimeError of its own
    write_atomically(path, lambda file: file.write(packed))


def _finite(content: object) -> object:
    if isinstance(content, dict):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    if isinstance(content, float) and content != content:
        return None
    return content


def read_json(path: Path, largest: int = LARGEST_JSON) -> Any:
    """Read a JSON file of a run, which is never large.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        with path.open("rb") as file:
            text = file.read(largest + 1)
        if len(text) > largest:
            raise ValueError(f"more than {largest:,} bytes")
        return json.loads(text)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; expected the folder of a run; type run=<its path>") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); expected JSON") from error
