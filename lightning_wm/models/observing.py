"""What a world model sees and rebuilds: encoders, decoders and the space between them."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from lightning_wm.models import losses
from lightning_wm.models.config import ModelConfig
from lightning_wm.models.distributions import symexp, symlog
from lightning_wm.models.networks import ConvDecoder, ConvEncoder, check_pixels, mlp
from lightning_wm.models.normaliser import Normaliser
from lightning_wm.protocols import Spaces, State


class Observing(nn.Module):
    """Encoders and decoders of state vectors and pixels.

    Args:
        config: sizes, and how state vectors are scaled.
        spaces: what is observed.
        features: F, width of what is decoded.
    """

    def __init__(self, config: ModelConfig, spaces: Spaces, features: int) -> None:
        super().__init__()
        self.spaces = spaces
        self._symlog, self._bits = config.symlog, config.pixel_bits
        self.embedding = 0
        """Width of an encoded observation."""
        self.normaliser: Normaliser | None = None
        c, vector, norm = config, spaces.observation, (config.activation, config.norm, config.norm_kind)
        if vector is not None:
            self.vector_encoder = mlp(vector, c.units, c.layers, None, *norm)
            self.vector_decoder = mlp(features, c.units, c.layers, vector, *norm)
            self.embedding += c.units if c.layers else vector
            if c.normalise:
                self.normaliser = Normaliser(vector)
        if spaces.pixels is not None:
            check_pixels(spaces.pixels)
            self.pixel_encoder = ConvEncoder(c.depth)
            self.pixel_decoder = ConvDecoder(features, c.depth)
            self.embedding += self.pixel_encoder.outputs

    def features(self, state: State) -> Tensor:
        """`[M, D+S]`, what every head sees."""
        return torch.cat([state["deter"], state["stoch"]], dim=-1)

    def decode(self, state: State) -> dict[str, Tensor]:
        """Mean observations: `observation` `[M, O]` in its own units, `pixels` `[M, 3, X, Y]` in [0, 1]."""
        decoded = self._decode(self.features(state))
        if "observation" in decoded:
            vector = symexp(decoded["observation"]) if self._symlog else decoded["observation"]
            decoded["observation"] = vector if self.normaliser is None else self.normaliser.invert(vector)
        if "pixels" in decoded:
            decoded["pixels"] = (decoded["pixels"] + 0.5).clamp(0.0, 1.0)
        return decoded

    def observation_error(self, state: State, observation: TensorDictBase) -> Tensor:
        """Mean squared error of the decoded observation, `[M]`, in the space of the reconstruction loss."""
        decoded = self._decode(self.features(state))
        return losses.observation_error(decoded, self._targets(observation))

    # ---- inside

    def _notice(self, observation: TensorDictBase) -> None:
        """Take a batch into the statistics of state vectors, while training."""
        if self.normaliser is not None and self.training and torch.is_grad_enabled():
            self.normaliser.update(observation["observation"].flatten(0, -2))

    def _decode(self, features: Tensor) -> dict[str, Tensor]:
        """Observations as `_targets` has them."""
        decoded: dict[str, Tensor] = {}
        if self.spaces.observation is not None:
            decoded["observation"] = self.vector_decoder(features)
        if self.spaces.pixels is not None:
            decoded["pixels"] = self.pixel_decoder(features)
        return decoded

    def _targets(self, flat: TensorDictBase, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Observations `[M, ...]` as the networks see and rebuild them."""
        targets: dict[str, Tensor] = {}
        dtype = next(self.parameters()).dtype
        if self.spaces.observation is not None:
            vector = flat["observation"]
            vector = (vector if self.normaliser is None else self.normaliser(vector)).to(dtype)
            targets["observation"] = symlog(vector) if self._symlog else vector
        if self.spaces.pixels is not None:
            image = self._centred(flat["pixels"], generator).to(dtype)
            targets["pixels"] = image.contiguous(memory_format=torch.channels_last)  # as the decoder's output lies
        return targets

    def _centred(self, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
        """uint8 to [-0.5, 0.5]; fewer than 8 bits are dequantised with uniform noise (its mean without one)."""
        bits = self._bits
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
