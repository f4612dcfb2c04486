"""Every contract between folders, in one file.

Letters: `B` replay sequences, `T` time in replay, `E` environments, `N`
candidates, `H` planning horizon, `M` any flat batch (`E*N`, `B*T`), `D`
deterministic state, `S` stochastic state, `A` action, `O` observation vector,
`C, X, Y` pixels. An env step is one control step of the simulator, before
action repeat; an agent step is one decision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

State = dict[str, Tensor]
"""A model's latent state: named tensors that share one flat leading batch `[M, ...]`."""


@dataclass(frozen=True)
class Spaces:
    """What an environment shows and takes, without the environment."""

    action: int
    """A: number of action dimensions, each in [-1, 1]."""
    observation: int | None = None
    """O: length of the state vector, or None without one."""
    pixels: tuple[int, int, int] | None = None
    """(C, X, Y) of the uint8 image, or None without one."""


@runtime_checkable
class WorldModel(Protocol):
    """A latent dynamics model that can be filtered, imagined and optimised through."""

    spaces: Spaces

    def initial(self, batch: int) -> State:
        """The state before anything was observed, `[batch, ...]`."""

    def observe(
        self, batch: TensorDictBase, state: State | None = None, generator: torch.Generator | None = None
    ) -> tuple[State, dict[str, Tensor]]:
        """Filter a batch `[B, T]`; posterior states flat `[B*T, ...]` and the named losses (scalars).

        Entries that start with `loss/` are summed for training; the others are logged.
        Without a generator the posterior's mode is taken instead of a sample.
        """

    def filter(self, state: State, action: Tensor, observation: TensorDictBase) -> State:
        """One posterior step for acting: `[M]` state, `[M, A]` action that led to `observation` `[M]`."""

    def imagine(self, state: State, action: Tensor, noise: Tensor | None = None) -> State:
        """One step of the prior: `[M]` state and `[M, A]` action; without noise, its mode."""

    def noise(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """What `imagine` takes as noise, `[*shape, ...]`, on the CPU in float32."""

    def reward(self, state: State) -> Tensor:
        """Expected reward of one agent step that ends in `state`, `[M]`."""

    def continues(self, state: State) -> Tensor:
        """Probability that the episode goes on after `state`, `[M]`, in [0, 1]."""

    def observation_error(self, state: State, observation: TensorDictBase) -> Tensor:
        """Mean squared error `[M]` of what the state decodes to, in the space of the reconstruction loss."""


@runtime_checkable
class PredictsTermination(Protocol):
    """A world model that tells whether its `continues` is a prediction; one that does not is taken at its word."""

    @property
    def predicts_termination(self) -> bool:
        """False where `continues` is 1 in every state."""


@dataclass(frozen=True)
class Trajectory:
    """Imagined futures, the argument of every term of an objective."""

    actions: Tensor
    """`[M, H, A]`."""
    states: State
    """States after each action, every tensor `[H, M, ...]`."""
    weights: Tensor
    """`[H+1, M]` or `[H+1, 1]`: discount^k times the probability that the episode goes on after k steps."""

    def flat(self) -> State:
        """The states as one batch `[H*M, ...]`, time first."""
        return {name: value.flatten(0, 1) for name, value in self.states.items()}

    def last(self) -> State:
        """The states after the last action, `[M, ...]`."""
        return {name: value[-1] for name, value in self.states.items()}


class Term(Protocol):
    """One summand of an objective: a score per trajectory, larger is better."""

    def __call__(self, problem: Problem, trajectory: Trajectory) -> Tensor:
        """Score `[M]`."""


@dataclass(frozen=True)
class Problem:
    """What a planner optimises: a model to imagine with and what counts as good."""

    action: int
    """A: number of action dimensions."""
    imagine: Callable[[State, Tensor, Tensor | None], State]
    """One step of the prior, as in `WorldModel.imagine`."""
    reward: Callable[[State], Tensor]
    """Expected reward `[M]` of an agent step that ends in the state."""
    continues: Callable[[State], Tensor] | None = None
    """Probability `[M]` that the episode goes on; None where episodes never end early."""
    value: Callable[[State], Tensor] | None = None
    """Value `[M]` of a state, for the end of the horizon; None for none."""
    values: Callable[[State], Tensor] | None = None
    """What each critic of an ensemble says, `[K, M]`; `value` is their mean. None without critics."""
    disagreement: Callable[[State], Tensor] | None = None
    """What an ensemble does not agree on, `[M]`; None without an ensemble."""
    policy: Callable[[State], torch.distributions.Distribution] | None = None
    """Distribution over actions `[M, A]`; None without one."""
    noise: Callable[[Sequence[int], torch.Generator], Tensor] | None = None
    """Draws the noise of the stochastic state; None plans through the prior's mode."""
    unroll: Callable[[State, Tensor, Tensor | None], State] | None = None
    """Whole plans at once, where a model has a faster way than `imagine` step by step: state `[M, ...]`, actions
    `[M, H, A]` and noise `[H, M, ...]` to states `[H, M, ...]`, differentiable in the actions."""
    discount: float = 1.0
    """Factor per agent step, in (0, 1]."""
    terms: tuple[Term, ...] = field(default_factory=tuple)
    """What is added to the predicted return (penalties, terminal value)."""


class PlannerSettings(Protocol):
    """What the `Config` of every planner has; `planning.settings.PlannerConfig` is that of those that search.

    Others use the fields that planners share by name: `iterations`, `candidates`, `elites`, `execute`, `warm_start`.
    """

    @property
    def name(self) -> str:
        """The planner's registered name."""

    @property
    def horizon(self) -> int:
        """H: agent steps of a plan."""

    @property
    def replan(self) -> int:
        """Decisions that a plan serves; at most H."""


class Planner(Protocol):
    """Chooses actions by optimising through a model; owns no weights."""

    @property
    def config(self) -> PlannerSettings:
        """Its settings."""

    def memory(self, environments: int, action: int, like: Tensor) -> TensorDict:
        """An empty warm start of batch `[E]` with a bool entry `valid` `[E]` that is False."""

    def plan(
        self, problem: Problem, state: State, memory: TensorDictBase | None, generators: Sequence[torch.Generator]
    ) -> TensorDict:
        """Plan for E environments that do not influence each other.

        Args:
            problem: what is optimised.
            state: latent states `[E, ...]`.
            memory: `memory()` or the last plan's `memory`; rows that are not `valid` start cold.
            generators: one per environment, keyed (seed, planner, episode, decision).

        Returns:
            A TensorDict of batch `[E]`: `action` `[E, A]` in [-1, 1]; `actions` `[E, H, A]`, the plan that it
            starts; `memory` (batch `[E]`, already shifted by `replan` steps); `candidates`, a TensorDict of batch
            `[E, N]` with `action` `[E, N, H, A]`, `score` `[E, N]` and `origin` `[E, N]` (int64, an index into
            `ORIGINS`); `stats`, a TensorDict of batch `[E]` with `model_steps`, `sequential_calls`,
            `score_first` (best start), `score_best` (of what is executed), `fallback` (bool: no finite candidate).
        """


@runtime_checkable
class StartsFromPolicy(Protocol):
    """A planner that can start from a learned policy; `planning.problem.problem_for` refuses it where there is none."""

    needs_policy: bool
    """Whether it cannot do without."""


ORIGINS = ("random", "previous", "policy", "zero", "fitted")
"""Where a candidate came from; `candidates["origin"]` holds indices into this."""


class Actor(Protocol):
    """What plays in an environment: planner, policy, SAC or CURL alike.

    A `TensorDictModuleBase`: usable as `policy=` of any `env.rollout`.
    """

    def reset(self, mask: Tensor | None = None) -> None:
        """Forget the episode of every environment, or of those where `mask` `[E]` is True."""

    def act(self, observation: Any) -> Any:
        """An action in [-1, 1] for a TensorDict or a mapping of arrays, batched `[E, ...]` or not."""
