"""What a model foresees in a window of replay: filtered for some steps, then imagined from actions alone."""

from __future__ import annotations

from tensordict import TensorDictBase
from torch import Tensor

from lightning_wm.protocols import State, TrainedModel


def within_an_episode(batch: TensorDictBase) -> Tensor:
    """Which windows of `[B, T]` lie inside a single episode, `[B]`."""
    begins: Tensor = batch["is_init"][:, 1:].flatten(1).any(1)
    return ~begins


def foreseen(model: TrainedModel, windows: TensorDictBase, seen: int) -> list[State]:
    """One state `[B, ...]` a step of windows `[B, T]`: posterior for so many steps, then the prior's."""
    states, _ = model.observe(windows[:, :seen])
    by_time = {name: value.unflatten(0, (-1, seen)) for name, value in states.items()}  # B, seen, ...
    steps = [{name: value[:, step] for name, value in by_time.items()} for step in range(seen)]
    for step in range(seen, windows.shape[1]):
        steps.append(model.imagine(steps[-1], windows["action"][:, step]))
    return steps
