"""Every contract between folders, in one file.

Letters: `B` replay sequences, `T` time in replay, `E` environments, `N`
candidates, `H` planning horizon, `M` any flat batch (`E*N`, `B*T`), `D`
deterministic state, `S` stochastic state, `A` action, `O` observation vector,
`C, X, Y` pixels. An env step is one control step of the simulator, before
action repeat; an agent step is one decision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from lightning_wm.errors import EnvironmentFailure

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


class TrainedModel(WorldModel, Protocol):
    """A world model that is an `nn.Module`, so that an agent can train it."""

    training: bool

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Its weights."""

    def train(self, mode: bool = True) -> object:
        """Whether what it sees counts in its statistics."""


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

    __dataclass_fields__: ClassVar[dict[str, Any]]

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
            `score_first` (best start), `score_best` (of what is executed), `fallback` (bool: no finite candidate) and,
            of planners that know a policy, `by_policy` (bool: what is executed is the policy's own).
        """


@runtime_checkable
class StartsFromPolicy(Protocol):
    """A planner that can start from a learned policy; `planning.problem.problem_for` refuses it where there is none."""

    needs_policy: bool
    """Whether it cannot do without."""


ORIGINS = ("random", "previous", "policy", "zero", "fitted")
"""Where a candidate came from; `candidates["origin"]` holds indices into this."""


@runtime_checkable
class Actor(Protocol):
    """What plays in an environment: planner, policy, SAC or CURL alike.

    A `TensorDictModuleBase`: usable as `policy=` of any `env.rollout`.
    """

    episode: int
    """Number of the next full reset's first environment; environment e plays episode `episode + e`. It moves on with
    every full reset, so that no episode draws what another one drew; set it after `reset()` to play a certain one."""
    noise: float
    """Standard deviation of the Gaussian noise added to actions; 0 for evaluation."""
    plan: TensorDict | None
    """The last plan, of batch `[E]`; None without one."""
    milliseconds: float
    """Wall time of the last call of the planner, over the environments in the call; 0 without one."""

    def reset(self, mask: Tensor | None = None) -> None:
        """Forget the episode of every environment, or of those where `mask` `[E]` is True."""

    def act(self, observation: object) -> Any:
        """An action in [-1, 1] for a TensorDict or a mapping of arrays, batched `[E, ...]` or not."""


@runtime_checkable
class Agent(Protocol):
    """A LightningModule that learns from replay and gives what acts; `agents.base.BaseAgent` is the usual base."""

    last: dict[str, Tensor]
    """Losses of the newest logged update, detached, by their logged names."""

    def actor(
        self, planner: Planner | None, seed: int = 0, rank: int = 0, noise: float = 0.0, explore: bool = False
    ) -> Actor:
        """What plays with what was learned so far; weights are shared, not copied.

        It depends on the constructor's arguments and the `state_dict` alone, so that another process can make it.

        Args:
            planner: chooses actions; None for agents that act by themselves.
            seed: of the streams planner and exploration.
            rank: first counter of those streams.
            noise: standard deviation of the Gaussian noise added to actions.
            explore: act to learn the model, where the agent has learned how, instead of for reward.

        Raises:
            UserError: the planner asks for what was not learned, or there is none where one is needed.
        """


@runtime_checkable
class Restarts(Protocol):
    """An environment `[E]` that can replace a simulator that fails, and end its episode, instead of raising."""

    restart: bool
    """Whether it does."""
    failed: dict[int, EnvironmentFailure]
    """The rows that the last reset or step restarted."""

    def rebuild(self, row: int) -> None:
        """Replace a row's simulator; its episode ends."""


# ---- what a world model may have beyond `WorldModel`, each asked for with isinstance
#
# A model that has an ability with some settings only binds the method in its constructor and sets the name to None
# without them: None never counts, and a method of the class always would.


@runtime_checkable
class Valued(Protocol):
    """A model with a value of its own, for `planner.objective.terminal_value`."""

    def value(self, state: State) -> Tensor:
        """Expected return `[M]` from a state `[M, ...]` on."""


@runtime_checkable
class Disagrees(Protocol):
    """A model that says what it does not know, for `planner.objective.disagreement` and `agent.disagreement_bonus`."""

    def disagreement(self, state: State) -> Tensor:
        """What an ensemble does not agree on in a state `[M, ...]`: `[M]`, at least 0, differentiable in the state."""


@runtime_checkable
class PredictsTermination(Protocol):
    """A model that tells whether its `continues` is a prediction; one that does not tell is taken at its word."""

    predicts_termination: bool
    """False where `continues` is 1 in every state."""


@runtime_checkable
class Unrolls(Protocol):
    """A model with a faster way to imagine whole plans than `WorldModel.imagine` step by step."""

    def unroll(self, state: State, actions: Tensor, noise: Tensor | None = None) -> State:
        """The states after each action, `[H, M, ...]`, equal to `imagine` step by step and differentiable in actions.

        Args:
            state: where the plans start, `[M, ...]`.
            actions: `[M, H, A]`.
            noise: `[H, M, ...]`; None follows the prior's mode.
        """


@runtime_checkable
class Follows(Protocol):
    """A model with a faster way to imagine a policy, whose actions are chosen on the way."""

    def follow(
        self, state: State, choose: Callable[[int, Tensor], Tensor], noise: Tensor
    ) -> tuple[State, Callable[[Tensor], State]]:
        """The states that a policy leads to, and how they depend on its actions.

        Args:
            state: where it starts, `[M, ...]`.
            choose: `choose(step, features [M, F])` gives the actions `[M, A]`; called without gradients.
            noise: `[H, M, ...]`.

        Returns:
            The states after each action, `[H, M, ...]`, without a graph; and a function from these actions
            `[H, M, A]` to the same states, differentiable in the actions but not in the model's weights.
        """


@runtime_checkable
class Features(Protocol):
    """A model whose states can be read by heads of others, as `agent=dreamer` does."""

    def features(self, state: State) -> Tensor:
        """`[M, F]` of a state `[M, ...]`."""


@runtime_checkable
class Decodes(Protocol):
    """A model that can show what it imagines."""

    def decode(self, state: State) -> dict[str, Tensor]:
        """Mean observations: `observation` `[M, O]` in its own units, `pixels` `[M, 3, X, Y]` in [0, 1]."""


@runtime_checkable
class Recognises(Protocol):
    """A model that shows nothing, but can tell which pictures fit what it imagines."""

    def likeness(self, state: State, observation: TensorDictBase) -> Tensor:
        """How well each of N observations fits each state, `[M, N]`, more is better."""


@runtime_checkable
class Compiles(Protocol):
    """A model whose update can be compiled, for `trainer.compile`."""

    def compile_update(self) -> None:
        """Compile what `observe` does with gradients, at the first update of each batch shape."""
