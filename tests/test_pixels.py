"""The cheap way to see, and what pictures teach: against values by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_wm import rng
from lightning_wm.envs.gl import rendering_problem
from lightning_wm.errors import UserError
from lightning_wm.fit import main as fit
from lightning_wm.models import losses
from lightning_wm.models.augmentation import random_shift
from lightning_wm.models.encoders import pixel_encoder
from lightning_wm.models.pixels import MovingPixels, PatchDecoder, PatchEncoder, PixelConfig
from lightning_wm.models.rssm import RSSM, RSSMConfig
from lightning_wm.protocols import Decodes, Spaces
from tests.worlds import experience, total, world

SHAPE = (3, 64, 64)
IMAGE = Spaces(action=2, pixels=SHAPE)
BOTH = Spaces(action=2, observation=3, pixels=SHAPE)
LOSSES = ("reconstruction", "barlow", "contrast")


def sees(loss: str = "reconstruction", spaces: Spaces = IMAGE, **fields: Any) -> RSSM:
    """A small world model that sees in patches."""
    return world(spaces, pixels=PixelConfig("patches", loss, embedding=16, units=16, **fields))  # type: ignore[arg-type]


# ---- seeing


def test_squares_are_averaged() -> None:
    moving = MovingPixels((1, 16, 16))
    picture = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    # the four bytes of the first square are 0, 1, 16 and 17; of the last 238, 239, 254, 255
    small = moving.averaged(picture)
    assert small.shape == (1, 8, 8, 1)
    assert small[0, 0, 0, 0].item() == pytest.approx((0 + 1 + 16 + 17) / 4 / 255, rel=1e-6)
    assert small[0, 7, 7, 0].item() == pytest.approx((238 + 239 + 254 + 255) / 4 / 255, rel=1e-6)


def test_many_pictures_are_averaged_as_one_by_one() -> None:
    moving = MovingPixels(SHAPE)
    pictures = experience(IMAGE, 1, 103)["pixels"][0]
    torch.testing.assert_close(moving.averaged(pictures)[70:71], moving.averaged(pictures[70:71]))


def test_pixels_are_measured_in_their_own_deviations() -> None:
    """One pixel is 0 or 1 by turns, one is always 0.4, the others are always black."""
    moving = MovingPixels((1, 16, 16))
    pictures = torch.zeros(1, 16, 1, 16, 16, dtype=torch.uint8)
    pictures[:, 8:, :, :2, :2] = 255
    pictures[:, :, :, 2:4, :2] = 102
    moving.learn(pictures)  # steps 0 and 8 of the window: one of each
    seen = moving(pictures[0])
    assert seen[0, 0, 0, 0].item() == pytest.approx(-1.0)
    assert seen[8, 0, 0, 0].item() == pytest.approx(1.0)
    assert seen[:, 1, 0, 0].abs().max() < 1e-5
    assert seen[:, 5:].abs().max() == 0.0
    assert moving.variance().item() == pytest.approx(1.0)  # one pixel that moves
    back = moving.restored(seen)
    torch.testing.assert_close(back, pictures[0] / 255.0)


def test_a_patch_sees_sixteen_pixels_every_eight() -> None:
    """What one pixel of the picture moves: of the 8 x 8 patches the two by two that overlap there."""
    with rng.scope(0, "init"):
        encoder = PatchEncoder(PixelConfig(embedding=5), (32, 32, 3), depth=2)
    image = torch.zeros(2, 32, 32, 3)
    image[1, 16, 9] = 1.0  # rows 14..22 of patch 4 and 10..18 of patch 3; columns 6..14 of patch 2 and 10.. is too late
    one, other = encoder.patch(image.permute(0, 3, 1, 2))
    moved = (one != other).any(0).nonzero().tolist()
    assert encoder.patch.weight.shape == (4, 3, 8, 8)
    assert one.shape == (4, 8, 8)
    assert moved == [[3, 1], [3, 2], [4, 1], [4, 2]]
    assert encoder(image).shape == (2, 5)


def test_an_image_costs_at_most_1_2_million_multiply_adds() -> None:
    """Counted from the shapes that every layer really gives, at the recipes' sizes."""
    config, counted = PixelConfig("patches"), 0

    def count(layer: torch.nn.Module, _: tuple[Tensor, ...], result: Tensor) -> None:
        nonlocal counted
        counted += result.numel() * layer.weight[0].numel()  # type: ignore[operator, union-attr, index]

    for part, shown in (
        (PatchEncoder(config, (32, 32, 3), depth=16), torch.zeros(1, 32, 32, 3)),
        (PatchDecoder(158, config, (32, 32, 3)), torch.zeros(1, 158)),
    ):
        counted = 0
        hooks = [
            m.register_forward_hook(count) for m in part.modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d))
        ]
        part(shown)
        assert len(hooks) >= 2
        assert 0 < counted <= 1_200_000


@pytest.mark.parametrize("size", [16, 48, 80])
def test_other_sizes_are_seen(size: int) -> None:
    model, batch = (f(Spaces(action=2, pixels=(3, size, size))) for f in (_patches, lambda s: experience(s, 2, 3)))
    states, _ = model.observe(batch)
    assert model.decode(states)["pixels"].shape == (6, 3, size, size)


def _patches(spaces: Spaces) -> RSSM:
    return sees(spaces=spaces)


def test_sizes_that_do_not_fit_are_refused_with_what_to_type() -> None:
    with pytest.raises(UserError, match=r"multiples of 16; type observation\.render\.size=80"):
        sees(spaces=Spaces(action=2, pixels=(3, 84, 84)))
    with pytest.raises(UserError, match=r"render\.size=64, or model\.pixels\.encoder=patches"):
        pixel_encoder(RSSMConfig(), (3, 84, 84))


# ---- what pictures teach


def test_unexplained_variance_by_hand() -> None:
    target = torch.tensor([[1.0, -1.0], [1.0, 3.0]])
    # squares 1 + 1 and 1 + 9 of the mean picture, 6 a picture, of a variance of 4
    assert losses.unexplained(torch.zeros(2, 2), target, torch.tensor(4.0)).item() == pytest.approx(1.5)


def test_barlow_by_hand() -> None:
    """Two dimensions over four things: read as x, y; the code is x, x."""
    x, y = torch.tensor([1.0, 1.0, -1.0, -1.0]), torch.tensor([1.0, -1.0, 1.0, -1.0])
    read, code = torch.stack([x, y], 1), torch.stack([3 * x + 1, 5 * x], 1)
    # correlations [[1, 1], [0, 0]]: on the diagonal 0 + 1, beside it 1 + 0
    assert losses.barlow(read, code, 0.1).item() == pytest.approx(1.0 + 0.1, rel=1e-5)
    assert losses.barlow(2 * read, torch.stack([x, y], 1)).item() == pytest.approx(0.0, abs=1e-5)


def test_contrast_by_hand() -> None:
    read = torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    # cosines 1 with its own code and 0 with the other, over a temperature of 0.5
    assert losses.contrast(read, torch.eye(2), 0.5).item() == pytest.approx(math.log(1 + math.exp(-2.0)), rel=1e-5)


def test_barlow_moves_no_code() -> None:
    read, code = (torch.randn(8, 3, generator=rng.generator(s, "model")).requires_grad_() for s in (0, 1))
    losses.barlow(read, code).backward()
    assert read.grad is not None
    assert code.grad is None


@pytest.mark.parametrize("spaces", [IMAGE, BOTH])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_way_to_learn_keeps_the_contract(loss: str, spaces: Spaces) -> None:
    model, batch = sees(loss, spaces), experience(spaces, 2, 4)
    states, measured = model.observe(batch, generator=rng.generator(0, "model"))
    assert ("loss/reconstruction" in measured) == (spaces is BOTH)
    assert measured["loss/pixels"].isfinite()
    total(measured).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert isinstance(model, Decodes) == (loss == "reconstruction" or spaces is BOTH)
    assert model.observation_error(states, batch.flatten()).shape == (8,)
    if isinstance(model, Decodes):
        shown = {"observation": (3,), "pixels": SHAPE} if loss == "reconstruction" else {"observation": (3,)}
        decoded = model.decode(states)
        assert {name: tuple(value.shape[1:]) for name, value in decoded.items()} == {
            name: shape for name, shape in shown.items() if name in spaces_of(spaces)
        }


def spaces_of(spaces: Spaces) -> set[str]:
    """What they show."""
    return {name for name in ("observation", "pixels") if getattr(spaces, name) is not None}


@pytest.mark.parametrize("loss", LOSSES)
def test_convolutions_learn_without_a_decoder_too(loss: str) -> None:
    model = world(IMAGE, pixels=PixelConfig("convolutions", loss, units=16))  # type: ignore[arg-type]
    _, measured = model.observe(experience(IMAGE, 2, 4), generator=rng.generator(0, "model"))
    assert ("loss/pixels" in measured) == (loss != "reconstruction")


def test_a_part_of_the_pictures_is_rebuilt() -> None:
    """The last of every four: what the others were does not matter to the decoder's loss."""
    batch, changed = (experience(IMAGE, 2, 4) for _ in range(2))
    model, all_of_them = sees(every=4), sees(every=1)
    features = torch.randn(8, model.config.deter + 5, generator=rng.generator(0, "model"))
    targets = model.targets(batch.flatten())
    changed["pixels"][:, :3] = 7
    others = model.targets(changed.flatten())
    codes = torch.zeros(8, 16)
    assert model.taught(features, targets, codes) == model.taught(features, others, codes)
    assert all_of_them.taught(features, targets, codes) != all_of_them.taught(features, others, codes)


@pytest.mark.parametrize("loss", ["barlow", "contrast"])
def test_contrast_foretells_a_picture_from_what_was_known_before_it(loss: str) -> None:
    """The stochastic state has seen it, the deterministic one has not."""
    model = sees(loss)
    before = torch.randn(6, 12 + 5, generator=rng.generator(0, "model"))
    after, codes = before.clone(), torch.randn(6, 16, generator=rng.generator(1, "model"))
    after[:, 12:] += 1.0
    one, other = (model.taught(features, {}, codes)["loss/pixels"].item() for features in (before, after))
    assert (one == other) == (loss == "contrast")


def test_a_window_is_shifted_as_one() -> None:
    model, batch = sees(shift=3), experience(IMAGE, 4, 2)
    batch["pixels"][:] = batch["pixels"][:, :1]  # a window of one picture
    targets = model.targets(batch.flatten())
    moved = model.moved(batch, targets, rng.generator(0, "model"))["pixels"].unflatten(0, (4, 2))
    assert torch.equal(moved[:, 0], moved[:, 1])
    frames = targets["pixels"].unflatten(0, (4, 2))[:, 0].permute(0, 3, 1, 2)
    expected = random_shift(frames, 2, rng.generator(0, "model"))  # 3 pixels are two squares
    torch.testing.assert_close(moved[:, 0].permute(0, 3, 1, 2), expected)
    assert not torch.equal(moved.flatten(0, 1), targets["pixels"])
    with torch.no_grad():  # acting and validating see what there is
        assert model.moved(batch, targets, rng.generator(0, "model")) is targets


def test_scenery_stays_nothing_where_pictures_are_shifted() -> None:
    """Its edges are no deviations, wherever the picture is moved to."""
    model, batch = sees(shift=4), experience(IMAGE, 4, 2)
    batch["pixels"][:] = batch["pixels"][:1, :1]  # all the same, full of edges
    assert model.moving is not None
    model.moving.learn(batch["pixels"])
    moved = model.moved(batch, model.targets(batch.flatten()), rng.generator(0, "model"))["pixels"]
    assert moved.abs().max().item() == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_it_overfits_one_batch(loss: str) -> None:
    batch = pushed()
    config = PixelConfig("patches", loss, scale=0.3 if loss == "barlow" else 30.0, embedding=32, units=32)  # type: ignore[arg-type]
    model = world(IMAGE, deter=32, hidden=32, units=32, stoch=16, depth=8, pixels=config, reward_scale=5.0)
    optimiser, history = torch.optim.Adam(model.parameters(), lr=3e-3), []
    for update in range(150):
        _, measured = model.observe(batch, generator=rng.generator(0, "model", update))
        optimiser.zero_grad()
        total(measured).backward()
        optimiser.step()
        history.append(measured["loss/pixels"].item())
    assert history[-1] < 0.4 * history[0], (history[0], history[-1])
    states, _ = model.observe(batch)
    error = (model.reward(states) - batch["reward"].flatten()).abs().mean()
    assert error < 0.5 * (batch["reward"] - batch["reward"].mean()).abs().mean()


def pushed(b: int = 4, t: int = 12) -> Any:
    """A bright square that actions push; the reward is where it is."""
    batch = experience(IMAGE, b, t)
    batch["is_init"][:, 0] = True
    place = (batch["action"].cumsum(1) * 6 + 28).clamp(0, 55).long()  # b, t, 2
    batch["pixels"] = torch.zeros_like(batch["pixels"])
    for i in range(b):
        for j in range(t):
            x, y = place[i, j].tolist()
            batch["pixels"][i, j, :, x : x + 8, y : y + 8] = 255
    batch["reward"] = place[..., :1] / 55.0
    return batch


def test_settings_are_the_configurations() -> None:
    assert replace(RSSMConfig(), pixels=PixelConfig("patches")).pixels.encoder == "patches"


@pytest.mark.skipif(rendering_problem() is not None, reason="nothing draws here")
def test_fit_says_which_sizes_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = f"run={tmp_path / 'run'}"
    assert fit(["recipe=pixels/cartpole_swingup", "smoke=true", "observation.render.size=84", run]) == 2
    assert "expects sides that are multiples of 16; type observation.render.size=80" in capsys.readouterr().err
