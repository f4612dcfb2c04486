"""A policy and its critics, learned in a model's imagination."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torchrl.modules import PercentileValueNorm

from lightning_wm.agents.imagination import Dream, DreamModel, dream, lambda_returns, survival
from lightning_wm.agents.replayed import replayed_returns
from lightning_wm.models.behaviour import Critics, PolicyHead
from lightning_wm.models.distributions import widen
from lightning_wm.models.freezing import frozen
from lightning_wm.models.losses import mean_where
from lightning_wm.models.over_ranks import gathered
from lightning_wm.protocols import Disagrees, State

if TYPE_CHECKING:
    from lightning_wm.agents.dreamer import DreamerConfig


def behaviour_parts(config: DreamerConfig, width: int, action: int) -> dict[str, nn.Module]:
    """Policy, critics, the slow copy of these and the spread of returns, for features `[M, width]`."""
    policy, critics = PolicyHead(width, action, config.actor), Critics(width, config.critic)
    slow = Critics(width, config.critic).requires_grad_(False)
    slow.load_state_dict(critics.state_dict())
    return {"policy": policy, "critics": critics, "slow": slow, "spread": PercentileValueNorm()}


@dataclass
class Behaviour:
    """What acts, for the imagined reward plus `bonus` times the ensemble's disagreement; the weights are an agent's."""

    config: DreamerConfig
    policy: PolicyHead
    critics: Critics
    slow: Critics
    """Follows the critics."""
    spread: PercentileValueNorm
    bonus: float = 0.0
    """Above 0 it seeks what the model does not know (arXiv:2005.05960)."""

    def losses(self, model: DreamModel, start: State, alive: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """`loss/actor`, `loss/critic` and what is worth logging, from M starts `[M, ...]`.

        Args:
            model: imagines, and learns nothing from it.
            start: states, detached.
            alive: whether the episode goes on after them, `[M]`.
            generator: of the policy's and the model's noise.
        """
        c = self.config
        size = (c.imagination, len(alive))
        drawn = torch.randn(*size, model.spaces.action, generator=generator).to(alive)
        noise = model.noise(size, generator).to(alive)
        with frozen(model, self.critics):
            imagined = dream(model, self.policy, start, drawn, noise, c.gradient == "dynamics")
            returns, weight, value = self.returns(model, imagined, alive)
        self.spread.update(gathered(returns.detach().reshape(-1, 1)))
        scale = self.spread.scale().detach() if c.normalise_returns else 1.0
        entropy = self.policy.entropy(imagined.std, imagined.raw)
        if c.gradient == "dynamics":
            gain = returns / scale
        else:
            chance = self.policy.log_prob(imagined.mean, imagined.std, imagined.raw.detach())
            gain = chance * ((returns - value) / scale).detach()
        critic = self._critic_nats(imagined.features[:-1].detach().flatten(0, 1), returns.detach().flatten())
        return {
            "loss/actor": -(weight * (gain + c.entropy * entropy)).mean(),
            "loss/critic": (weight.flatten() * critic).mean(),
            "policy/entropy": entropy.detach().mean(),
            "policy/std": imagined.std.detach().mean(),
            "imagined/return": returns.detach().mean(),
            "imagined/value": value.mean(),
        }

    def replayed_loss(self, features: Tensor, batch: TensorDictBase) -> Tensor:
        """Nats of the critics on what replay's windows `[B, T]` earned; `features` `[B, T, F]`, detached."""
        c = self.config
        with torch.no_grad():
            value = widen(self._bootstrap(features.flatten(0, 1)).mean(0)).unflatten(0, features.shape[:2])
        ends = batch["is_init"][:, 1:].squeeze(-1)
        reward, terminated = batch["reward"].squeeze(-1), batch["terminated"].squeeze(-1)
        returns, real = replayed_returns(reward, ends, terminated, value, c.discount, c.return_lambda)
        nats = self._critic_nats(features[:, :-1].flatten(0, 1), returns.flatten())
        return mean_where(real.flatten(), nats)

    @property
    def _bootstrap(self) -> Critics:
        """Whose values returns end in."""
        return self.slow if self.config.critic.bootstrap == "slow" else self.critics

    def _critic_nats(self, features: Tensor, returns: Tensor) -> Tensor:
        """The critics' loss `[H*M]`, held near the slow critics where a regulariser is asked for."""
        share = self.config.critic.regulariser
        if not share:
            return self.critics.loss(features, returns)
        nats = self.critics.losses(features, [returns, self.slow(features).mean(0)])
        return nats[0] + share * nats[1]

    def returns(self, model: DreamModel, imagined: Dream, alive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """lambda-returns of the states 0..H-1, how much each counts, and the critics' value, each `[H, M]`."""
        c, horizon = self.config, len(imagined.raw)
        reward = model.reward(imagined.states)
        if self.bonus:
            assert isinstance(model, Disagrees)  # the agent has refused others
            reward = reward + self.bonus * model.disagreement(imagined.states)
        discount = c.discount * model.continues(imagined.states)
        critics = self._bootstrap
        value = critics(imagined.features[1:].flatten(0, 1)).mean(0)
        reward, discount, value = (widen(flat).unflatten(0, (horizon, -1)) for flat in (reward, discount, value))
        returns = lambda_returns(reward, discount, value, c.return_lambda)
        with torch.no_grad():
            before = critics(imagined.features[0]).mean(0)
        return returns, alive * survival(discount), torch.cat([before[None], value[:-1].detach()])
