"""Encoders and decoders."""

from __future__ import annotations

import torch

from lightning_wm import rng
from lightning_wm.models.encoders import ConvEncoder
from lightning_wm.models.heads import ConvDecoder


def test_the_decoder_is_its_transposed_convolutions() -> None:
    """Its first layer is computed as a matrix product; values and gradients are the convolution's."""
    with rng.scope(0, "init"):
        decoder = ConvDecoder(11, 4).double()
        features = torch.randn(3, 11, dtype=torch.float64)
    ours = decoder(features)
    plain = decoder.layers(decoder.project(features)[..., None, None])
    assert ours.shape == (3, 3, 64, 64)
    torch.testing.assert_close(ours, plain)
    parameters = list(decoder.parameters())
    gradients = [torch.autograd.grad(image.sin().sum(), parameters) for image in (ours, plain)]
    torch.testing.assert_close(*gradients)


def test_shapes_of_planets_encoder() -> None:
    encoder = ConvEncoder(32)
    assert encoder(torch.zeros(2, 3, 64, 64)).shape == (2, 1024)
    assert encoder.outputs == 1024
