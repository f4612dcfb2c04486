"""The RSSM: what it remembers, what it predicts, what it is trained on."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lightning_wm import rng
from lightning_wm.errors import UserError
from lightning_wm.models.distributions import gaussian_kl
from lightning_wm.models.encoders import centred
from lightning_wm.models.rssm import RSSM, RSSMConfig
from lightning_wm.protocols import Spaces
from tests.worlds import experience, world

VECTOR = Spaces(action=2, observation=3)
IMAGE = Spaces(action=2, pixels=(3, 64, 64))
BOTH = Spaces(action=2, observation=3, pixels=(3, 64, 64))


def test_imagining_step_by_step_is_the_prior_that_observing_trains() -> None:
    model, batch = world().double(), experience(VECTOR, 3, 6, dtype=torch.float64)
    states, _ = model.observe(batch, generator=rng.generator(0, "model"))
    over_time = {name: value.unflatten(0, (3, 6)) for name, value in states.items()}
    mean, _ = model.prior(over_time["deter"])
    for step in range(5):
        now = {name: value[:, step] for name, value in over_time.items()}
        after = model.imagine(now, batch["action"][:, step + 1])
        torch.testing.assert_close(after["deter"], over_time["deter"][:, step + 1])
        torch.testing.assert_close(after["stoch"], mean[:, step + 1])


def test_continue_loss_by_hand() -> None:
    model, batch = world(layers=0), experience(VECTOR, 1, 4)
    head = model.continue_head[-1]
    nn.init.zeros_(head.weight)
    nn.init.constant_(head.bias, math.log(3.0))  # says 0.75 whatever the state
    batch["terminated"][0, 3] = True
    _, measured = model.observe(batch)
    expected = (-3 * math.log(0.75) - math.log(0.25)) / 4
    assert measured["loss/continue"].item() == pytest.approx(expected, rel=1e-5)


def test_reconstruction_loss_by_hand() -> None:
    model, batch = world(layers=0, reconstruction_scale=2.0), experience(VECTOR, 1, 2)
    decoder = model.vector_decoder[-1]
    nn.init.zeros_(decoder.weight)
    nn.init.zeros_(decoder.bias)
    batch["observation"] = torch.full((1, 2, 3), math.e - 1)  # symlog: 1 in each of three dimensions
    _, measured = model.observe(batch)
    assert measured["loss/reconstruction"].item() == pytest.approx(2.0 * 0.5 * 3, rel=1e-6)


def test_kl_loss_is_balanced_and_thresholded() -> None:
    fields = {"kl_dynamics": 0.7, "kl_representation": 0.2}
    batch = experience(VECTOR, 2, 4)
    _, free = world(free_nats=0.0, **fields).observe(batch)
    assert free["loss/kl"].item() == pytest.approx(0.9 * free["kl"].item(), rel=1e-5)
    model = world(free_nats=1e3, **fields)
    _, held = model.observe(batch)
    assert held["loss/kl"].item() == pytest.approx(900.0)
    held["loss/kl"].backward()
    assert not any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_both_kl_weights_one_give_the_plain_kls_gradient() -> None:
    model, batch = (
        world(kl_dynamics=1.0, kl_representation=1.0, free_nats=0.0).double(),
        experience(VECTOR, 2, 4, dtype=torch.float64),
    )
    _, measured = model.observe(batch)
    measured["loss/kl"].backward()
    balanced = [p.grad.clone() for p in (model.prior_out.weight, model.posterior_out.weight)]
    model.zero_grad()
    posterior = model.posterior(
        model.encode(model.targets(batch.reshape(-1))).unflatten(0, (2, 4)).transpose(0, 1),
        batch["action"].transpose(0, 1),
        torch.ones(4, 2, 1, dtype=torch.float64),
        model.initial(2),
    )
    gaussian_kl(*posterior.statistics, *model.prior(posterior.deter)).mean().backward()
    for ours, plain in zip(balanced, (model.prior_out.weight.grad, model.posterior_out.weight.grad), strict=True):
        torch.testing.assert_close(ours, plain)


def test_gradient_of_the_return_by_the_first_action_is_that_of_finite_differences() -> None:
    model, batch = world().double(), experience(VECTOR, 2, 6, dtype=torch.float64)
    states, _ = model.observe(batch[:, :1])
    start = {name: value.detach() for name, value in states.items()}

    def imagined_return(first: torch.Tensor) -> torch.Tensor:
        state, rewards = start, []
        for step in range(5):
            state = model.imagine(state, first if step == 0 else batch["action"][:, step])
            rewards.append(model.reward(state))
        return torch.stack(rewards).sum()

    first = batch["action"][:, 0].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(imagined_return(first), first)
    step = 1e-6
    for index in [(0, 0), (0, 1), (1, 0), (1, 1)]:
        shift = torch.zeros_like(first)
        shift[index] = step
        with torch.no_grad():
            slope = (imagined_return(first + shift) - imagined_return(first - shift)) / (2 * step)
        assert gradient[index].item() == pytest.approx(slope.item(), rel=1e-5, abs=1e-9)
        assert gradient[index] != 0


def test_five_bit_pixels_are_dequantised_within_their_bin() -> None:
    pixels = torch.tensor([0, 7, 8, 255], dtype=torch.uint8)
    torch.testing.assert_close(centred(pixels, 5, None), (torch.tensor([0.0, 0.0, 1.0, 31.0]) + 0.5) / 32 - 0.5)
    noisy = centred(pixels, 5, rng.generator(0, "model"))
    assert ((noisy + 0.5) * 32).floor().tolist() == [0.0, 0.0, 1.0, 31.0]


def test_decoded_observations_are_in_their_own_units() -> None:
    model = world(BOTH)
    decoded = model.decode(model.initial(2))
    assert decoded["observation"].shape == (2, 3)
    assert decoded["pixels"].shape == (2, 3, 64, 64)
    assert decoded["pixels"].min() >= 0
    assert decoded["pixels"].max() <= 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stoch": 0}, "model.stoch=0"),
        ({"activation": "gelu"}, "elu, relu, silu"),
        ({"reward_head": "mse"}, "two_hot or normal"),
        ({"pixel_bits": 9}, "1 to 8"),
        ({"min_std": 0.0}, "positive"),
    ],
)
def test_impossible_settings_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RSSMConfig(**fields)  # type: ignore[arg-type]


def test_other_image_sizes_are_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"observation\.render\.size=64"):
        RSSM(RSSMConfig(), Spaces(action=1, pixels=(3, 84, 84)))
