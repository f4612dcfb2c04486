"""Frames that show a prediction beside the truth."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Frame: TypeAlias = NDArray[np.uint8]
Numbers: TypeAlias = NDArray[np.float32]

SIDE = 128
"""Pixels of a picture at least."""
GAP = 16
BLOCK = 16
"""A film's height and width are multiples of it."""
SEEN, PREDICTED = (70, 160, 90), (200, 80, 60)
"""Colours of the line above: while the model is shown the truth, and from then on."""
PANELS = 12
"""Numbers of a state vector that have a curve: those that vary most."""


def compared(truth: Numbers, imagined: Numbers, seen: int) -> list[Frame]:
    """Truth | imagined | error, `(imagined - truth + 1) / 2` so that grey is none; `[B, T, 3, X, Y]` in [0, 1] each."""
    error = (imagined - truth + 1) / 2
    sides = [np.moveaxis(side, 2, -1) for side in (truth, imagined, error)]  # B, T, X, Y, 3
    factor = -(-SIDE // truth.shape[-1])
    drawn = []
    for step in range(truth.shape[1]):
        rows = [[_enlarged(side[row, step], factor) for side in sides] for row in range(len(truth))]
        drawn.append(_sheet(rows, step, seen))
    return drawn


def paired(truth: list[Frame], imagined: list[Frame], seen: int) -> list[Frame]:
    """Truth | imagined, pictures `[X, Y, 3]` of one size by step."""
    pairs = zip(truth, imagined, strict=True)
    return [_sheet([list(pair)], step, seen) for step, pair in enumerate(pairs)]


def _sheet(rows: list[list[Frame]], step: int, seen: int) -> Frame:
    """Pictures side by side and rows of them below one another, under a head."""
    return padded(np.concatenate([_headed(rows[0], step, seen), *(_joined(row) for row in rows)]))


def _enlarged(picture: Numbers, factor: int) -> Frame:
    image = (picture.clip(0, 1) * 255).round().astype(np.uint8)
    return image.repeat(factor, 0).repeat(factor, 1)


def _joined(pictures: list[Frame]) -> Frame:
    """Side by side, a gap between them and below."""
    height = len(pictures[0])
    gap = np.full((height, GAP, 3), 255, np.uint8)
    row = np.concatenate([part for picture in pictures for part in (gap, picture)][1:], 1)
    return np.concatenate([row, np.full((GAP, row.shape[1], 3), 255, np.uint8)])


def _headed(pictures: list[Frame], step: int, seen: int) -> Frame:
    columns, width = len(pictures), pictures[0].shape[1]
    image = Image.new("RGB", (columns * width + (columns - 1) * GAP, 2 * GAP), SEEN if step < seen else PREDICTED)
    pen = ImageDraw.Draw(image)
    state = f"step {step}, {'shown to the model' if step < seen else 'from actions alone'}"
    for number, text in enumerate(("truth", f"imagined: {state}", "error")[:columns]):
        left = number * (width + GAP) + 4
        for line, part in enumerate(text.split(": ")):
            pen.text((left, 2 + 14 * line), part, fill="white")
    return np.asarray(image)


def padded(frame: Frame) -> Frame:
    """White at the right and below, up to whole blocks."""
    height, width = (-size % BLOCK for size in frame.shape[:2])
    return np.pad(frame, ((0, height), (0, width), (0, 0)), constant_values=255)


def traced(truth: Numbers, imagined: Numbers, seen: int, names: list[str]) -> list[Frame]:
    """Curves that grow, the truth and what is imagined; `[T, O]` each, in their own units.

    The figure is drawn twice, with the curves and without; a frame takes each panel's left part from the first.
    """
    most = varied(truth, PANELS)
    figure, axes = _panels(truth, imagined, seen, names, most)
    bare, panels = painted(figure), [axis.get_window_extent() for axis in axes]
    for axis, index in zip(axes, most, strict=True):
        axis.plot(truth[:, index], color="black", linewidth=1.5)
        axis.plot(imagined[:, index], color="tab:red", linewidth=1.5)
    whole = painted(figure)
    height, drawn = len(whole), []
    for step in range(len(truth)):
        frame = bare.copy()
        for box in panels:
            rows = slice(height - round(box.y1), height - round(box.y0))
            columns = slice(round(box.x0), round(box.x0 + box.width * step / max(1, len(truth) - 1)) + 1)
            frame[rows, columns] = whole[rows, columns]
        drawn.append(padded(frame))
    return drawn


def _panels(
    truth: Numbers, imagined: Numbers, seen: int, names: list[str], most: NDArray[Any]
) -> tuple[Figure, list[Axes]]:
    """An empty panel for each of the numbers `most`."""
    wide = min(3, len(most))
    high = -(-len(most) // wide)
    width, height = 2.4 * wide + 0.8, 1.6 * high + 0.5
    figure = Figure(figsize=(width, height), dpi=80)
    left_out = "" if len(most) == truth.shape[1] else f"; {len(most)} of {truth.shape[1]} numbers, those that vary most"
    title = f"truth (black), imagined (red), from actions alone after the line{left_out}"
    figure.suptitle(title, fontsize="small", y=1 - 0.06 / height)
    space = {"left": 0.5 / width, "right": 1 - 0.15 / width, "bottom": 0.3 / height, "top": 1 - 0.5 / height}
    axes = list(figure.subplots(high, wide, squeeze=False, gridspec_kw={**space, "hspace": 0.45, "wspace": 0.25}).flat)
    for axis, index in zip(axes, most, strict=False):
        sides = truth[:, index], imagined[:, index]
        low, top = min(map(np.min, sides)), max(map(np.max, sides))
        margin = 0.05 * (top - low) or 0.5
        axis.set(xlim=(0, len(truth) - 1), ylim=(low - margin, top + margin))
        axis.set_title(names[index], fontsize="small", pad=2)
        axis.tick_params(labelsize="x-small")
        axis.axvline(seen - 0.5, color="gray", linewidth=1, linestyle=":")
    for axis in axes[len(most) :]:
        axis.set_axis_off()
    return figure, axes[: len(most)]


def varied(values: Numbers, most: int) -> NDArray[Any]:
    """Which of the numbers `[T, O]` vary most, in their own order."""
    return np.sort(np.argsort(-values.std(0), kind="stable")[:most])


def painted(figure: Figure) -> Frame:
    """A figure as it is now."""
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
