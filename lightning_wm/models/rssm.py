"""The recurrent state-space model with Gaussian latents (arXiv:1811.04551, Sec. 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tensordict import TensorDictBase
from torch import Tensor, nn

from lightning_wm.models import fused_scan
from lightning_wm.models.distributions import NormalHead, TwoHotHead, gaussian_kl, symexp, symlog, widen
from lightning_wm.models.networks import ACTIVATIONS, ConvDecoder, ConvEncoder, check_pixels, mlp
from lightning_wm.models.scan import Posterior, ScanWeights, scan, statistics
from lightning_wm.protocols import Spaces, State
from lightning_wm.registry import register


@dataclass(frozen=True)
class RSSMConfig:
    """Sizes and loss weights of a Gaussian RSSM."""

    name: str = "rssm"
    deter: int = 200
    """D: width of the deterministic state (GRU)."""
    stoch: int = 30
    """S: width of the stochastic state."""
    hidden: int = 200
    """Width of the hidden layers of transition, prior and posterior."""
    units: int = 200
    """Width of the vector encoder, vector decoder, reward and continue heads."""
    layers: int = 2
    """Hidden layers of the vector encoder, vector decoder, reward and continue heads."""
    activation: str = "elu"
    """`elu`, `relu` or `silu`."""
    norm: bool = True
    """LayerNorm in encoders, decoders and heads."""
    min_std: float = 0.1
    """Floor of the latent's standard deviation."""
    depth: int = 32
    """Channels of the first convolution; the others are its multiples."""
    pixel_bits: int = 8
    """Bits per colour that the model sees; PlaNet uses 5, with uniform noise below the last bit."""
    symlog: bool = True
    """Squash state vectors (encoder and reconstruction target) with symlog."""
    reward_head: str = "two_hot"
    """`two_hot` (bins in symlog space) or `normal` (mean squared error)."""
    bins: int = 41
    """Bins of the two-hot reward head."""
    bin_limit: float = 4.0
    """Outermost bins in symlog units: rewards of one agent step within symexp of this."""
    continue_head: bool = True
    """Learn the probability that the episode goes on; without it, it always does."""
    reconstruction_scale: float = 1.0
    """Weight of the observation's negative log-likelihood."""
    reward_scale: float = 1.0
    """Weight of the reward's negative log-likelihood."""
    continue_scale: float = 1.0
    """Weight of the continue head's cross-entropy."""
    kl_dynamics: float = 0.5
    """Weight of KL(stopped posterior || prior): trains the prior."""
    kl_representation: float = 0.1
    """Weight of KL(posterior || stopped prior): trains the posterior. Both 1: the plain KL's gradient."""
    free_nats: float = 1.0
    """KL below this, per step, is not trained."""

    def __post_init__(self) -> None:
        for name in ("deter", "stoch", "hidden", "units", "depth", "bins"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name}={getattr(self, name)}: expected at least 1")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"model.activation={self.activation}: expected one of {', '.join(ACTIVATIONS)}")
        if self.reward_head not in ("two_hot", "normal"):
            raise ValueError(f"model.reward_head={self.reward_head}: expected two_hot or normal")
        if not 1 <= self.pixel_bits <= 8:
            raise ValueError(f"model.pixel_bits={self.pixel_bits}: expected 1 to 8")
        if self.min_std <= 0:
            raise ValueError(f"model.min_std={self.min_std}: expected a positive number")


@register("model", "rssm")
class RSSM(nn.Module):
    """World model with the state `{"deter": [M, D], "stoch": [M, S]}`.

    Args:
        config: sizes and loss weights.
        spaces: what it observes and the number of action dimensions.
    """

    Config = RSSMConfig

    def __init__(self, config: RSSMConfig | None = None, spaces: Spaces | None = None) -> None:
        super().__init__()
        if spaces is None:
            raise TypeError("RSSM(config, spaces): spaces is missing; use lightning_wm.envs.spaces(env)")
        self.config = config = config or RSSMConfig()
        self.spaces = spaces
        c, features = config, config.deter + config.stoch
        embed = 0
        if spaces.observation is not None:
            self.vector_encoder = mlp(spaces.observation, c.units, c.layers, None, c.activation, c.norm)
            self.vector_decoder = mlp(features, c.units, c.layers, spaces.observation, c.activation, c.norm)
            embed += c.units if c.layers else spaces.observation
        if spaces.pixels is not None:
            check_pixels(spaces.pixels)
            self.pixel_encoder = ConvEncoder(c.depth)
            self.pixel_decoder = ConvDecoder(features, c.depth)
            embed += self.pixel_encoder.outputs
        self.transition_in = nn.Linear(c.stoch + spaces.action, c.hidden)
        self.gru = nn.GRUCell(c.hidden, c.deter)
        self.prior_hidden = nn.Linear(c.deter, c.hidden)
        self.prior_out = nn.Linear(c.hidden, 2 * c.stoch)
        self.posterior_hidden = nn.Linear(c.deter + embed, c.hidden)
        self.posterior_out = nn.Linear(c.hidden, 2 * c.stoch)
        self.activation = ACTIVATIONS[c.activation]()
        self.by_autograd = False
        """Leave the time loop's backward pass to autograd, as torch.compile needs it."""
        self._compiled: Callable[..., dict[str, Tensor]] | None = None
        outputs = c.bins if c.reward_head == "two_hot" else 1
        reward = mlp(features, c.units, c.layers, outputs, c.activation, c.norm)
        self.reward_head: TwoHotHead | NormalHead = (
            TwoHotHead(reward, c.bins, c.bin_limit) if c.reward_head == "two_hot" else NormalHead(reward)
        )
        if c.continue_head:
            self.continue_head = mlp(features, c.units, c.layers, 1, c.activation, c.norm)

    # ---- the contract of protocols.WorldModel

    def initial(self, batch: int) -> State:
        """Zeros `[batch, ...]`."""
        like = self.transition_in.weight
        return {"deter": like.new_zeros(batch, self.config.deter), "stoch": like.new_zeros(batch, self.config.stoch)}

    def noise(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Standard normal `[*shape, S]` on the CPU."""
        return torch.randn(*shape, self.config.stoch, generator=generator)

    def imagine(self, state: State, action: Tensor, noise: Tensor | None = None) -> State:
        """One step of the prior; without noise its mean."""
        hidden = self.activation(self.transition_in(torch.cat([state["stoch"], action], dim=-1)))
        deter = self.gru(hidden, state["deter"])
        hidden = self.activation(self.prior_hidden(deter))
        if noise is None:
            s = self.config.stoch
            return {"deter": deter, "stoch": F.linear(hidden, self.prior_out.weight[:s], self.prior_out.bias[:s])}
        mean, std = statistics(self.prior_out(hidden), self.config.min_std)
        return {"deter": deter, "stoch": mean + std * noise}

    def filter(self, state: State, action: Tensor, observation: TensorDictBase) -> State:
        """One posterior step; takes the posterior's mean."""
        posterior = self._posterior(
            self._embed(observation).unsqueeze(0), action.unsqueeze(0), torch.ones_like(action[:, :1])[None], state
        )
        return {"deter": posterior.deter[0], "stoch": posterior.stoch[0]}

    def observe(
        self, batch: TensorDictBase, state: State | None = None, generator: torch.Generator | None = None
    ) -> tuple[State, dict[str, Tensor]]:
        """Posterior states `[B*T, ...]` and losses of a batch `[B, T]`; see `protocols.WorldModel`."""
        b, t = batch["action"].shape[:2]
        flat = self._targets(batch.reshape(b * t), generator)
        embed = self._embed_targets(flat).unflatten(0, (b, t)).transpose(0, 1)
        keep = 1.0 - batch["is_init"].transpose(0, 1).to(embed.dtype)
        noise = None
        if generator is not None:
            noise = self.noise((t, b), generator).to(embed)
        state = self.initial(b) if state is None else state
        posterior = self._posterior(embed, batch["action"].transpose(0, 1), keep, state, noise)
        states = {name: getattr(posterior, name).transpose(0, 1).flatten(0, 1) for name in ("deter", "stoch")}
        said = {name: batch[name] for name in ("reward", "terminated", "is_init")}
        losses = self._compiled if self._compiled is not None and torch.is_grad_enabled() else self._losses
        return states, losses(said, flat, states, posterior)

    def reward(self, state: State) -> Tensor:
        """Expected reward of one agent step, `[M]`."""
        value: Tensor = self.reward_head(self.features(state))
        return value

    def continues(self, state: State) -> Tensor:
        """Probability that the episode goes on, `[M]`; ones without a continue head."""
        if not self.config.continue_head:
            return torch.ones_like(state["deter"][:, 0])
        value: Tensor = self.continue_head(self.features(state)).squeeze(-1).sigmoid()
        return value

    # ---- what it offers beyond

    def compile_update(self) -> None:
        """Compile decoders, heads and losses for training (25 s at the first update of each batch shape).

        The time loop keeps its backward pass by hand: unrolled over 50 steps it compiles for minutes and gains
        nothing. What runs without gradients stays eager, since its shapes vary.
        """
        self._compiled = torch.compile(self._losses, dynamic=False)

    @property
    def can_unroll(self) -> bool:
        """Whether `unroll` knows the activation."""
        return self.config.activation in fused_scan.ACTIVATIONS

    def unroll(self, state: State, actions: Tensor, noise: Tensor | None = None) -> State:
        """`imagine` for a whole plan, differentiable in actions and state but not in the weights.

        Args:
            state: `[M, ...]`.
            actions: `[M, H, A]`.
            noise: `[H, M, S]`; None follows the prior's mean.

        Returns:
            The states after each action, `[H, M, ...]`.
        """
        s, out = self.config.stoch, slice(None) if noise is not None else slice(self.config.stoch)
        into = self.transition_in
        action_half = F.linear(actions, into.weight[:, s:].detach(), into.bias.detach()).transpose(0, 1)
        prior_half = self.prior_hidden.bias.detach().expand(*action_half.shape[:2], -1)
        gru = (self.gru.weight_ih, self.gru.weight_hh, self.gru.bias_ih, self.gru.bias_hh)
        weights = (
            into.weight[:, :s], *gru, self.prior_hidden.weight, self.prior_out.weight[out], self.prior_out.bias[out],
        )  # fmt: skip
        deter, stoch, _ = fused_scan.fused_scan(
            self.config.activation, self.config.min_std, action_half, prior_half, None, noise,
            state["deter"], state["stoch"], *(weight.detach() for weight in weights),
        )  # fmt: skip
        return {"deter": deter, "stoch": stoch}

    def features(self, state: State) -> Tensor:
        """`[M, D+S]`, what every head sees."""
        return torch.cat([state["deter"], state["stoch"]], dim=-1)

    def decode(self, state: State) -> dict[str, Tensor]:
        """Mean observations: `observation` `[M, O]` in its own units, `pixels` `[M, 3, X, Y]` in [0, 1]."""
        features = self.features(state)
        decoded: dict[str, Tensor] = {}
        if self.spaces.observation is not None:
            vector = self.vector_decoder(features)
            decoded["observation"] = symexp(vector) if self.config.symlog else vector
        if self.spaces.pixels is not None:
            decoded["pixels"] = (self.pixel_decoder(features) + 0.5).clamp(0.0, 1.0)
        return decoded

    def observation_error(self, state: State, observation: TensorDictBase) -> Tensor:
        """Mean squared error of the decoded observation, `[M]`, in the space of the reconstruction loss."""
        features, errors = self.features(state), []
        for name, target in self._targets(observation).items():
            decoded = self.vector_decoder(features) if name == "observation" else self.pixel_decoder(features)
            errors.append((widen(decoded) - widen(target)).square().flatten(1).mean(1))
        return torch.stack(errors).mean(0)

    def prior(self, deter: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation `[..., S]` of the prior given `deter` `[..., D]`."""
        raw = self.prior_out(self.activation(self.prior_hidden(deter)))
        return statistics(widen(raw), self.config.min_std)

    # ---- inside

    def _targets(self, flat: TensorDictBase, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Observations `[M, ...]` as the networks see and rebuild them."""
        targets: dict[str, Tensor] = {}
        dtype = self.transition_in.weight.dtype
        if self.spaces.observation is not None:
            vector = flat["observation"].to(dtype)
            targets["observation"] = symlog(vector) if self.config.symlog else vector
        if self.spaces.pixels is not None:
            image = self._normalise(flat["pixels"], generator).to(dtype)
            targets["pixels"] = image.contiguous(memory_format=torch.channels_last)  # as the decoder's output lies
        return targets

    def _normalise(self, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
        """uint8 to [-0.5, 0.5]; fewer than 8 bits are dequantised with uniform noise (its mean without one)."""
        bits = self.config.pixel_bits
        if bits == 8:
            return pixels.float() / 255.0 - 0.5
        level = torch.bitwise_right_shift(pixels, 8 - bits).float()
        jitter: Tensor | float = 0.5
        if generator is not None:
            jitter = torch.rand(pixels.shape, generator=generator).to(pixels.device)
        return level.add_(jitter).mul_(0.5**bits).sub_(0.5)

    def _embed_targets(self, targets: dict[str, Tensor]) -> Tensor:
        parts = []
        if "observation" in targets:
            parts.append(self.vector_encoder(targets["observation"]))
        if "pixels" in targets:
            parts.append(self.pixel_encoder(targets["pixels"]))
        return torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]

    def _embed(self, observation: TensorDictBase) -> Tensor:
        return self._embed_targets(self._targets(observation))

    def _posterior(
        self, embed: Tensor, action: Tensor, keep: Tensor, state: State, noise: Tensor | None = None
    ) -> Posterior:
        """Scan over `[T, B, ...]`; the state and the action are forgotten where `keep` is 0."""
        s, d = self.config.stoch, self.config.deter
        into, post = self.transition_in, self.posterior_hidden
        action_half = F.linear(action.to(embed.dtype) * keep, into.weight[:, s:], into.bias)
        observation_half = F.linear(embed, post.weight[:, d:], post.bias)
        weights = ScanWeights(into.weight[:, :s], self.gru, post.weight[:, :d], self.posterior_out)
        return scan(
            weights,
            action_half,
            observation_half,
            keep,
            noise,
            state["deter"],
            state["stoch"],
            self.config.activation,
            self.config.min_std,
            self.by_autograd,
        )

    def _losses(
        self, batch: dict[str, Tensor], targets: dict[str, Tensor], states: State, posterior: Posterior
    ) -> dict[str, Tensor]:
        """Named losses of `reward`, `terminated` and `is_init` `[B, T, 1]` and flat targets and states `[B*T, ...]`."""
        c, features = self.config, self.features(states)
        losses = {"loss/reconstruction": c.reconstruction_scale * self._reconstruction(features, targets)}
        # The reward at an episode's first observation belongs to no action.
        real = 1.0 - batch["is_init"].flatten(0, 1).squeeze(-1).to(features.dtype)
        reward = self.reward_head.loss(features, batch["reward"].flatten(0, 1).squeeze(-1).to(features.dtype))
        losses["loss/reward"] = c.reward_scale * (reward * real).sum() / real.sum().clamp_min(1.0)
        if c.continue_head:
            logits = widen(self.continue_head(features).squeeze(-1))
            alive = 1.0 - batch["terminated"].flatten(0, 1).squeeze(-1).to(logits.dtype)
            losses["loss/continue"] = c.continue_scale * F.binary_cross_entropy_with_logits(logits, alive)
        kl, losses["loss/kl"] = self._kl(posterior)
        losses["kl"] = kl.detach()
        return losses

    def _reconstruction(self, features: Tensor, targets: dict[str, Tensor]) -> Tensor:
        """Negative log-likelihood of unit Gaussians in nats per step, without its constant."""
        total = features.new_zeros((), dtype=widen(features).dtype)
        for name, decoder in (("observation", "vector_decoder"), ("pixels", "pixel_decoder")):
            if name in targets:
                decoded, target = widen(getattr(self, decoder)(features)), widen(targets[name])
                total = total + 0.5 * F.mse_loss(decoded, target, reduction="sum") / target.shape[0]
        return total

    def _kl(self, posterior: Posterior) -> tuple[Tensor, Tensor]:
        """The KL in nats per step, and its balanced, thresholded loss (arXiv:2301.04104, Eq. 5)."""
        c = self.config
        mean_q, std_q = widen(posterior.mean), widen(posterior.std)
        mean_p, std_p = self.prior(posterior.deter)
        dynamics = gaussian_kl(mean_q.detach(), std_q.detach(), mean_p, std_p)
        representation = gaussian_kl(mean_q, std_q, mean_p.detach(), std_p.detach())
        loss = c.kl_dynamics * dynamics.clamp_min(c.free_nats) + c.kl_representation * representation.clamp_min(
            c.free_nats
        )
        return dynamics.mean(), loss.mean()
