"""What a transition is, and episodes made of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from lightning_wm.errors import UserError
from lightning_wm.protocols import Spaces

OBSERVATIONS = ("observation", "pixels")
"""What an environment may show, as a transition names it."""


@dataclass(frozen=True)
class Field:
    """One entry of a transition."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {list(self.shape)}"

    @property
    def name(self) -> str:
        """Of the type: `float32`."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def bytes(self) -> int:
        """Bytes of one transition's entry."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def fields(spaces: Spaces) -> dict[str, Field]:
    """The entries of a transition in an environment with these spaces.

    `action` led to the observation and `reward` came with it; both are zero
    where `is_init` marks an episode's first observation.

    Raises:
        UserError: the environment shows neither a state vector nor pixels.
    """
    seen: dict[str, Field] = {}
    if spaces.observation is not None:
        seen["observation"] = Field(torch.float32, (spaces.observation,))
    if spaces.pixels is not None:
        seen["pixels"] = Field(torch.uint8, tuple(spaces.pixels))
    if not seen:
        raise UserError("replay needs an observation: the environment has neither a state vector nor pixels")
    return seen | {
        "action": Field(torch.float32, (spaces.action,)),
        "reward": Field(torch.float32, (1,)),
        "terminated": Field(torch.bool, (1,)),
        "is_init": Field(torch.bool, (1,)),
    }


def first_row(seen: TensorDictBase, row: int, actions: int) -> TensorDict:
    """The transition that an episode begins with, batch `[]`: what environment `row` of `seen` `[E]` shows.

    Args:
        seen: what `env.reset` gives.
        row: of E.
        actions: A.
    """
    action, reward = torch.zeros(actions, dtype=torch.float32), torch.zeros(1, dtype=torch.float32)
    return _transition(seen, row, action, reward, torch.zeros(1, dtype=torch.bool), first=True)


def next_row(after: TensorDictBase, row: int, action: Tensor) -> TensorDict:
    """The transition, batch `[]`, that row `row` of `action` `[E, A]` led to.

    Args:
        after: the entry `next` of what `env.step` gives, `[E]`.
        row: of E.
        action: float32 in [-1, 1].
    """
    reward, terminated = (after[name][row].clone() for name in ("reward", "terminated"))
    return _transition(after, row, action[row].clone(), reward, terminated, first=False)


def _transition(
    seen: TensorDictBase, row: int, action: Tensor, reward: Tensor, terminated: Tensor, first: bool
) -> TensorDict:
    shown = {name: seen[name][row].clone() for name in OBSERVATIONS if name in seen}
    led = {"action": action, "reward": reward, "terminated": terminated, "is_init": torch.tensor([first])}
    return TensorDict({**shown, **led}, [])


def episode(
    actions: ArrayLike,
    rewards: ArrayLike,
    observation: ArrayLike | None = None,
    pixels: ArrayLike | None = None,
    terminated: bool = False,
) -> TensorDict:
    """An episode of n decisions from anywhere, `[n+1]`, as `Replay.extend` takes it.

    Args:
        actions: `[n, A]` in [-1, 1].
        rewards: `[n]`, of each action.
        observation: `[n+1, O]`: before the first action and after every action; None without a state vector.
        pixels: uint8 `[n+1, C, X, Y]`; None without pictures.
        terminated: whether nothing could come after it; False where it was only cut off.

    Raises:
        UserError: the lengths do not fit together, or actions lie outside of [-1, 1].
    """
    taken, reward = (torch.as_tensor(values, dtype=torch.float32) for values in (actions, rewards))
    shown = {} if observation is None else {"observation": torch.as_tensor(observation, dtype=torch.float32)}
    shown |= {} if pixels is None else {"pixels": torch.as_tensor(pixels)}
    rows = len(taken) + 1
    lengths = {"rewards": len(reward) + 1, **{name: len(value) for name, value in shown.items()}}
    if wrong := [f"{name} has {length - (name == 'rewards')}" for name, length in lengths.items() if length != rows]:
        expected = f"{rows - 1} rewards, {rows} observations and pixels"
        raise UserError(f"an episode of {rows - 1} actions has {expected}; {' and '.join(wrong)}")
    if rows > 1 and not bool(taken.abs().max() <= 1.0):
        raise UserError(
            f"actions lie in [-1, 1], got {float(taken.abs().max()):g}; divide them by the bounds of the environment"
        )
    first = torch.zeros(rows, 1, dtype=torch.bool)
    first[0] = True
    ended = torch.zeros(rows, 1, dtype=torch.bool)
    ended[-1] = terminated
    led = {"action": torch.cat([taken.new_zeros(1, *taken.shape[1:]), taken])}
    led["reward"] = torch.cat([reward.new_zeros(1, 1), reward.view(-1, 1)])
    return TensorDict({**shown, **led, "terminated": ended, "is_init": first}, [rows])
