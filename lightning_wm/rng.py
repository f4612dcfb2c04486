"""Randomness by name: every draw is a function of (seed, stream, counters).

Counters are what a checkpoint holds anyway (update, episode, decision), so a
resumed run draws what the uninterrupted one would have drawn. Where there are
several ranks, the rank is the first counter of every stream but `init`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

STREAMS = ("init", "replay", "environment", "exploration", "planner", "model")


def key(seed: int, stream: str, *counters: int) -> int:
    """A 63-bit integer that depends on the seed, the stream and every counter.

    Raises:
        ValueError: `stream` is none of `STREAMS`.
    """
    if stream not in STREAMS:
        raise ValueError(f"unknown random stream {stream!r}; expected one of {', '.join(STREAMS)}")
    text = ":".join([str(int(seed)), stream, *(str(int(counter)) for counter in counters)])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, stream: str, *counters: int) -> torch.Generator:
    """A CPU generator for one named draw; two calls with equal arguments draw the same."""
    return torch.Generator("cpu").manual_seed(key(seed, stream, *counters))


def episode_seeds(seed: int, rank: int, first: int, rows: int) -> list[int]:
    """The environment's seeds of a rank's collected episodes `first` and the `rows - 1` after it."""
    return [key(seed, "environment", rank, first + row) % 2**31 for row in range(rows)]


@contextmanager
def scope(seed: int, stream: str, *counters: int) -> Iterator[None]:
    """Seed torch's global state inside the block and restore it afterwards.

    For library code that draws from global state (initialisers, `rsample`).
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(key(seed, stream, *counters))
        yield


def uniform(shape: Sequence[int], generators: Sequence[torch.Generator]) -> Tensor:
    """Numbers `[E, *shape]` drawn uniformly from [-1, 1], as actions are, row e from generator e alone; on the CPU."""
    rows = [torch.rand(*shape, generator=generator, dtype=torch.float32, device="cpu") for generator in generators]
    return torch.stack(rows) * 2 - 1


def normal(shape: Sequence[int], generators: Sequence[torch.Generator], like: Tensor) -> Tensor:
    """Standard normal noise `[E, *shape]`, row e from generator e alone.

    Drawn on the CPU in float32 and then moved, so that every device and
    precision sees the same numbers.
    """
    rows = [torch.randn(*shape, generator=generator, dtype=torch.float32, device="cpu") for generator in generators]
    return torch.stack(rows).to(device=like.device, dtype=like.dtype)
