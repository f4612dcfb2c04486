"""The model without a decoder: its latents, its losses by hand, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lightning_wm import rng
from lightning_wm.errors import UserError
from lightning_wm.models.joint_embedding import JointEmbedding, JointEmbeddingConfig, SimNorm
from lightning_wm.planning import problem_of
from lightning_wm.planning.objective import score
from lightning_wm.protocols import Spaces
from tests.worlds import experience, total

SPACES = Spaces(action=2, observation=3)


def model(**fields: object) -> JointEmbedding:
    sizes = {"latent": 8, "simplex": 4, "units": 16, "bins": 21, "bin_limit": 4.0}
    with rng.scope(0, "init"):
        return JointEmbedding(JointEmbeddingConfig(**{**sizes, **fields}), SPACES)


def still(world: JointEmbedding) -> JointEmbedding:
    """Imagines the same latent always: every number of a simplex of 4 is a quarter."""
    for name in ("weight", "bias"):
        torch.nn.init.zeros_(getattr(world.dynamics[-2], name))
    return world


def test_simnorm_is_a_softmax_of_every_few_numbers() -> None:
    found = SimNorm(2)(torch.tensor([[0.0, math.log(3.0), 5.0, 5.0]]))
    torch.testing.assert_close(found, torch.tensor([[0.25, 0.75, 0.5, 0.5]]))


def test_a_window_is_imagined_from_what_was_seen_first_and_again_from_a_new_episode() -> None:
    world, batch = model(rho=0.5), experience(SPACES, 1, 6)
    batch["is_init"][:, 3] = True
    rolled = world.roll(batch)
    assert rolled.weight[:, 0].tolist() == [1.0, 0.5, 0.0, 1.0, 0.5]
    for step in (0, 3):
        torch.testing.assert_close(rolled.latent[step], world.encode(batch[:, step]))
    state = {**world.initial(1), "latent": rolled.latent[3]}
    for step in (4, 5):
        state = world.imagine(state, batch["action"][:, step])
        torch.testing.assert_close(state["latent"], rolled.latent[step])


@pytest.mark.parametrize("t", [1, 2, 5])
def test_every_observation_is_encoded_once(t: int) -> None:
    world, batch = model().double(), experience(SPACES, 3, t, dtype=torch.float64)
    rows: list[int] = []
    world.encoder.register_forward_hook(lambda module, given, out: rows.append(len(out)))
    rolled = world.roll(batch)
    assert sum(rows) == 3 * t
    for step in range(t):
        torch.testing.assert_close(rolled.encoded[step], world.encode(batch[:, step]).detach())
    assert rolled.latent[0].requires_grad
    assert not rolled.encoded.requires_grad
    assert rolled.latent.shape == rolled.encoded.shape == (t, 3, 8)


def test_consistency_and_reward_by_hand() -> None:
    world, batch = still(model(rho=0.5, consistency_scale=2.0, reward_scale=3.0)), experience(SPACES, 1, 3)
    measured = world.losses(world.roll(batch))
    with torch.no_grad():
        errors = [(0.25 - world.encode(batch[:, step])).square().mean() for step in (1, 2)]
    torch.testing.assert_close(measured["loss/consistency"].detach(), 2.0 * (errors[0] + 0.5 * errors[1]) / 2)
    # A head that has learned nothing gives every bin the same chance: ln(bins) nats, whatever the reward.
    assert measured["loss/reward"].item() == pytest.approx(3.0 * 1.5 * math.log(21) / 2, rel=1e-5)


def test_what_was_seen_is_no_way_round_the_dynamics() -> None:
    """The error's gradient reaches the encoder through the first observation alone: targets are stopped."""
    world, batch = still(model()), experience(SPACES, 2, 4)
    world.losses(world.roll(batch))["loss/consistency"].backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in world.encoder.parameters())
    world = model()
    world.losses(world.roll(batch))["loss/consistency"].backward()
    assert any(parameter.grad.any() for parameter in world.encoder.parameters())


def test_the_rewards_of_a_plan_are_those_of_its_steps() -> None:
    world = model(reward_scale=1.0).double()
    torch.nn.init.normal_(world.reward_head.network[-1].weight)  # type: ignore[arg-type]
    state = world.filter(world.initial(1), torch.zeros(1, 2).double(), experience(SPACES, 1, 1)[:, 0])
    actions = torch.tensor([[[0.3, -0.4], [0.5, 0.1]]], dtype=torch.float64)
    first = world.dynamics(torch.cat([state["latent"], actions[:, 0]], -1))
    pairs = ((state["latent"], actions[:, 0]), (first, actions[:, 1]))
    expected = sum(world.reward_head(torch.cat(pair, -1)) for pair in pairs)
    torch.testing.assert_close(score(problem_of(world), state, actions), expected)


def test_the_returns_gradient_is_that_of_finite_differences() -> None:
    world = model().double()
    torch.nn.init.normal_(world.reward_head.network[-1].weight)  # type: ignore[arg-type]
    state = world.filter(world.initial(1), torch.zeros(1, 2).double(), experience(SPACES, 1, 1)[:, 0])
    state = {name: value.detach() for name, value in state.items()}

    def gained(actions: Tensor) -> Tensor:
        return score(problem_of(world), state, actions)

    actions = torch.tensor([[[0.3, -0.4], [0.5, 0.1], [-0.2, 0.6]]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gained, (actions,))


def test_it_learns_a_linear_system() -> None:
    """x' = x + 0.5 a, reward -|x'|: latents three steps ahead and rewards are found."""
    draw = torch.Generator().manual_seed(0)
    world, batch = model(units=32), experience(SPACES, 64, 4)
    batch["observation"][:, 0] = torch.randn(64, 3, generator=draw)
    for step in range(1, 4):
        move = torch.cat([batch["action"][:, step], torch.zeros(64, 1)], 1)
        batch["observation"][:, step] = batch["observation"][:, step - 1] + 0.5 * move
    batch["reward"] = -batch["observation"].norm(dim=-1, keepdim=True)
    optimiser, history = torch.optim.Adam(world.parameters(), lr=3e-3), []
    for _ in range(300):
        _, measured = world.observe(batch)
        optimiser.zero_grad()
        total(measured).backward()
        optimiser.step()
        history.append(measured["loss/consistency"].item())
    assert history[-1] < 0.3 * history[0]
    states, _ = world.observe(batch)
    states = {name: value.unflatten(0, (64, 4))[:, 1:].flatten(0, 1) for name, value in states.items()}
    rewards = batch["reward"][:, 1:].flatten()
    assert (world.reward(states) - rewards).abs().mean() < 0.3 * (rewards - rewards.mean()).abs().mean()
    assert world.encode(batch[:, 0]).std(0).mean() > 0.02  # one latent for everything would be consistent too


def test_ends_are_learned_where_there_is_a_head_for_them() -> None:
    world, batch = model(continue_head=True, continue_scale=1.0), experience(SPACES, 8, 2)
    batch["terminated"][:, 1] = batch["observation"][:, 1, :1] > 0
    optimiser = torch.optim.Adam(world.parameters(), lr=1e-2)
    for _ in range(200):
        _, measured = world.observe(batch)
        optimiser.zero_grad()
        total(measured).backward()
        optimiser.step()
    rolled = world.roll(batch)
    after = {**world.initial(8), "latent": rolled.latent[1]}
    assert ((world.continues(after) < 0.5) == batch["terminated"][:, 1, 0]).all()
    assert (model().continues(after) == 1).all()


def test_what_it_refuses() -> None:
    with pytest.raises(UserError, match="type observation=state, or model=small"):
        JointEmbedding(spaces=Spaces(action=2, observation=3, pixels=(3, 64, 64)))
    with pytest.raises(ValueError, match=r"model\.latent=10.*type model\.latent=8"):
        JointEmbeddingConfig(latent=10, simplex=4)
