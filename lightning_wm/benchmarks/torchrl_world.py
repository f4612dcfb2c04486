"""TorchRL's world model at our sizes: `RSSMRollout` under `DreamerModelLoss` on state vectors."""

from __future__ import annotations

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import Tensor, nn
from torchrl.data import Bounded
from torchrl.modules.models.model_based import RSSMPosterior, RSSMPrior, RSSMRollout
from torchrl.modules.tensordict_module import WorldModelWrapper
from torchrl.objectives import DreamerModelLoss

from lightning_wm.models.networks import mlp
from lightning_wm.models.rssm import RSSMConfig
from lightning_wm.protocols import Spaces


class _OfFeatures(nn.Module):
    """A network on the latent state; an `image` is `[..., 1, 1, O]`, since the loss sums three dimensions."""

    def __init__(self, network: nn.Module, image: bool = False) -> None:
        super().__init__()
        self.network, self.image = network, image

    def forward(self, deter: Tensor, stoch: Tensor) -> Tensor:
        value: Tensor = self.network(torch.cat([deter, stoch], -1))
        return value[..., None, None, :] if self.image else value


def dreamer_loss(config: RSSMConfig, spaces: Spaces) -> DreamerModelLoss:
    """The loss module with encoder, decoder and reward perceptrons of our own shapes.

    Its own deviations stay: no resets inside a window, a prior sample that is thrown away, no KL balance.
    """
    c, observation = config, spaces.observation or 0
    action = Bounded(-1.0, 1.0, (spaces.action,))
    embed = c.units if c.layers else observation

    def perceptron(inputs: int, outputs: int | None) -> nn.Module:
        return mlp(inputs, c.units, c.layers, outputs, c.activation, c.norm)

    prior = TensorDictModule(
        RSSMPrior(action, c.hidden, c.deter, c.stoch, c.min_std, spaces.action),
        in_keys=["state", "belief", "action"],
        out_keys=[("next", "prior_mean"), ("next", "prior_std"), "_", ("next", "belief")],
    )
    posterior = TensorDictModule(
        RSSMPosterior(c.hidden, c.stoch, c.min_std, c.deter, embed),
        in_keys=[("next", "belief"), ("next", "encoded_latents")],
        out_keys=[("next", "posterior_mean"), ("next", "posterior_std"), ("next", "state")],
    )
    features = [("next", "belief"), ("next", "state")]
    decoder = _OfFeatures(perceptron(c.deter + c.stoch, observation), image=True)
    transition = TensorDictSequential(
        TensorDictModule(perceptron(observation, None), [("next", "observation")], [("next", "encoded_latents")]),
        RSSMRollout(prior, posterior),
        TensorDictModule(decoder, features, [("next", "reco_pixels")]),
    )
    reward = TensorDictModule(_OfFeatures(perceptron(c.deter + c.stoch, 1)), features, [("next", "reward")])
    loss = DreamerModelLoss(WorldModelWrapper(transition, reward), free_nats=c.free_nats)
    loss.set_keys(pixels="pixels")
    return loss


def peer_batch(batch: TensorDictBase, config: RSSMConfig) -> TensorDict:
    """A batch `[B, T]` of ours in the keys that the loss reads."""
    shape, seen = batch.batch_size, batch["observation"]
    after = {"observation": seen, "pixels": seen[..., None, None, :], "reward": batch["reward"]}
    before = {"state": torch.zeros(*shape, config.stoch), "belief": torch.zeros(*shape, config.deter)}
    return TensorDict({**before, "action": batch["action"], "next": TensorDict(after, shape)}, shape)
