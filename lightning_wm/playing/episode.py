"""What one episode was, collected while it is played."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from lightning_wm.data.schema import first_row, next_row


@dataclass
class Episode:
    """One episode that was played to its end."""

    seed: int
    transitions: TensorDict | None
    """`[n+1]` for n decisions, in replay's form; None where they were not kept."""
    total: float = 0.0
    """Return: the undiscounted sum of rewards."""
    length: int = 0
    """Agent steps."""
    env_steps: int = 0
    milliseconds: list[float] = field(default_factory=list)
    """Wall time of the planner's call, over the environments in it, for every decision that planned."""
    planning: float = 0.0
    """Milliseconds of planning over the episodes that went on: their sum is what planning took."""
    scores: list[tuple[float, float]] = field(default_factory=list)
    """Best score among the starts and of what was executed, under the model, per plan."""
    model_steps: float = 0.0
    """Model steps of one plan."""
    sequential_calls: float = 0.0
    """Model calls of one plan that must wait for each other."""
    fallbacks: int = 0
    """Decisions for which no candidate had a finite score."""
    by_policy: int = 0
    """Plans that were the policy's own."""
    row: int = 0
    """Of E: the environment that it was played in."""


class Recorder:
    """Collects one environment's row of every step."""

    def __init__(self, row: int, seed: int, keep: bool) -> None:
        self.row, self.keep = row, keep
        self.episode = Episode(seed, None, row=row)
        self.steps: list[TensorDict] = []
        self.done = self.dropped = False

    def first(self, td: TensorDictBase, actions: int) -> None:
        """What the reset shows, which belongs to no action."""
        if self.keep:
            self.steps.append(first_row(td, self.row, actions))

    def step(self, action: Tensor, after: TensorDictBase) -> None:
        """What an action led to."""
        if self.done:
            return
        row, episode = self.row, self.episode
        episode.total += float(after["reward"][row])
        episode.length += 1
        episode.env_steps += int(after["env_steps"][row])
        if self.keep:
            self.steps.append(next_row(after, row, action))
        self.done = bool(after["done"][row])

    def planned(self, stats: TensorDictBase, milliseconds: float, share: float) -> None:
        """A plan was made.

        Args:
            stats: `[E]`, of the plan.
            milliseconds: wall time over all environments.
            share: wall time over those whose episodes go on, in milliseconds.
        """
        episode = self.episode
        episode.milliseconds.append(milliseconds)
        episode.planning += share
        episode.scores.append((float(stats["score_first"][self.row]), float(stats["score_best"][self.row])))
        episode.model_steps = float(stats["model_steps"][self.row])
        episode.sequential_calls = float(stats["sequential_calls"][self.row])
        episode.fallbacks += int(stats["fallback"][self.row])
        by_policy = stats.get("by_policy", None)
        episode.by_policy += 0 if by_policy is None else int(by_policy[self.row])

    def drop(self) -> None:
        """The episode cannot be finished."""
        self.done = self.dropped = True

    def finish(self) -> Episode:
        """What was collected."""
        if self.keep:
            self.episode.transitions = torch.stack(self.steps)
        return self.episode


def measures(episodes: Sequence[Episode]) -> dict[str, float]:
    """What is logged of episodes that were collected side by side; nothing of none."""
    measured: dict[str, float] = {}
    if episodes:
        measured["rollout/return"] = sum(e.total for e in episodes) / len(episodes)
        measured["rollout/length"] = sum(e.length for e in episodes) / len(episodes)
    times = [value for e in episodes for value in e.milliseconds]
    if times:
        scores = torch.tensor([pair for e in episodes for pair in e.scores])
        measured["plan/ms"] = float(torch.tensor(times).median())
        measured["time/plan"] = sum(e.planning for e in episodes) / 1e3
        real = scores[scores.isfinite().all(1)]  # a fallback has none
        if len(real):
            measured["plan/score_first"], measured["plan/score_best"] = real.mean(0).tolist()
        measured["plan/fallbacks"] = float(sum(e.fallbacks for e in episodes))
        measured["plan/by_policy"] = sum(e.by_policy for e in episodes) / len(times)
    return measured
