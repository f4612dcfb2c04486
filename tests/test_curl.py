"""CURL: similarity and contrastive loss by hand, what each loss moves, what it makes of real frames."""

from __future__ import annotations

import math

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from lightning_wm import rng
from lightning_wm.agents.curl import CURL, CURLConfig, accuracies, contrast, twins
from lightning_wm.config import ObservationConfig, TaskConfig
from lightning_wm.config.schema import RenderConfig
from lightning_wm.data import Replay, Transitions
from lightning_wm.envs import make_env
from lightning_wm.envs import spaces as env_spaces
from lightning_wm.errors import UserError
from lightning_wm.models.frame_encoder import FrameEncoderConfig
from lightning_wm.models.losses import summed
from lightning_wm.models.networks import follow
from lightning_wm.planners.policy import PolicyOnly
from lightning_wm.playing.play import play
from lightning_wm.playing.random import RandomActor
from lightning_wm.protocols import Spaces

SPACES = Spaces(action=2, pixels=(3, 12, 12))
SMALL = FrameEncoderConfig(depth=4, strides=[2, 1], features=6)


def agent(spaces: Spaces = SPACES, **fields: object) -> CURL:
    with rng.scope(0, "init"):
        return CURL(CURLConfig(**{"units": 8, "crop": 10, "encoder": SMALL, **fields}), spaces)


def batch(rows: int = 6) -> TensorDict:
    draw = torch.Generator().manual_seed(1)
    ended = torch.zeros(rows, 1, dtype=torch.bool)
    pixels = torch.randint(0, 256, (2, rows, 9, 12, 12), dtype=torch.uint8, generator=draw)
    reward = torch.randn(rows, 1, generator=draw)
    following = {"pixels": pixels[1], "reward": reward, "terminated": ended, "done": ended}
    action = torch.rand(rows, 2, generator=draw) * 2 - 1
    return TensorDict({"pixels": pixels[0], "action": action, "next": TensorDict(following, [rows])}, [rows])


# ---- by hand


def test_bilinear_similarity_and_the_loss() -> None:
    queries, keys = torch.eye(2), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    similarity = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    # q W = [[1, 2], [3, 4]]; with the keys the logits are [[2, 1], [4, 3]], of which 2 and 3 are the queries' own
    loss, chosen = contrast(queries, keys, similarity)
    expected = (math.log(math.exp(2) + math.exp(1)) - 2 + math.log(math.exp(4) + math.exp(3)) - 3) / 2
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    assert chosen.tolist() == [0, 0]
    pictures = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
    assert [float(share) for share in accuracies(pictures, chosen).values()] == [0.5, 0.5]


def test_twins_count_as_the_same_picture() -> None:
    """Two pictures that differ by one level in a quarter of the pixels, and one that differs everywhere."""
    images = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    images[1, 0, 0, 0], images[2] = 1, 255
    assert twins(images, torch.tensor([1, 0, 0])).tolist() == [True, True, False]
    assert twins(images, torch.tensor([2, 2, 2])).tolist() == [False, False, True]


def test_a_twin_that_is_chosen_is_no_mistake() -> None:
    curl, drawn = agent(), batch()
    drawn["pixels"][1:] = drawn["pixels"][:1]
    measured = curl.measure(drawn, 0)
    assert measured["contrast/accuracy_but_twins"] == 1.0
    assert measured["contrast/accuracy"] < 1.0


def test_the_slow_encoder_follows() -> None:
    curl = agent(encoder_tau=0.25)
    for module, value in ((curl.encoder, 1.0), (curl.slow_encoder, 3.0)):
        for weight in module.parameters():
            weight.data.fill_(value)
    curl.follow_slowly()
    for weight in curl.slow_encoder.parameters():
        torch.testing.assert_close(weight, torch.full_like(weight, 0.75 * 3 + 0.25 * 1))


# ---- what each loss moves


@pytest.mark.parametrize(
    ("loss", "moved"),
    [
        ("actor", {"actor"}),
        ("critic", {"critic", "encoder"}),
        ("temperature", {"temperature"}),
        ("contrast", {"encoder", "similarity"}),
    ],
)
def test_what_each_loss_moves(loss: str, moved: set[str]) -> None:
    curl = agent()
    curl.measure(batch(), 0)[f"loss/{loss}"].backward()
    grads = {name: [p.grad for p in part] for name, part in curl.groups().items()}
    assert {name for name, part in grads.items() if any(g is not None and g.any() for g in part)} == moved
    assert all(p.grad is None for p in curl.slow_encoder.parameters())
    known = {id(p) for part in curl.groups().values() for p in part}
    assert {id(p) for p in curl.parameters() if p.requires_grad} == known


def test_every_weight_is_moved_as_ranks_need_it() -> None:
    curl = agent()
    summed(curl.measure(batch(), 0)).backward()
    assert all(p.grad is not None for p in curl.parameters() if p.requires_grad)


def test_the_targets_are_what_the_slow_encoder_sees() -> None:
    curl = agent(contrast=0.0)
    before = curl.measure(batch(), 0)
    for weight in curl.slow_encoder.parameters():
        weight.data.mul_(2.0)
    after = curl.measure(batch(), 0)
    assert not torch.equal(after["loss/critic"], before["loss/critic"])
    assert torch.equal(after["loss/actor"], before["loss/actor"])


def test_without_the_contrastive_loss() -> None:
    curl = agent(contrast=0.0)
    assert "similarity" not in curl.groups()
    assert set(curl.measure(batch(), 0)) == {
        "loss/actor", "loss/critic", "loss/temperature", "policy/temperature", "policy/entropy",
    }  # fmt: skip


# ---- on real frames


def cartpole_frames(size: int, episodes: int) -> Replay:
    """Random episodes of cartpole_swingup as pictures."""
    env = make_env(TaskConfig("dmc/cartpole_swingup", 8), ObservationConfig("pixels", RenderConfig(size=size)))
    replay, actor = Replay.create(None, env_spaces(env), 2000), RandomActor(1, 1)
    for seed in range(episodes):
        for played in play(env, actor, [seed], True):
            replay.extend(played.transitions)
    env.close()
    return replay


def test_it_tells_pictures_of_replay_apart() -> None:
    """Above 90 % of batches of 8 (chance is 12.5 %) whose pictures differ by half a level of 255 on average."""
    replay = cartpole_frames(48, episodes=6)
    curl = agent(
        Spaces(action=1, pixels=(3, 48, 48)), crop=46, encoder_tau=0.1, units=8,
        encoder=FrameEncoderConfig(depth=16, strides=[2, 2, 1]),
    )  # fmt: skip
    assert curl.similarity is not None
    optimiser = torch.optim.Adam([*curl.encoder.parameters(), curl.similarity], lr=2e-3)

    def told(number: int, size: int) -> tuple[Tensor, dict[str, Tensor]]:
        drawn = Transitions(size, frames=3).sample(replay, rng.generator(0, "replay", number))
        with rng.scope(0, "model", number):
            seen = curl.encoder(curl.encoder.scaled(curl.augmented(drawn["pixels"])))
            return drawn["pixels"], curl.beside(drawn, TensorDict({"embedding": seen}, drawn.batch_size))

    for number in range(800):
        _, measured = told(number, 16)
        optimiser.zero_grad()
        measured["loss/contrast"].backward()
        optimiser.step()
        follow(curl.slow_encoder, curl.encoder, curl.config.encoder_tau)
    accuracies = []
    for number in range(10**6, 10**6 + 80):
        pixels, measured = told(number, 8)
        flat = pixels.flatten(1).float()
        apart = torch.cdist(flat, flat, p=1) / flat.shape[1] + 10 * torch.eye(8)
        if float(apart.min()) > 0.5:  # the cart at rest, or the same transition twice, cannot be told apart
            accuracies.append(float(measured["contrast/accuracy"]))
    assert len(accuracies) > 10
    assert sum(accuracies) / len(accuracies) > 0.9


# ---- acting


def pictures(*levels: int) -> dict[str, Tensor]:
    """A picture of one brightness for each environment."""
    return {"pixels": torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, *SPACES.pixels)}


def remembered(actor: object) -> list[list[int]]:
    """The brightness of every environment's frames."""
    return actor._state["frames"].unflatten(1, (3, 3))[:, :, 0, 0, 0].tolist()


def test_the_actor_stacks_what_it_sees() -> None:
    actor = agent().actor(PolicyOnly(PolicyOnly.Config()))
    actor.act(pictures(1, 11))
    assert remembered(actor) == [[1, 1, 1], [11, 11, 11]]
    actor.act(pictures(2, 12))
    actor.act(pictures(3, 13))
    assert remembered(actor) == [[1, 2, 3], [11, 12, 13]]
    actor.reset(torch.tensor([False, True]))
    actor.act(pictures(4, 14))
    assert remembered(actor) == [[2, 3, 4], [14, 14, 14]]
    actor.reset()
    actor.act(pictures(5, 15))
    assert remembered(actor) == [[5, 5, 5], [15, 15, 15]]


def test_it_acts_on_the_crop_in_the_middle() -> None:
    curl, (seen,) = agent(), pictures(100).values()
    edge = seen.clone()
    edge[:, :, 0], edge[:, :, :, -1] = 0, 0
    actions = []
    for picture in (seen, edge, 255 - seen):
        actor = curl.actor(PolicyOnly(PolicyOnly.Config()))
        actions.append(actor.act({"pixels": picture}))
    assert torch.equal(actions[0], actions[1])
    assert not torch.equal(actions[0], actions[2])


# ---- what it refuses


def test_what_it_refuses() -> None:
    for spaces in (Spaces(action=2, observation=3), Spaces(action=2, observation=3, pixels=(3, 64, 64))):
        with pytest.raises(UserError, match="agent=curl learns from pixels alone; type observation=pixels"):
            agent(spaces)
    with pytest.raises(
        UserError, match=r"agent\.crop=13: .*12 x 12.*type agent\.crop=10 or observation\.render\.size=16"
    ):
        agent(crop=13)
    with pytest.raises(UserError, match="nothing is left of an image of 10 x 10"):
        agent(encoder=FrameEncoderConfig(depth=4, strides=[2, 2, 2, 2]))
    with pytest.raises(UserError, match=r"agent=curl learns no model.*type planner=policy"):
        agent().actor(None)
