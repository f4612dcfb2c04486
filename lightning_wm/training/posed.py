"""State vectors as pictures of the task's simulator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning_wm.errors import UserError
from lightning_wm.training.frames import Frame, Numbers

SIZE = 240
"""Height and width of a picture; with a film's gaps and head they come to whole blocks."""


class Posed:
    """Draws state vectors in an environment of its own, in which nothing is played.

    Args:
        make: builds that environment, whose simulator has `pose`, when something is drawn for the first time.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make
        self._env: Any = None
        self._able = True

    def pictures(self, vectors: Numbers) -> list[Frame] | None:
        """State vectors `[T, O]` as pictures `[SIZE, SIZE, 3]`; None on a machine that cannot draw them."""
        try:
            return [self._picture(vector) for vector in vectors] if self._able else None
        except UserError:  # curves do without
            self._able = False
            self.close()
            return None

    def _picture(self, vector: Numbers) -> Frame:
        if self._env is None:
            self._env = self.make()
            self._env.reset(seeds=[0])
        self._env.simulators[0].pose(vector)
        picture: Frame = self._env.frame(0, SIZE)
        return picture

    def close(self) -> None:
        """Free the environment; the next picture makes another."""
        if self._env is not None:
            self._env.close()
            self._env = None
