"""Statistics that all ranks share; with one rank everything is as it is."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def total(value: Tensor) -> Tensor:
    """The sum over all ranks, in place; every rank must call it at the same place."""
    if _several():
        dist.all_reduce(value)
    return value


def gathered(rows: Tensor) -> Tensor:
    """The rows of all ranks `[R*M, ...]`, of equal shapes `[M, ...]`; every rank must call it at the same place."""
    if not _several():
        return rows
    every = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(every, rows.contiguous())
    return torch.cat(every)
