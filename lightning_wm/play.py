"""Playing whole episodes: the one loop that collecting, evaluating and filming share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.envs import EnvBase

from lightning_wm.protocols import Actor

OBSERVATIONS = ("observation", "pixels")


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
    scores: list[tuple[float, float]] = field(default_factory=list)
    """Best score among the starts and of what was executed, under the model, per plan."""
    model_steps: float = 0.0
    """Model steps of one plan."""
    sequential_calls: float = 0.0
    """Model calls of one plan that must wait for each other."""
    fallbacks: int = 0
    """Decisions for which no candidate had a finite score."""


class _Recorder:
    """Collects one environment's row of every step."""

    def __init__(self, row: int, seed: int, keep: bool) -> None:
        self.row, self.keep = row, keep
        self.episode = Episode(seed, None)
        self.steps: list[TensorDict] = []
        self.done = False

    def first(self, td: TensorDictBase, actions: int) -> None:
        if self.keep:
            zeros = {
                "action": torch.zeros(actions),
                "reward": torch.zeros(1),
                "terminated": torch.zeros(1, dtype=torch.bool),
                "is_init": torch.ones(1, dtype=torch.bool),
            }
            self.steps.append(TensorDict({**self._seen(td), **zeros}, []))

    def _seen(self, td: TensorDictBase) -> dict[str, Tensor]:
        return {name: td[name][self.row].clone() for name in OBSERVATIONS if name in td}

    def step(self, action: Tensor, after: TensorDictBase) -> None:
        if self.done:
            return
        row, episode = self.row, self.episode
        episode.total += float(after["reward"][row])
        episode.length += 1
        episode.env_steps += int(after["env_steps"][row])
        if self.keep:
            came = {
                "action": action[row].clone(),
                "reward": after["reward"][row].clone(),
                "terminated": after["terminated"][row].clone(),
                "is_init": torch.zeros(1, dtype=torch.bool),
            }
            self.steps.append(TensorDict({**self._seen(after), **came}, []))
        self.done = bool(after["done"][row])

    def planned(self, plan: TensorDictBase, milliseconds: float) -> None:
        if self.done:
            return
        stats, episode = plan["stats"], self.episode
        episode.milliseconds.append(milliseconds)
        episode.scores.append((float(stats["score_first"][self.row]), float(stats["score_best"][self.row])))
        episode.model_steps = float(stats["model_steps"][self.row])
        episode.sequential_calls = float(stats["sequential_calls"][self.row])
        episode.fallbacks += int(stats["fallback"][self.row])

    def finish(self) -> Episode:
        if self.keep:
            self.episode.transitions = torch.stack(self.steps)
        return self.episode


def play(
    env: EnvBase,
    actor: Actor,
    seeds: Sequence[int],
    keep: bool = False,
    on_decision: Callable[[], None] | None = None,
) -> list[Episode]:
    """Play one episode per environment, side by side, until the last one ends.

    Args:
        env: of batch `[E]`.
        actor: what acts.
        seeds: E seeds; the same seed gives the same episode.
        keep: keep the transitions, in replay's form.
        on_decision: called after every decision.
    """
    recorders = [_Recorder(row, seed, keep) for row, seed in enumerate(seeds)]
    td = env.reset(seeds=list(seeds))
    actor.reset()
    for recorder in recorders:
        recorder.first(td, env.action_spec.shape[-1])
    last: TensorDictBase | None = None
    while not all(recorder.done for recorder in recorders):
        td["action"] = actor.act(td).to("cpu", torch.float32)
        plan = getattr(actor, "plan", None)
        if plan is not None and plan is not last:  # with `replan` a plan serves several decisions
            last = plan
            for recorder in recorders:
                recorder.planned(plan, float(getattr(actor, "milliseconds", 0.0)))
        after = env.step(td)["next"]
        for recorder in recorders:
            recorder.step(td["action"], after)
        td = after.exclude("reward")
        if on_decision is not None:
            on_decision()
    return [recorder.finish() for recorder in recorders]


def play_many(
    env: EnvBase, actor: Actor, seeds: Sequence[int], on_decision: Callable[[], None] | None = None
) -> list[Episode]:
    """Play any number of episodes, E at a time; episode i has `seeds[i]` and draws as number i of the actor."""
    at_once, episodes = env.batch_size[0], []
    for first in range(0, len(seeds), at_once):
        part = list(seeds[first : first + at_once])
        filled = part + part[-1:] * (at_once - len(part))
        actor.episode = first  # type: ignore[attr-defined]
        episodes += play(env, actor, filled, on_decision=on_decision)[: len(part)]
    return episodes
