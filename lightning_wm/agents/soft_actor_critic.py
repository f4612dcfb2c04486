"""What every soft actor-critic shares, whatever it sees: TorchRL's loss, networks and target update."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import torch
from pydantic import Field
from tensordict import TensorDictBase
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import Tensor, nn
from torch.distributions import Distribution
from torchrl.modules import MLP, ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import SACLoss, SoftUpdate

from lightning_wm import rng
from lightning_wm.agents.base import AgentConfig, BaseAgent
from lightning_wm.agents.memoryless import LastFrames, Memoryless, policy_actor
from lightning_wm.config.fields import Count, Factor, Positive, settings
from lightning_wm.config.schema import EPISODE
from lightning_wm.data.views import Transitions
from lightning_wm.errors import UserError
from lightning_wm.playing.actor import WorldModelActor
from lightning_wm.protocols import Planner, Spaces, State

if TYPE_CHECKING:
    from lightning_wm.config import Config as RunConfig
    from lightning_wm.config import ReplayConfig


@settings("agent")
class SACConfig(AgentConfig):
    """Networks and how they are optimised."""

    name: str = "sac"
    learning_rate: Positive = 1e-3
    """Adam's step size of actor and critics."""
    alpha_learning_rate: Positive = 3e-4
    """Adam's step size of the temperature's logarithm."""
    epsilon: Positive = 1e-8
    """Adam's epsilon."""
    units: Count = 256
    """Width of the hidden layers of actor and critics."""
    layers: Count = 2
    """Hidden layers of actor and critics."""
    norm: bool = False
    """LayerNorm after each hidden layer of the critics."""
    actor_norm: bool = False
    """LayerNorm after each hidden layer of the actor."""
    steps: Count = 1
    """n of the n-step returns, in agent steps."""
    discount: Factor = 0.99
    """Factor per agent step."""
    tau: Factor = 0.005
    """Share of the critics in their slow copies at each update."""
    temperature: Positive = 0.1
    """Weight of the policy's entropy, to begin with."""
    target_entropy: Annotated[float, Field(description="nats (or null)")] | None = None
    """Entropy in nats that the temperature is steered to; null: -A."""


class SoftActorCritic(BaseAgent):
    """Twin critics, a tanh-normal policy and an automatic temperature (arXiv:1812.05905), whatever they see.

    Args:
        config: networks and how they are optimised.
        spaces: what is seen, and A actions.
        seed: of the stream model.

    Raises:
        UserError: it cannot learn from what is seen.
    """

    Loss: ClassVar[type[SACLoss]] = SACLoss
    Config = SACConfig
    config: SACConfig

    def __init__(self, config: SACConfig | None = None, spaces: Spaces | None = None, seed: int = 0) -> None:
        super().__init__(config or self.Config(), seed)
        c = self.config
        self.spaces = self.checked(spaces)
        actor, critic = self.networks()
        target = -float(self.spaces.action) if c.target_entropy is None else c.target_entropy
        self.loss = self.Loss(actor, critic, loss_function="l2", alpha_init=c.temperature, target_entropy=target)
        self.loss.make_value_estimator(**self.estimator())
        self.follow = SoftUpdate(self.loss, tau=c.tau)

    @classmethod
    def from_config(cls, config: RunConfig, spaces: Spaces) -> Self:
        """The agent of a whole configuration.

        Raises:
            UserError: it cannot learn from what is seen, or n steps are more than an episode has.
        """
        limit, steps = config.task.max_decisions, config.agent.steps
        if limit is None and config.task.name.startswith("dmc/"):
            limit = EPISODE // config.task.action_repeat
        if limit is not None and steps > limit:
            raise UserError(
                f"agent.steps={steps}: an episode has {limit} agent steps; expected at most {limit}; type agent.steps=3"
            )
        return cls(config.agent, spaces, config.seed)

    # ---- what is seen

    @abstractmethod
    def checked(self, spaces: Spaces | None) -> Spaces:
        """The spaces.

        Raises:
            UserError: it cannot learn from what is seen.
        """

    @abstractmethod
    def networks(self) -> tuple[ProbabilisticActor, ValueOperator]:
        """Policy and critic, which read the entries that `rows` makes."""

    @abstractmethod
    def rows(self, batch: TensorDictBase) -> TensorDictBase:
        """What the losses are taken of, from transitions `[B]`."""

    @abstractmethod
    def seen(self, state: State) -> Tensor:
        """What the policy's network sees of a state `[M, ...]`."""

    @abstractmethod
    def memory(self, like: Tensor) -> Memoryless | LastFrames:
        """What of the past is a state when it acts."""

    def beside(self, batch: TensorDictBase, rows: TensorDictBase) -> dict[str, Tensor]:
        """Losses of what is learned beside actor and critics; nothing here."""
        return {}

    def estimator(self) -> dict[str, Any]:
        """Of the critics' targets; see TorchRL's `LossModule.make_value_estimator`."""
        return {"gamma": self.config.discount}

    def view(self, config: ReplayConfig) -> Transitions:
        """n-step transitions."""
        return Transitions(config.batch, self.config.steps, self.config.discount)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by part."""
        return {
            "actor": list(self.loss.actor_network_params.parameters()),
            "critic": list(self.loss.qvalue_network_params.parameters()),
            "temperature": [self.loss.log_alpha],
        }

    def rates(self) -> dict[str, float]:
        """Adam's step size of each part."""
        return {**super().rates(), "temperature": self.config.alpha_learning_rate}

    # ---- learning

    def losses(self, batch: TensorDictBase, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses from transitions `[B]`; those of actor, critic and temperature each move their own part alone."""
        return self.measure(batch, self.global_step, self.global_rank)

    def measure(self, batch: TensorDictBase, number: int, rank: int = 0) -> dict[str, Tensor]:
        """Losses of update `number`; TorchRL draws its actions from torch's global state."""
        with rng.scope(self.seed, "model", rank, number):
            rows = self.rows(batch)
            measured = self.loss(rows)
            beside = self.beside(batch, rows)
        return {
            "loss/actor": measured["loss_actor"],
            "loss/critic": measured["loss_qvalue"],
            "loss/temperature": measured["loss_alpha"],
            "policy/temperature": measured["alpha"].detach(),
            "policy/entropy": measured["entropy"].detach(),
            **beside,
        }

    def moved(self) -> Iterable[Tensor]:
        """None: the slow critics, TorchRL's buffers, follow after an update that was not skipped."""
        return ()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Update, and let the slow copies follow unless the update was skipped."""
        super().optimizer_step(*args, **kwargs)
        if not self.guard.streak:
            self.follow_slowly()

    def follow_slowly(self) -> None:
        """Move every slow copy towards what it is a copy of."""
        self.follow.step()

    # ---- acting

    def actor(
        self, planner: Planner | None, seed: int = 0, rank: int = 0, noise: float = 0.0, explore: bool = False
    ) -> WorldModelActor:
        """What plays by the policy; see `protocols.Agent`."""
        memory = self.memory(self.loss.log_alpha.detach())
        return policy_actor(self.config.name, self._policy_of, memory, planner, seed, rank, noise)

    def _policy_of(self, state: State) -> Distribution:
        with self.loss.actor_network_params.to_module(self.loss.actor_network):
            loc, scale = self.loss.actor_network[0].module(self.seen(state))
        squashed: Distribution = TanhNormal(loc, scale)
        return squashed


def _network(config: SACConfig, inputs: int, outputs: int, norm: bool) -> MLP:
    norms = {"norm_class": nn.LayerNorm, "norm_kwargs": {"normalized_shape": config.units}} if norm else {}
    return MLP(inputs, outputs, depth=config.layers, num_cells=config.units, activation_class=nn.ReLU, **norms)


def policy_network(
    config: SACConfig, inputs: int, action: int, entry: str = "observation", first: nn.Module | None = None
) -> ProbabilisticActor:
    """From numbers to a tanh-normal over A actions.

    Args:
        config: of the network.
        inputs: numbers that its hidden layers see.
        action: A.
        entry: of a batch, which it reads.
        first: what comes before the hidden layers.
    """
    before = [] if first is None else [first]
    network = nn.Sequential(*before, _network(config, inputs, 2 * action, config.actor_norm), NormalParamExtractor())
    module = TensorDictModule(network, in_keys=[entry], out_keys=["loc", "scale"])
    return ProbabilisticActor(module, in_keys=["loc", "scale"], distribution_class=TanhNormal, return_log_prob=True)


def critic_network(config: SACConfig, inputs: int, entry: str = "observation") -> ValueOperator:
    """From numbers, actions among them, to a value; the loss makes two of it."""
    return ValueOperator(_network(config, inputs, 1, config.norm), in_keys=[entry, "action"])
