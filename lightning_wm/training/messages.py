"""What a run and its worker tell each other, as bytes: plain values and tensors, of which nothing is executed."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from lightning_wm import errors
from lightning_wm.errors import ConfigError, LightningWMError
from lightning_wm.playing.episode import Episode


@dataclass(frozen=True)
class Order:
    """What is to be played."""

    weights: dict[str, Tensor]
    """The agent's `state_dict`, on the CPU."""
    env_steps: int
    """To play at least, in whole rounds of an episode for each environment."""
    first: int
    """Number of the first episode."""
    rank: int
    noise: float
    explore: bool


@dataclass
class Played:
    """What has become of an order."""

    episodes: list[Episode] = field(default_factory=list)
    numbers: int = 0
    """Episodes that were begun, each with a number; those that failed are among them."""
    errors: list[LightningWMError] = field(default_factory=list)
    """Why episodes were dropped. A round with one is the last, so that whoever counts them can end the run."""


def packed(message: object) -> bytes:
    """Plain containers and tensors, an `Order`, what was `Played` or an error, as bytes."""
    buffer = io.BytesIO()
    torch.save(_plain(message), buffer)
    return buffer.getvalue()


def unpacked(message: bytes) -> Any:
    """What was packed."""
    kind, content = torch.load(io.BytesIO(message), weights_only=True)
    if kind == "order":
        return Order(**content)
    if kind == "played":
        return _played(content)
    return _error(*content) if kind == "error" else content


def _plain(message: object) -> tuple[str, Any]:
    if isinstance(message, Order):
        return "order", vars(message)
    if isinstance(message, LightningWMError):
        said = message.faults if isinstance(message, ConfigError) else str(message)
        kind = next(kind for kind in type(message).__mro__ if kind.__module__ == errors.__name__)
        return "error", (kind.__name__, said)
    if isinstance(message, Played):
        why = [_plain(error)[1] for error in message.errors]
        return "played", {"episodes": [_row(e) for e in message.episodes], "numbers": message.numbers, "errors": why}
    return "plain", message


def _row(episode: Episode) -> dict[str, Any]:
    kept = episode.transitions
    return {**vars(episode), "transitions": None if kept is None else dict(kept.items())}


def _played(content: dict[str, Any]) -> Played:
    episodes = [Episode(**row) for row in content["episodes"]]
    for episode in episodes:
        if episode.transitions is not None:
            episode.transitions = TensorDict(episode.transitions, batch_size=[episode.length + 1])
    return Played(episodes, content["numbers"], [_error(*error) for error in content["errors"]])


def _error(name: str, said: Any) -> LightningWMError:
    """An error of `lightning_wm.errors`; one that a plugin has of its own was sent as its base there."""
    error: LightningWMError = getattr(errors, name)(said)
    return error
