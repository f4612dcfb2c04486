"""Films as the moving pictures that TensorBoard shows."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
from PIL import Image

SMALLER, EVERY, SECONDS = 2, 2, 0.08
"""How much smaller a frame is; one frame of how many is shown, and for how long."""


@dataclass(frozen=True)
class Gif:
    """A moving picture."""

    content: bytes
    height: int
    """Pixels, as the width."""
    width: int


def as_gif(film: Path) -> Gif:
    """Every second frame of an .mp4 at half its speed's cost: about a tenth of a megabyte for 100 decisions."""
    frames = [Image.fromarray(np.asarray(frame)).reduce(SMALLER) for frame in imageio.imiter(film)][::EVERY]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=int(1000 * SECONDS), loop=0)
    return Gif(buffer.getvalue(), frames[0].height, frames[0].width)
