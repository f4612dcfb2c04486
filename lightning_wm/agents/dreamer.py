"""Learning a world model, and a policy and its value in the model's imagination."""

from __future__ import annotations

from dataclasses import field
from typing import Any, Literal, Protocol

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.distributions import Distribution
from torchrl.modules import PercentileValueNorm

from lightning_wm import rng
from lightning_wm.agents.behaviour import Behaviour, behaviour_parts
from lightning_wm.agents.planet import PlaNet, PlaNetConfig
from lightning_wm.config.fields import Count, Factor, Natural, Positive, Weight, settings
from lightning_wm.errors import UserError
from lightning_wm.models.behaviour import ActorConfig, CriticConfig, Critics, PolicyHead
from lightning_wm.models.losses import mean_where
from lightning_wm.protocols import Disagrees, Features, State, TrainedModel
from lightning_wm.registry import register


@settings("agent")
class DreamerConfig(PlaNetConfig):
    """How the world model, the actor and the critics are optimised."""

    name: str = "dreamer"
    actor: ActorConfig = field(default_factory=ActorConfig)
    """The policy."""
    critic: CriticConfig = field(default_factory=CriticConfig)
    """The value."""
    actor_learning_rate: Positive = 3e-4
    """Adam's step size of the actor."""
    critic_learning_rate: Positive = 3e-4
    """Adam's step size of the critics."""
    imagination: Count = 15
    """H: agent steps that are imagined."""
    imagine_starts: Natural = 64
    """M: posterior states of a batch that imagination starts from; 0 for all of them."""
    gradient: Literal["dynamics", "reinforce"] = "dynamics"
    """The actor's gradient: through the `dynamics`, or `reinforce`, the score function with the value as baseline."""
    discount: Factor = 0.99
    """Factor per agent step."""
    return_lambda: Factor = 0.95
    """lambda of the lambda-returns."""
    entropy: Weight = 1e-3
    """Weight of the policy's entropy, in units of normalised return."""
    normalise_returns: bool = True
    """Divide by the spread of the returns, their 5 to 95 % range (arXiv:2301.04104, Eq. 7), where it is above 1."""
    disagreement_bonus: Weight = 0.0
    """Weight of the ensemble's disagreement in the imagined reward, to explore; needs model.ensemble."""
    replayed: Weight = 0.0
    """Weight of the critics' loss on the lambda-returns of replay (arXiv:2301.04104v2 has 0.3); 0 leaves it out."""
    imitation: Weight = 0.0
    """Weight of the policy's negative log-likelihood of the actions in replay; 0 leaves it out."""


class _Model(TrainedModel, Features, Protocol):
    """What Dreamer trains, and reads."""


@register("agent", "dreamer")
class Dreamer(PlaNet):
    """Dreamer: behaviour learned by latent imagination (arXiv:1912.01603; arXiv:2301.04104).

    One optimiser with a group per part, one summed loss. The world model is
    trained by its own losses alone.

    Args:
        config: how it is optimised.
        model: a `protocols.TrainedModel` that has `features(state)` `[M, F]`.
        seed: of the stream model.

    Raises:
        UserError: the model has no features, or no ensemble where its disagreement is asked for.
    """

    Config = DreamerConfig
    config: DreamerConfig
    model: _Model
    policy: PolicyHead
    critics: Critics
    slow: Critics
    spread: PercentileValueNorm

    def __init__(self, config: DreamerConfig | None = None, model: _Model | None = None, seed: int = 0) -> None:
        super().__init__(config, model, seed)
        c = self.config
        if not isinstance(model, Features):
            raise UserError(
                f"agent=dreamer learns on the model's features, but {type(model).__name__} has no features(state); "
                "add the method, or type agent=planet"
            )
        if c.disagreement_bonus and not isinstance(model, Disagrees):
            raise UserError(
                f"agent.disagreement_bonus={c.disagreement_bonus}, but the model has no ensemble; "
                "type model.ensemble=5, or agent.disagreement_bonus=0"
            )
        width = self.model.features(self.model.initial(1)).shape[-1]
        actions = self.model.spaces.action
        for name, part in behaviour_parts(c, width, actions).items():
            self.add_module(name, part)
        self.behaviour = Behaviour(c, self.policy, self.critics, self.slow, self.spread)
        self.explorer: Behaviour | None = None
        """Seeks what the model does not know; collecting acts by it, nothing else does."""
        if c.disagreement_bonus:
            # After all others, so that the weights of an agent without it are what they are.
            self.exploration = nn.ModuleDict(behaviour_parts(c, width, actions))
            self.explorer = Behaviour(c, **self.exploration, bonus=c.disagreement_bonus)

    def groups(self) -> dict[str, list[torch.nn.Parameter]]:
        """Parameters by part."""
        behaviour = {"actor": list(self.policy.parameters()), "critic": list(self.critics.parameters())}
        groups = {**super().groups(), **behaviour}
        if self.explorer is not None:
            groups["exploring_actor"] = list(self.explorer.policy.parameters())
            groups["exploring_critic"] = list(self.explorer.critics.parameters())
        return groups

    def rates(self) -> dict[str, float]:
        """Adam's step size of each part."""
        c = self.config
        actor, critic = c.actor_learning_rate, c.critic_learning_rate
        rates = {"actor": actor, "critic": critic, "exploring_actor": actor, "exploring_critic": critic}
        return {"model": c.learning_rate, **{name: rates[name] for name in self.groups() if name in rates}}

    # ---- learning

    def behave(self, states: State, batch: TensorDictBase) -> dict[str, Tensor]:
        """Losses of actor and critics, from trajectories that are imagined from posterior states."""
        generator = rng.generator(self.seed, "model", self.global_rank, self.global_step, 1)
        behaviours = [self.behaviour] if self.explorer is None else [self.behaviour, self.explorer]
        if not self.guard.streak:  # after a skipped update the critics are those that it has followed already
            for behaviour in behaviours:
                behaviour.slow.follow(behaviour.critics)
        start, alive = self.starts(states, batch, generator)
        measured = self.behaviour.losses(self.model, start, alive, generator)
        if self.config.replayed:
            replayed = self.behaviour.replayed_loss(self.unfolded(states, batch), batch)
            measured["loss/replayed"] = self.config.replayed * replayed
        if self.config.imitation:
            measured["loss/imitation"] = self.config.imitation * self.imitated(states, batch)
        if self.explorer is not None:
            exploring = self.explorer.losses(self.model, start, alive, generator)
            measured |= {name.replace("/", "/exploring_"): value for name, value in exploring.items()}
        return measured

    def starts(self, states: State, batch: TensorDictBase, generator: torch.Generator) -> tuple[State, Tensor]:
        """States to imagine from, `[M, ...]`, and whether the episode goes on after them, `[M]`."""
        alive = 1.0 - batch["terminated"].flatten().to(next(iter(states.values())).dtype)
        number = self.config.imagine_starts or len(alive)
        chosen = torch.randperm(len(alive), generator=generator)[:number].to(alive.device)
        return {name: value.detach()[chosen] for name, value in states.items()}, alive[chosen]

    def unfolded(self, states: State, batch: TensorDictBase) -> Tensor:
        """Features of the posterior states, `[B, T, F]`, detached."""
        features = self.model.features({name: value.detach() for name, value in states.items()}).detach()
        unfolded: Tensor = features.unflatten(0, tuple(batch.shape[:2]))
        return unfolded

    def imitated(self, states: State, batch: TensorDictBase) -> Tensor:
        """Negative log-likelihood in nats of the actions that replay holds, given the states they were chosen in."""
        mean, std = self.policy.statistics(self.unfolded(states, batch)[:, :-1])
        action = self.policy.unbound(batch["action"][:, 1:].to(mean))
        real = 1.0 - batch["is_init"][:, 1:].squeeze(-1).to(mean)
        return mean_where(real, -self.policy.log_prob(mean, std, action))

    # ---- acting

    def learned(self, explore: bool = False) -> dict[str, Any]:
        """Policy and critics for planners, and the discount that the critics' values are of."""
        discount = self.config.discount
        # Methods, which are equal for actors of the same agent: what is compiled is kept by them.
        if explore and self.explorer is not None:
            return {"policy": self._exploring_policy_of, "values": self._exploring_values_of, "discount": discount}
        return {"policy": self._policy_of, "values": self._values_of, "discount": discount}

    def curiosity(self, explore: bool) -> float:
        """The exploring policy's bonus, where that is what plans."""
        return self.config.disagreement_bonus if explore else 0.0

    def _policy_of(self, state: State) -> Distribution:
        distribution: Distribution = self.policy(self.model.features(state))
        return distribution

    def _values_of(self, state: State) -> Tensor:
        values: Tensor = self.critics(self.model.features(state))
        return values

    def _exploring_policy_of(self, state: State) -> Distribution:
        assert self.explorer is not None
        distribution: Distribution = self.explorer.policy(self.model.features(state))
        return distribution

    def _exploring_values_of(self, state: State) -> Tensor:
        assert self.explorer is not None
        values: Tensor = self.explorer.critics(self.model.features(state))
        return values
