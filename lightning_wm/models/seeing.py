"""What a model sees and says of it: observations encoded, rebuilt from its features, or held to a picture's code."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from tensordict import TensorDictBase
from torch import Tensor, nn

from lightning_wm.models import losses
from lightning_wm.models.augmentation import random_shift
from lightning_wm.models.config import ModelConfig
from lightning_wm.models.encoders import Scaling, pixel_encoder
from lightning_wm.models.heads import code_reader, pixel_decoder
from lightning_wm.models.networks import perceptron
from lightning_wm.models.normaliser import Normaliser
from lightning_wm.models.pixels import MovingPixels
from lightning_wm.models.steering import steered_weight
from lightning_wm.protocols import Spaces, State


class Seeing(nn.Module):
    """Encoders and decoders of a model with the state `{"deter": [M, D], "stoch": [M, S]}`.

    `decode` and `likeness` are None where there is nothing to rebuild, and no code to compare.

    Args:
        config: sizes and loss weights.
        spaces: what it observes.
    """

    def __init__(self, config: ModelConfig, spaces: Spaces) -> None:
        super().__init__()
        c, vector, features = config, spaces.observation, config.deter + config.latent.width
        self.config, self.spaces = c, spaces
        self.vector_encoder = None if vector is None else perceptron(c, vector, None)
        self.vector_decoder = None if vector is None else perceptron(c, features, vector)
        self.normaliser = Normaliser(vector) if vector is not None and c.normalise else None
        self.pixel_encoder = None if spaces.pixels is None else pixel_encoder(c, spaces.pixels)
        self.pixel_decoder = None if spaces.pixels is None else pixel_decoder(c, spaces.pixels, features)
        self.code_reader = None if self.pixel_encoder is None else code_reader(c, features, self.pixel_encoder.outputs)
        # A picture is foretold from what was known before it was seen.
        self._reads = slice(c.deter if c.pixels.loss == "contrast" else None)
        patches = None if c.pixels.encoder != "patches" else spaces.pixels
        self.moving = None if patches is None else MovingPixels(patches)
        weighed = self.vector_decoder is not None or (self.pixel_decoder is not None and self.moving is None)
        self.steered = steered_weight(c, weighed) if c.kl_target else None
        self.scaling = Scaling(c.symlog, c.pixel_bits, self.normaliser, self.moving)
        self.decode = self._decode if vector is not None or self.pixel_decoder is not None else None
        self.likeness = self._likeness if self.code_reader is not None else None

    def features(self, state: State) -> Tensor:
        """`[M, D+S]`, what every head sees."""
        return torch.cat([state["deter"], state["stoch"]], dim=-1)

    def targets(self, observation: TensorDictBase, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Observations `[M, ...]` as the networks see and rebuild them."""
        return self.scaling.seen(observation, self.spaces, next(self.parameters()).dtype, generator)

    def encode(self, targets: dict[str, Tensor]) -> Tensor:
        """`[M, E]` of what `targets` gives."""
        encoders = {"observation": self.vector_encoder, "pixels": self.pixel_encoder}
        parts = [encoder(targets[name]) for name, encoder in encoders.items() if encoder is not None]
        return torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]

    def _decode(self, state: State) -> dict[str, Tensor]:
        """Mean observations: `observation` `[M, O]` in its own units, `pixels` `[M, 3, X, Y]` in [0, 1]."""
        return self.scaling.restored(self._decoded(self.features(state)))

    def _decoded(self, features: Tensor) -> dict[str, Tensor]:
        """Observations as `targets` has them."""
        return {name: decoder(features) for name, decoder in self._decoders().items()}

    def _decoders(self) -> dict[str, nn.Module]:
        """Those that there are, by what they decode."""
        decoders = {"observation": self.vector_decoder, "pixels": self.pixel_decoder}
        return {name: decoder for name, decoder in decoders.items() if decoder is not None}

    def observation_error(self, state: State, observation: TensorDictBase) -> Tensor:
        """Mean squared error of the decoded observation, `[M]`, in the space of the reconstruction loss."""
        targets, features = self.targets(observation), self.features(state)
        if self.code_reader is not None:
            return losses.code_error(self.code_reader(features[:, self._reads]), self._code(self.encode(targets)))
        return losses.observation_error(self._decoded(features), targets)

    def moved(
        self, batch: TensorDictBase, targets: dict[str, Tensor], generator: torch.Generator | None
    ) -> dict[str, Tensor]:
        """Targets `[B*T, ...]` with pictures that were shifted, those of a window alike, where that is asked for."""
        most = self.config.pixels.shift if self.spaces.pixels is not None and torch.is_grad_enabled() else 0
        if not most or generator is None:
            return targets
        if self.moving is not None:
            return {**targets, "pixels": self.moving.shifted(targets["pixels"], len(batch), most, generator)}
        pictures = batch["pixels"]  # B, T, 3, X, Y
        shifted = random_shift(pictures.flatten(1, 2), most, generator).unflatten(1, pictures.shape[1:3])
        return {**targets, **self.targets(batch.replace({"pixels": shifted}).flatten(), generator)}

    def _likeness(self, state: State, observation: TensorDictBase) -> Tensor:
        """Cosine `[M, N]` of what is read from states and the codes of N pictures."""
        assert self.code_reader is not None
        read = F.normalize(self.code_reader(self.features(state)[:, self._reads]), dim=-1)  # M, E
        code = F.normalize(self._code(self.encode(self.targets(observation))), dim=-1)  # N, E
        return read @ code.T

    def _code(self, encoded: Tensor) -> Tensor:
        """The picture's part `[M, E]` of encoded observations."""
        assert self.pixel_encoder is not None
        return encoded[:, -self.pixel_encoder.outputs :]

    def taught(self, features: Tensor, targets: dict[str, Tensor], codes: Tensor) -> dict[str, Tensor]:
        """Losses by what is observed, of features `[M, F]`, targets `[M, ...]` and codes `[M, E]`."""
        c, measured, decoders = self.config, {}, self._decoders()
        if self.moving is not None and (decoder := decoders.pop("pixels", None)) is not None:
            rebuilt = slice(c.pixels.every - 1, None, c.pixels.every)
            share = losses.unexplained(decoder(features[rebuilt]), targets["pixels"][rebuilt], self.moving.variance())
            measured["loss/pixels"] = c.pixels.scale * share
        if self.code_reader is not None:
            nats = losses.CODES[c.pixels.loss](self.code_reader(features[:, self._reads]), self._code(codes))
            measured["loss/pixels"] = c.pixels.scale * nats
        if decoded := {name: decoder(features) for name, decoder in decoders.items()}:
            weight: Tensor | float = c.reconstruction_scale
            if self.steered is not None:
                measured["reconstruction_scale"] = weight = self.steered()
            measured["loss/reconstruction"] = weight * losses.reconstruction(decoded, targets)
        return measured
