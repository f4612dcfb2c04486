"""A checksum inside the file that it is of.

`torch.save` writes a zip archive; the last two bytes of one are the length of
a comment, which torch leaves empty. The comment written here is the SHA-256 of
everything before it, so that a checkpoint and its checksum get their name in
one rename, and whatever reads torch's files reads the file as before.
"""

from __future__ import annotations

import hashlib
import struct
from io import BytesIO
from pathlib import Path

import torch

MARK = b"lightning_wm sha256="
COMMENT = len(MARK) + 64
EMPTY = struct.pack("<H", 0)
TAIL = struct.pack("<H", COMMENT) + MARK
CHUNK = 1 << 20


def packed(content: object) -> memoryview:
    """What `torch.save` writes, with the checksum as the archive's comment."""
    buffer = BytesIO()
    torch.save(content, buffer)
    digest = hashlib.sha256(buffer.getbuffer()).hexdigest()
    buffer.seek(-len(EMPTY), 2)
    buffer.write(TAIL + digest.encode())
    return buffer.getbuffer()


def sealed(path: Path) -> bool:
    """Whether a file has a checksum; the first checkpoints of format 1 have none.

    Raises:
        ValueError: its content is not what the checksum was taken of.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2) - COMMENT - len(EMPTY)
        file.seek(max(0, size))
        tail = file.read()
        if size < 0 or not tail.startswith(TAIL):
            return False
        file.seek(0)
        digest = hashlib.sha256()
        while size > 0 and (part := file.read(min(CHUNK, size))):
            digest.update(part)
            size -= len(part)
    digest.update(EMPTY)
    if digest.hexdigest().encode() != tail[len(TAIL) :]:
        raise ValueError("its content does not match its checksum")
    return True
