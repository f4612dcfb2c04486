"""State vectors in deviations from the mean of what was seen."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from lightning_wm import rng
from lightning_wm.fit import main as fit
from lightning_wm.models.normaliser import STD_FLOOR, Normaliser
from tests.conftest import TINY
from tests.worlds import experience, world

SCALE, SHIFT = torch.tensor([3.0, 0.2, 50.0]), torch.tensor([10.0, 0.0, -200.0])


def batches(number: int = 6) -> list[torch.Tensor]:
    """Vectors `[M, 3]` of different counts, whose distribution drifts."""
    draw = rng.generator(0, "replay")
    return [torch.randn(5 + 7 * k, 3, generator=draw) * SCALE * (1 + k) + SHIFT + k for k in range(number)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_statistics_are_those_of_everything_at_once(dtype: torch.dtype) -> None:
    normaliser = Normaliser(3).to(dtype)
    for vectors in batches():
        normaliser.update(vectors)
    whole = torch.cat(batches()).double().numpy()
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert int(normaliser.count) == len(whole)
    np.testing.assert_allclose(normaliser.mean.double(), whole.mean(0), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(normaliser.var.double(), whole.var(0), rtol=tolerance)
    scaled = normaliser(torch.from_numpy(whole).to(dtype)).double().numpy()
    np.testing.assert_allclose(scaled, (whole - whole.mean(0)) / whole.std(0), rtol=1e-4, atol=1e-4)


def test_it_follows_replay() -> None:
    """Deviation 1 to 10 while replay grows; every batch is a uniform draw from what replay holds by then.

    Replay's own deviation is at the end sqrt(mean of sigma^2) = 6.1; a mean over all batches ever says about 4.
    """
    draw = rng.generator(0, "replay")
    sigmas = torch.linspace(1, 10, 1_000)
    stored = torch.randn(1_000, 20, generator=draw) * sigmas[:, None]  # 1,000 episodes of 20
    normaliser = Normaliser(1)
    for episode in range(10, 1_001):
        rows = stored[:episode].flatten()
        batch = rows[torch.randint(len(rows), (800, 1), generator=draw)]
        normaliser.update(batch)
    whole = float(stored.std())
    assert whole == pytest.approx(float(sigmas.square().mean().sqrt()), rel=0.03)
    assert float(normaliser.std) == pytest.approx(whole, rel=0.08)


def test_before_anything_was_seen_nothing_changes() -> None:
    vectors = torch.randn(4, 3)
    assert torch.equal(Normaliser(3)(vectors), vectors)


def test_what_does_not_vary_does_not_explode() -> None:
    normaliser = Normaliser(2)
    normaliser.update(torch.tensor([[7.0, 1.0]]).repeat(100, 1))
    scaled = normaliser(torch.tensor([[7.0, 1.1]]))
    assert scaled.tolist() == [[0.0, pytest.approx(0.1 / STD_FLOOR, rel=1e-5)]]
    torch.testing.assert_close(normaliser.invert(scaled), torch.tensor([[7.0, 1.1]]))


def test_rows_that_are_not_finite_do_not_count() -> None:
    clean, dirty = Normaliser(3), Normaliser(3)
    rows = batches()[3]
    clean.update(rows)
    dirty.update(torch.cat([rows, torch.tensor([[1.0, float("nan"), 2.0], [float("inf"), 0.0, 0.0]])]))
    dirty.update(torch.full((2, 3), float("nan")))
    for name, value in clean.state_dict().items():
        torch.testing.assert_close(dirty.state_dict()[name], value)


def _rank(rank: int, store: str, results: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    normaliser = Normaliser(3)
    for vectors in batches()[rank::2]:
        normaliser.update(vectors)
    torch.save(normaliser.state_dict(), f"{results}{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two ranks need two cores")
def test_two_ranks_have_one_set_of_statistics(tmp_path: Path) -> None:
    mp.spawn(_rank, args=(str(tmp_path / "store"), str(tmp_path / "rank")), nprocs=2)
    ours, theirs = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    alone = Normaliser(3)
    alone.update(torch.cat(batches()))
    for name, value in alone.state_dict().items():
        assert torch.equal(ours[name], theirs[name])
        torch.testing.assert_close(ours[name], value)


# ---- in a model


def test_a_model_learns_them_while_it_trains_and_only_then() -> None:
    model, batch = world(normalise=True), experience(world().spaces, 4, 6)
    batch["observation"] = batch["observation"] * SCALE + SHIFT
    model.eval().observe(batch)
    with torch.no_grad():
        model.train().observe(batch)
    model.filter(model.initial(4), batch["action"][:, 0], batch[:, 0])
    assert int(model.normaliser.count) == 0
    model.observe(batch)
    assert int(model.normaliser.count) == 24
    rows = batch["observation"].flatten(0, 1).double().numpy()
    np.testing.assert_allclose(model.normaliser.mean.double(), rows.mean(0), rtol=1e-4)
    np.testing.assert_allclose(model.normaliser.std.double(), rows.std(0), rtol=1e-4)


@pytest.mark.parametrize("symlog", [True, False])
def test_reconstruction_is_learned_and_judged_in_deviations(symlog: bool) -> None:
    model, batch = world(normalise=True, layers=0, symlog=symlog), experience(world().spaces, 4, 6)
    batch["observation"] = batch["observation"] * SCALE + SHIFT
    decoder = model.vector_decoder[-1]
    torch.nn.init.zeros_(decoder.weight)
    torch.nn.init.zeros_(decoder.bias)  # decodes to zero: every deviation is an error
    _, measured = model.observe(batch)
    rows = batch["observation"].flatten(0, 1).double().numpy()
    target = (rows - rows.mean(0)) / rows.std(0)
    target = np.sign(target) * np.log1p(np.abs(target)) if symlog else target
    nats = 0.5 * (target**2).sum(1).mean()
    assert measured["loss/reconstruction"].item() == pytest.approx(nats, rel=1e-4)
    states = {name: value.detach() for name, value in model.eval().observe(batch)[0].items()}
    errors = model.observation_error(states, batch.reshape(-1)).detach()
    np.testing.assert_allclose(errors.double(), (target**2).mean(1), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("symlog", [True, False])
def test_decoded_vectors_are_in_their_own_units(symlog: bool) -> None:
    model, batch = world(normalise=True, symlog=symlog), experience(world().spaces, 4, 6)
    batch["observation"] = batch["observation"] * SCALE + SHIFT
    model.observe(batch)
    # A decoder that were perfect would say exactly what the encoder sees.
    model.vector_decoder = torch.nn.Identity()
    seen = model.targets(batch.reshape(-1))["observation"]
    model.features = lambda state: seen
    decoded = model.decode({})["observation"]
    torch.testing.assert_close(decoded, batch["observation"].flatten(0, 1), rtol=1e-4, atol=1e-3)


def test_they_are_saved_where_they_are_used_only(tmp_path: Path) -> None:
    assert not [name for name in world().state_dict() if "normaliser" in name]
    model, batch = world(normalise=True), experience(world().spaces, 4, 6)
    model.observe(batch)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    other = world(normalise=True, seed=1)
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    for _ in range(2):
        model.observe(batch)
        other.observe(batch)
    for name in ("count", "mean", "var"):
        assert torch.equal(getattr(model.normaliser, name), getattr(other.normaliser, name))


def test_a_run_has_them_in_its_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert fit([*TINY, "model.normalise=true", "model.ensemble=2", f"run={run}", "evaluation.video=false"]) == 0
    newest = sorted((run / "checkpoints").glob("turn-*.ckpt"))[-1]
    weights = torch.load(newest, weights_only=True)["state_dict"]
    updates = torch.load(newest, weights_only=True)["global_step"]
    assert int(weights["model.normaliser.count"]) == updates * 4 * 8
    assert not torch.equal(weights["model.normaliser.var"], torch.ones(5))
