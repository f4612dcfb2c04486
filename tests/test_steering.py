"""The reconstruction's weight found by the KL: by hand, where it leads, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from lightning_wm.errors import UserError
from lightning_wm.models.pixels import PixelConfig
from lightning_wm.models.steering import RATE, REACH, SteeredWeight
from lightning_wm.protocols import Spaces
from tests.worlds import experience, total, world

SPACES = Spaces(action=2, observation=3)


def after(*kls: float, start: float = 10.0) -> float:
    weight = SteeredWeight(start, 4.0)
    for kl in kls:
        weight.follow(torch.tensor(kl))
    return float(weight())


@pytest.mark.parametrize(
    ("kl", "steps"),
    [(4.0, 0.0), (3.0, 0.25), (0.0, 1.0), (5.0, -0.25), (100.0, -1.0), (math.nan, 0.0)],
)
def test_a_step_by_hand(kl: float, steps: float) -> None:
    assert after(kl) == pytest.approx(10.0 * math.exp(steps * RATE))


def test_it_goes_so_far_and_no_further() -> None:
    weight = SteeredWeight(10.0, 4.0)
    weight.log.fill_(math.log(10.0) + REACH)
    weight.follow(torch.tensor(0.0))
    assert float(weight()) == pytest.approx(1000.0)


def trained(target: float, updates: int = 400) -> tuple[Any, float]:
    """A model after so many updates on one batch, and its KL."""
    torch.manual_seed(0)
    model, batch = world(SPACES, kl_target=target, reconstruction_scale=10.0), experience(SPACES, 4, 8)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    kl = 0.0
    for update in range(updates):
        _, measured = model.observe(batch, generator=torch.Generator().manual_seed(update))
        optimiser.zero_grad()
        total(measured).backward()
        optimiser.step()
        kl = float(measured["kl"])
    return model, kl


def test_a_higher_target_ends_with_a_higher_weight_and_more_nats() -> None:
    (low, few), (high, many) = trained(1.5), trained(30.0)
    assert float(low.steered()) < 10.0 < float(high.steered())
    assert many > few


def test_only_learning_steers() -> None:
    model, batch = world(SPACES, kl_target=4.0, reconstruction_scale=10.0), experience(SPACES, 2, 4)
    with torch.no_grad():
        model.observe(batch)
    model.eval()
    model.observe(batch)
    assert float(model.steered()) == pytest.approx(10.0)


def test_the_weight_is_that_of_what_is_rebuilt_and_is_resumed() -> None:
    model, batch = world(SPACES, kl_target=4.0, reconstruction_scale=10.0), experience(SPACES, 2, 4)
    model.steered.log.fill_(math.log(20.0))
    plain = world(SPACES, reconstruction_scale=10.0)
    assert "steered.log" in model.state_dict()
    plain.load_state_dict(model.state_dict(), strict=False)
    (_, ours), (_, theirs) = model.observe(batch), plain.observe(batch)
    torch.testing.assert_close(ours["loss/reconstruction"], 2.0 * theirs["loss/reconstruction"])
    assert float(ours["reconstruction_scale"]) == pytest.approx(20.0)
    assert "reconstruction_scale" not in theirs


def test_nothing_to_steer_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.reconstruction_scale=1"):
        world(SPACES, kl_target=4.0, reconstruction_scale=0.0)
    pixels = PixelConfig(encoder="patches", loss="contrast")
    with pytest.raises(UserError, match=r"model\.kl_target=0"):
        world(Spaces(action=2, pixels=(3, 64, 64)), kl_target=4.0, pixels=pixels)
