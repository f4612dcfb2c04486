"""What the pictures of benchmarks have in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lightning_wm.runs.disk import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def finish(figure: Figure, axis: Axes, picture: Path) -> None:
    """Plain numbers below, a grid, a legend; then the file."""
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))  # 30 rather than 3 x 10^1
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small", loc="best")  # named: the default warns where drawing is slow
    write_atomically(picture, lambda file: figure.savefig(file, format="png", dpi=120))
