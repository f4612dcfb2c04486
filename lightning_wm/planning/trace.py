"""Every scoring of a search, for those who want to see why a plan is what it is."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lightning_wm.planning.search import Search


@dataclass(frozen=True)
class Scored:
    """One scoring of candidates."""

    actions: Tensor
    """`[E, N, H, A]` in [-1, 1]."""
    score: Tensor
    """`[E, N]`, -inf where not finite."""
    climbed: bool
    """Whether a gradient was taken with it: the next scoring then has the same candidates, one step further."""
    noise: Tensor | None = None
    """Of the latents, `[H, E*N, ...]`, where other than the search's own were drawn for it."""


class Trace:
    """Keeps every scoring of the newest search; a planner whose `trace` is None keeps nothing.

    It only looks on: no call of the model is added.
    """

    def __init__(self) -> None:
        self.search: Search | None = None
        self.scored: list[Scored] = []

    def begin(self, search: Search) -> None:
        """Forget what was, for a new search."""
        self.search, self.scored = search, []

    def add(self, actions: Tensor, score: Tensor, climbed: bool, noise: Tensor | None = None) -> None:
        """Keep one scoring of candidates `[E, N, H, A]`."""
        self.scored.append(Scored(actions.detach().clone(), score.detach().clone(), climbed, noise))
