"""A world model without a decoder, and Q-functions and a policy learned from replay along its imagined latents."""

from __future__ import annotations

from dataclasses import field, replace
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.distributions import Distribution
from torchrl.modules import PercentileValueNorm

from lightning_wm import rng
from lightning_wm.agents.planet import PlaNet, PlaNetConfig
from lightning_wm.config.fields import Count, Factor, Positive, Weight, settings
from lightning_wm.errors import UserError
from lightning_wm.models.action_values import ActionCriticConfig, ActionCritics
from lightning_wm.models.behaviour import ActorConfig, PolicyHead
from lightning_wm.models.distributions import widen
from lightning_wm.models.freezing import frozen
from lightning_wm.models.joint_embedding import JointEmbedding, Roll
from lightning_wm.models.networks import follow
from lightning_wm.models.over_ranks import gathered
from lightning_wm.protocols import State
from lightning_wm.registry import register


def _actor() -> ActorConfig:
    return ActorConfig(units=256, distribution="tanh_normal")


@settings("agent")
class TDMPCConfig(PlaNetConfig):
    """How the world model, the critics and the policy are optimised."""

    name: str = "tdmpc"
    learning_rate: Positive = 3e-4
    """Adam's step size of all but the encoder."""
    encoder_learning_rate: Positive = 1e-4
    """Adam's step size of the encoder."""
    clip: Positive = 20.0
    """Largest norm of each part's gradient."""
    open_loop_observed: Count = 1
    open_loop_predicted: Count = 3
    actor: ActorConfig = field(default_factory=_actor)
    """The policy."""
    critic: ActionCriticConfig = field(default_factory=ActionCriticConfig)
    """The Q-functions."""
    value_scale: Weight = 0.1
    """Weight of the critics' cross-entropy."""
    entropy: Weight = 1e-4
    """Weight of the policy's entropy, in units of normalised value."""
    discount: Factor = 0.99
    """Factor per agent step."""


@register("agent", "tdmpc")
class TDMPC(PlaNet):
    """TD-MPC2's learning (arXiv:2310.16828, Sec. 3.1, App. A): every window is imagined from its first observation.

        L_Q = sum_t rho^t CE(Q(z_t, a_{t+1}), r_{t+1} + discount min over two of Q_slow(h(o_{t+1}), pi))
        L_pi = -sum_t rho^t (Q(z_t, pi(z_t)) / S + entropy H(pi)),    S the 5 to 95 % range of Q

    Model, critics and encoder learn from the first, the policy from the second alone.

    Args:
        config: how it is optimised.
        model: a `JointEmbedding`.
        seed: of the stream model.

    Raises:
        UserError: the model is another.
    """

    Config = TDMPCConfig
    config: TDMPCConfig
    model: JointEmbedding

    def __init__(self, config: TDMPCConfig | None = None, model: Any = None, seed: int = 0) -> None:
        super().__init__(config, model, seed)
        if not isinstance(model, JointEmbedding):
            raise UserError(
                f"agent=tdmpc learns along the latents of model=joint_embedding, not of {type(model).__name__}; "
                "type model=joint_embedding, or agent=dreamer"
            )
        c, sizes = self.config, (model.config.latent, model.spaces.action)
        self.policy = PolicyHead(*sizes, c.actor)
        self.critics = ActionCritics(*sizes, c.critic)
        self.slow = ActionCritics(*sizes, replace(c.critic, dropout=0.0)).requires_grad_(False)
        self.slow.load_state_dict(self.critics.state_dict())
        self.spread = PercentileValueNorm()

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by part."""
        encoder = list(self.model.encoder.parameters())
        held = {id(parameter) for parameter in encoder}
        return {
            "model": [parameter for parameter in self.model.parameters() if id(parameter) not in held],
            "encoder": encoder,
            "critic": list(self.critics.parameters()),
            "actor": list(self.policy.parameters()),
        }

    def rates(self) -> dict[str, float]:
        """Adam's step size of each part."""
        return {**super().rates(), "encoder": self.config.encoder_learning_rate}

    # ---- learning

    def losses(self, batch: TensorDictBase, generator: torch.Generator) -> dict[str, Tensor]:
        """Losses of the model, the critics and the policy from windows `[B, T]`.

        Raises:
            UserError: windows of a single observation, in which there is no step.
        """
        if batch.shape[1] < 2:
            raise UserError("replay.length=1: a window without a step teaches nothing; type replay.length=4")
        if not self.guard.streak:  # after a skipped update the critics are those that it has followed already
            follow(self.slow, self.critics, 1.0 - self.config.critic.decay)
        with rng.scope(self.seed, "model", self.global_rank, self.global_step, 1):  # of dropout
            rolled, challenged = self.model.roll(batch), self.challenged(batch)
            # What was earned was earned by replay's own actions: critics and policy learn from these alone.
            taught = rolled if challenged is batch else self.model.roll(challenged)
            return {
                **self.model.losses(taught),
                **self.valued(rolled, generator),
                **self.acted(rolled, generator),
            }

    def valued(self, rolled: Roll, generator: torch.Generator) -> dict[str, Tensor]:
        """The critics' loss."""
        target = self.targets(rolled, generator)  # T-1, B
        latent, action = rolled.latent[:-1].flatten(0, 1), rolled.action[1:].flatten(0, 1)
        nats = self.critics.loss(latent, action, target.flatten()).view_as(target)
        return {
            "loss/critic": self.config.value_scale * (rolled.weight * nats).mean(),
            "value/target": target.mean(),
        }

    @torch.no_grad()
    def targets(self, rolled: Roll, generator: torch.Generator) -> Tensor:
        """What Q(z_t, a_{t+1}) should be, `[T-1, B]`: it bootstraps from what was seen next, not imagined."""
        seen = rolled.encoded[1:].flatten(0, 1)
        action, _, _ = self.drawn(seen, generator)
        after = self.slow(seen, action, self.critics.two(generator)).amin(0).view_as(rolled.weight)
        target: Tensor = rolled.reward[1:] + self.config.discount * (1.0 - rolled.terminated[1:]) * after
        return target

    def acted(self, rolled: Roll, generator: torch.Generator) -> dict[str, Tensor]:
        """The policy's loss, at the imagined latents as they are."""
        latent = rolled.latent.detach().flatten(0, 1)
        action, std, raw = self.drawn(latent, generator)
        with frozen(self.critics):
            value = self.critics(latent, action, self.critics.two(generator)).mean(0)  # T*B
        self.spread.update(gathered(value.detach()[: rolled.latent.shape[1], None]))  # of what was seen
        entropy = self.policy.entropy(std, raw)
        gain = value / self.spread.scale().detach() + self.config.entropy * entropy
        return {
            "loss/actor": -(rolled.standing.flatten() * gain).mean(),
            "policy/entropy": entropy.detach().mean(),
            "value/policy": value.detach().mean(),
        }

    def drawn(self, latent: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """An action of the policy `[M, A]`, its deviation and the draw before the bound."""
        mean, std = self.policy.statistics(latent)
        raw = mean + std * torch.randn(mean.shape, generator=generator).to(mean)
        return self.policy.bound(raw).to(latent.dtype), std, raw

    # ---- acting

    def learned(self, explore: bool = False) -> dict[str, Any]:
        """Policy and critics for planners, and the discount that the critics' values are of."""
        return {"policy": self._policy_of, "values": self._values_of, "discount": self.config.discount}

    def _policy_of(self, state: State) -> Distribution:
        distribution: Distribution = self.policy(state["latent"])
        return distribution

    def _values_of(self, state: State) -> Tensor:
        """What each critic expects of the policy's mode, `[K, M]`."""
        mean, _ = self.policy.statistics(state["latent"])
        return widen(self.critics(state["latent"], self.policy.bound(mean).to(state["latent"].dtype)))
