"""DrQ: targets averaged over shifts by hand; and the circle that serves every agent, for it and CURL."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_wm import load_actor, rng
from lightning_wm.agents.drq import DrQ, DrQConfig
from lightning_wm.agents.pixel_sac import PixelSAC
from lightning_wm.config import shipped
from lightning_wm.config.load import load
from lightning_wm.errors import UserError
from lightning_wm.evaluate import main as evaluate
from lightning_wm.export import main as export
from lightning_wm.fit import main as fit
from lightning_wm.models.frame_encoder import FrameEncoderConfig
from lightning_wm.protocols import Spaces
from lightning_wm.runs.checkpoint import load_checkpoint
from lightning_wm.runs.directory import RunDirectory
from lightning_wm.training.experiment import build_agent
from tests.conftest import TINY
from tests.test_curl import SMALL, SPACES, batch

TASKS = [name for name in shipped.names() if name.startswith(("dense/", "sparse/"))]


def agent(spaces: Spaces = SPACES, **fields: object) -> DrQ:
    with rng.scope(0, "init"):
        return DrQ(DrQConfig(**{"units": 8, "encoder": SMALL, **fields}), spaces)


def constant(drq: DrQ, q: tuple[float, float], slow: tuple[float, float]) -> None:
    """Critics that say the same everywhere."""
    for params, values in ((drq.loss.qvalue_network_params, q), (drq.loss.target_qvalue_network_params, slow)):
        for name, leaf in params.items(True, True):
            leaf.data.zero_()
            if name[-2:] == ("4", "bias"):
                leaf.data.copy_(torch.tensor(values)[:, None])


def test_the_targets_are_averaged_over_shifts() -> None:
    drq, size = agent(temperature=0.2, discount=0.5, shift=2, augmentations=3), 4
    constant(drq, (1.0, 4.0), (3.0, 5.0))
    with rng.scope(0, "model"):
        rows = drq.rows(batch(size))
    assert len(rows) == 3 * size
    with rng.scope(0, "model", 0, 0):  # the same draws as in the update
        with drq.loss.actor_network_params.to_module(drq.loss.actor_network):
            following = drq.loss.actor_network.get_dist(rows["next"].copy())
        log_pi = following.log_prob(following.rsample()).detach()
    soft = rows["next", "reward"][:, 0] + 0.5 * (3.0 - 0.2 * log_pi)  # K*B
    target = (soft[:size] + soft[size : 2 * size] + soft[2 * size :]) / 3
    expected = ((1.0 - target).square() + (4.0 - target).square()).mean()
    with rng.scope(0, "model", 0, 0):
        measured = drq.loss(rows)
    torch.testing.assert_close(measured["loss_qvalue"], expected, rtol=1e-5, atol=1e-6)


def test_each_transition_is_seen_from_several_places() -> None:
    drq = agent(shift=3, augmentations=2)
    with rng.scope(0, "model"):
        rows = drq.rows(batch(5))
    for entry in ("action", ("next", "reward")):
        assert torch.equal(rows[entry][:5], rows[entry][5:])
    assert not torch.equal(rows["embedding"][:5], rows["embedding"][5:])
    still = agent(shift=0, augmentations=2).rows(batch(5))
    assert torch.equal(still["embedding"][:5], still["embedding"][5:])


def test_the_critics_alone_move_the_encoder() -> None:
    drq = agent()
    for loss, moved in (("actor", False), ("critic", True)):
        drq.zero_grad()
        drq.measure(batch(), 0)[f"loss/{loss}"].backward()
        assert any(p.grad is not None and bool(p.grad.any()) for p in drq.encoder.parameters()) == moved


def test_what_it_refuses() -> None:
    with pytest.raises(UserError, match="agent=drq learns from pixels alone; type observation=pixels"):
        agent(Spaces(action=2, observation=3))
    with pytest.raises(UserError, match=r"agent\.shift=12: .*less than 12"):
        agent(shift=12)
    config = load(["recipe=dense/walker_walk", "agent=drq", "agent.steps=501"]).config
    with pytest.raises(UserError, match=r"agent\.steps=501: an episode has 500 agent steps"):
        build_agent(config, SPACES)


def test_squashed_vectors_lie_in_the_unit_cube() -> None:
    drq = agent(encoder=FrameEncoderConfig(depth=4, strides=[2], features=6, squash=True))
    vectors = drq.encoder(drq.encoder.scaled(batch()["pixels"]))
    assert float(vectors.detach().abs().max()) < 1


# ---- the circle, of CURL too


def weights(run: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = load_checkpoint(RunDirectory(run).checkpoint("last"))["state_dict"]
    return state


SMALLER = {
    "curl": ["agent=curl_small", "agent.crop=28", "observation.render.size=32"],
    "drq": ["agent=drq_small", "agent.augmentations=2", "observation.render.size=28"],
}


@pytest.mark.parametrize("name", SMALLER)
def test_it_goes_on_exactly_and_is_served_as_all_others_are(name: str, tmp_path: Path) -> None:
    run = [*TINY, "observation=pixels", *SMALLER[name], "agent.steps=3", "evaluation.video=false"]
    whole, resumed, folder = tmp_path / "whole", tmp_path / "resumed", tmp_path / "model"
    assert fit([*run, f"run={whole}"]) == 0
    end = load(run).config.env_steps
    for env_steps in (end - 160, end):
        assert fit([*run, f"run={resumed}", f"env_steps={env_steps}"]) == 0
    ours, theirs = weights(resumed), weights(whole)
    assert any("slow_encoder" in key for key in theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert evaluate([f"run={whole}", "episodes=2", "environments=2"]) == 0
    assert export([f"run={whole}", f"out={folder}"]) == 0
    side = load(run).config.observation.render.size
    seen = {"pixels": torch.randint(0, 256, (3, 3, side, side), dtype=torch.uint8)}
    one, other = load_actor(whole).act(seen), load_actor(folder).act(seen)
    assert one.shape == (3, 1)
    assert torch.equal(one, other)
    assert evaluate([f"run={whole}", "planner=cem", "episodes=1"]) != 0


@pytest.mark.parametrize("recipe", TASKS)
def test_every_recipe_takes_it_as_it_is(recipe: str) -> None:
    for name in ("curl", "curl_small", "drq", "drq_small"):
        config = load([f"recipe={recipe}", "observation=pixels", f"agent={name}", "agent.units=8"]).config
        side = config.observation.render.size
        made = build_agent(config, Spaces(action=2, pixels=(3, side, side)))
        assert isinstance(made, PixelSAC)
        assert (config.planner.name, config.rollout.execute, made.config.name) == (
            "policy",
            "sample",
            name[:4].strip("_"),
        )
