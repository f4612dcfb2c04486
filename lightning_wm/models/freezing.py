"""Graphs through networks that are not to learn from them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from lightning_wm.protocols import TrainedModel


@contextmanager
def frozen(*modules: nn.Module | TrainedModel) -> Iterator[None]:
    """Build a graph through modules that leaves their parameters' gradients untouched.

    Gradients still flow through them to their inputs. Safe under DDP: the parameters that the rest
    of the loss uses keep their hooks.
    """
    held = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in held:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)
