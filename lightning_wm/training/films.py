"""Films as the moving pictures that TensorBoard shows."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
from PIL import Image

SIDE, EVERY, SECONDS = 128, 2, 0.08
"""Pixels; one frame of how many is shown, and for how long."""


@dataclass(frozen=True)
class Gif:
    """A moving picture."""

    content: bytes
    size: int
    """Height and width in pixels."""


def as_gif(film: Path) -> Gif:
    """Every second frame of an .mp4 at half its speed's cost: about a tenth of a megabyte for 100 decisions."""
    frames = [Image.fromarray(np.asarray(frame)).resize((SIDE, SIDE)) for frame in imageio.imiter(film)][::EVERY]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=int(1000 * SECONDS), loop=0)
    return Gif(buffer.getvalue(), SIDE)
