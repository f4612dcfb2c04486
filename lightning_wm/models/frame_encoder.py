"""Stacked frames to a vector: the encoder of CURL and DrQ (arXiv:2004.04136, App. B; arXiv:1910.01741)."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from lightning_wm.config.fields import Count, settings
from lightning_wm.errors import UserError
from lightning_wm.models.encoders import centred


@settings("agent.encoder")
class FrameEncoderConfig:
    """Convolutions of 3x3, a linear layer and LayerNorm."""

    depth: Count = 32
    """Channels of every convolution."""
    strides: Annotated[
        list[Count], Field(min_length=1, description="one or more strides of at least 1", examples=[[2, 1, 1, 1]])
    ] = field(default_factory=lambda: [2, 1, 1, 1])
    """Stride of each convolution; as many convolutions as there are strides."""
    features: Count = 50
    """Width of the vector that critics and policy see."""
    squash: bool = False
    """tanh after LayerNorm."""


class FrameEncoder(nn.Module):
    """k frames `[M, 3k, X, Y]`, scaled, to vectors `[M, features]`.

    Args:
        config: sizes.
        shape: (3k, X, Y).

    Raises:
        UserError: the image is too small for the convolutions.
    """

    def __init__(self, config: FrameEncoderConfig, shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, *sides = shape
        layers: list[nn.Module] = []
        for stride in config.strides:
            layers += [nn.Conv2d(channels, config.depth, 3, stride), nn.ReLU(inplace=True)]
            channels, sides = config.depth, [(side - 3) // stride + 1 for side in sides]
            if min(sides) < 1:
                raise UserError(
                    f"agent.encoder.strides={config.strides}: nothing is left of an image of {shape[1]} x {shape[2]} "
                    "pixels; expected fewer or smaller strides; type e.g. agent.encoder.strides=[2,1]"
                )
        self.convolutions = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.outputs = channels * sides[0] * sides[1]
        """Width of what the convolutions see."""
        self.trunk = trunk(config, self.outputs)

    def scaled(self, frames: Tensor) -> Tensor:
        """Frames of bytes `[M, 3k, X, Y]` in [-0.5, 0.5]."""
        laid = frames.contiguous(memory_format=torch.channels_last)  # while they are bytes: a quarter of the copying
        return centred(laid, 8, None).to(self.convolutions[0].weight.dtype)

    def look(self, image: Tensor) -> Tensor:
        """What the convolutions see, `[M, outputs]`."""
        seen: Tensor = self.convolutions(image)
        return seen.flatten(1)

    def forward(self, image: Tensor) -> Tensor:
        embedded: Tensor = self.trunk(self.look(image))
        return embedded


def trunk(config: FrameEncoderConfig, inputs: int) -> nn.Sequential:
    """From what the convolutions see to the vector; critics and policy each have one of their own."""
    layers: list[nn.Module] = [nn.Linear(inputs, config.features), nn.LayerNorm(config.features)]
    return nn.Sequential(*layers, *([nn.Tanh()] if config.squash else []))
