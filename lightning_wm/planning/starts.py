"""Where a search starts: noise, and known plans that are put among it, the last one moved on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDictBase
from torch import Tensor

from lightning_wm import rng


def noise(
    candidates: int, horizon: int, action: int, generators: Sequence[torch.Generator], like: Tensor, colour: float = 0.0
) -> Tensor:
    """Standard normal noise `[E, N, H, A]`, row e from generator e alone.

    Args:
        colour: exponent b of the spectrum 1/f^b over the horizon: 0 white, 1 pink, 2 red (smooth plans);
            Sec. 3.1 of arXiv:2008.06389. Every step has variance one whatever the colour.
    """
    white = rng.normal((candidates, horizon, action), generators, like)
    return white if colour == 0 or horizon == 1 else _coloured(white, colour)


def _coloured(white: Tensor, colour: float) -> Tensor:
    """White noise `[..., H, A]` filtered to the spectrum 1/f^colour, at variance one."""
    horizon = white.shape[-2]
    frequency = torch.fft.rfftfreq(horizon, device=white.device, dtype=white.dtype)
    frequency[0] = frequency[1]  # the constant part is as strong as the slowest wave
    gain = frequency.pow(-colour / 2)
    # Each wave but the constant and (for an even horizon) the fastest stands for two of the full spectrum.
    twice = torch.full_like(gain, 2.0)
    twice[0] = 1.0
    if horizon % 2 == 0:
        twice[-1] = 1.0
    gain = gain / ((twice * gain.square()).sum() / horizon).sqrt()
    coloured: Tensor = torch.fft.irfft(torch.fft.rfft(white, dim=-2) * gain[:, None], n=horizon, dim=-2)
    return coloured


def uniform(candidates: int, horizon: int, action: int, generators: Sequence[torch.Generator], like: Tensor) -> Tensor:
    """Actions `[E, N, H, A]` drawn uniformly from [-1, 1], row e from generator e alone."""
    return rng.uniform((candidates, horizon, action), generators).to(like)


def put(starts: Tensor, origin: Tensor, slot: int, plan: Tensor, valid: Tensor, source: int) -> tuple[Tensor, Tensor]:
    """Candidates with `plan` in `slot` where `valid`, and their origins.

    Args:
        starts: `[E, N, H, A]`.
        origin: `[E, N]`.
        plan: `[E, H, A]`.
        valid: `[E]` bool; other rows keep what they have.
        source: index into `ORIGINS`.
    """
    starts, origin = starts.clone(), origin.clone()
    starts[:, slot] = torch.where(valid[:, None, None], plan, starts[:, slot])
    origin[:, slot] = torch.where(valid, torch.full_like(origin[:, slot], source), origin[:, slot])
    return starts, origin


def shift(actions: Tensor, steps: int) -> Tensor:
    """`[..., H, A]` moved on by `steps`; zeros follow, as in TD-MPC2 (arXiv:2310.16828)."""
    kept = actions[..., steps:, :]
    return torch.cat([kept, torch.zeros_like(actions[..., : actions.shape[-2] - kept.shape[-2], :])], -2)


def valid_rows(memory: TensorDictBase | None, name: str, like: Tensor) -> tuple[Tensor, Tensor]:
    """What is remembered under `name`, zeros in rows that are not valid, and which rows are valid `[E]`.

    Args:
        like: the shape that is expected, `[E, ..., H, A]`.

    Raises:
        ValueError: the memory has another shape, of another planner or horizon.
    """
    if memory is None:
        return torch.zeros_like(like), torch.zeros(like.shape[0], dtype=torch.bool, device=like.device)
    value = memory.get(name, None)
    if value is None or value.shape != like.shape:
        shown = None if value is None else tuple(value.shape)
        raise ValueError(f"memory[{name!r}] is {shown}, expected {tuple(like.shape)}: start from planner.memory(...)")
    valid = memory["valid"]
    return torch.where(valid.view(-1, *[1] * (like.ndim - 1)), value.to(like), 0.0), valid
