"""Files that would do something if anything in them were executed."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch


class Payload:
    """Unpickling this makes a file."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.write_text, (self.sentinel, "executed")


def pickled(sentinel: Path) -> bytes:
    """A bare pickle."""
    return pickle.dumps(Payload(sentinel), protocol=2)


def torch_saved(sentinel: Path, around: dict[str, Any] | None = None, legacy: bool = False) -> bytes:
    """What `torch.save` writes: a checkpoint with the payload among its entries, or in torch's format before 1.6."""
    buffer = io.BytesIO()
    content = {**(around or {}), "payload": Payload(sentinel)}
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def rezipped(content: bytes, changes: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive again, its entries (named by their last parts) changed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as before, zipfile.ZipFile(buffer, "w", compression) as after:
        for entry in before.infolist():
            last = entry.filename.partition("/")[2]
            after.writestr(entry.filename, changes.get(last, before.read(entry)))
    return buffer.getvalue()


def bomb(size: int = 200_000_000) -> bytes:
    """A checkpoint of 200 MB in a file of 200 kB, which torch would unpack."""
    buffer = io.BytesIO()
    torch.save({"state_dict": {"x": torch.zeros(1)}, "lightning_wm": {}}, buffer)
    return rezipped(buffer.getvalue(), {"data/0": bytes(size)}, zipfile.ZIP_DEFLATED)


def safetensors_with(header: dict[str, Any], data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with any header."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data
