"""TD-MPC2's learning: targets by hand, who learns from what, a problem whose optimum is known, the whole circle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor, nn

from lightning_wm import load_actor, rng
from lightning_wm.agents.tdmpc import TDMPC, TDMPCConfig
from lightning_wm.errors import UserError
from lightning_wm.evaluate import main as evaluate
from lightning_wm.fit import main as fit
from lightning_wm.models.action_values import ActionCriticConfig, ActionCritics
from lightning_wm.models.behaviour import ActorConfig
from lightning_wm.models.joint_embedding import JointEmbedding, JointEmbeddingConfig
from lightning_wm.protocols import Spaces
from tests.conftest import TINY
from tests.test_sac import weights
from tests.worlds import Outside, experience, total, world

SPACES = Spaces(action=2, observation=3)
RUN = [*TINY, "agent=tdmpc", "model.latent=8", "model.units=8", "agent.critic.units=8", "evaluation.video=false"]
ACTOR = ActorConfig(units=16, distribution="tanh_normal")


class Alone(Outside, TDMPC):  # type: ignore[misc]
    """Outside a Trainer."""


def agent(spaces: Spaces = SPACES, latent: int = 8, units: int = 16, **fields: Any) -> Alone:
    with rng.scope(0, "init"):
        model = JointEmbedding(JointEmbeddingConfig(latent=latent, units=units, bins=41, bin_limit=4.0), spaces)
        critic = ActionCriticConfig(members=2, units=units, bins=41, bin_limit=4.0)
        return Alone(TDMPCConfig(**{"actor": ACTOR, "critic": critic, **fields}), model)


def says(critics: ActionCritics, bins: list[int]) -> Tensor:
    """Make each critic sure of one bin; the bins' values."""
    bias = critics.head.network.biases[-1]  # type: ignore[union-attr, index]
    with torch.no_grad():
        bias.zero_()
        for member, index in enumerate(bins):
            bias[member, 0, index] = 100.0
    return critics.head.support[bins]


def learned(module: nn.Module) -> bool:
    return any(p.grad is not None and p.grad.any() for p in module.parameters())


def test_the_critics_target_is_the_smaller_of_two_slow_ones_where_the_episode_goes_on() -> None:
    one, batch = agent(discount=0.5), experience(SPACES, 3, 3)
    batch["terminated"][1, 2] = True
    values = says(one.slow, [24, 22])
    target = one.targets(one.model.roll(batch), rng.generator(0, "model"))
    expected = batch["reward"][:, 1:, 0].T + 0.5 * values.min()
    expected[1, 1] = batch["reward"][1, 2, 0]
    torch.testing.assert_close(target, expected)


def test_a_step_into_a_new_episode_teaches_the_critics_nothing() -> None:
    one, batch = agent(), experience(SPACES, 2, 4)
    batch["is_init"][:, 2] = True
    losses = []
    for reward in (0.0, 50.0):
        batch["reward"][:, 2] = reward
        losses.append(one.valued(one.model.roll(batch), rng.generator(0, "model"))["loss/critic"])
    assert losses[0] == losses[1]


def test_the_policy_learns_at_first_states_and_not_where_an_episode_has_ended() -> None:
    """Windows of one-decision episodes, each ended for good: what follows the end is the next one's first state."""
    one, batch = agent(), experience(SPACES, 2, 4)
    nn.init.normal_(one.critics.head.network.weights[-1])  # type: ignore[union-attr, index, arg-type]
    batch["is_init"][:] = torch.tensor([True, False, True, False])[:, None]
    batch["terminated"][:] = torch.tensor([False, True, False, True])[:, None]
    rolled = one.model.roll(batch)
    assert rolled.standing[:, 0].tolist() == [1.0, 0.0, 1.0, 0.0]
    kept: list[Tensor] = []
    drawn = one.drawn
    one.drawn = lambda latent, generator: _kept(drawn(latent, generator), kept)  # type: ignore[method-assign]
    one.acted(rolled, rng.generator(0, "model"))["loss/actor"].backward()
    slope = kept[0].grad.unflatten(0, (4, 2)).abs().sum((1, 2))  # type: ignore[union-attr]
    assert (slope > 0).tolist() == [True, False, True, False]


def _kept(drawn: tuple[Tensor, Tensor, Tensor], kept: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    drawn[0].retain_grad()
    kept.append(drawn[0])
    return drawn


def test_who_learns_from_what() -> None:
    one, batch = agent(), experience(SPACES, 2, 4)
    nn.init.normal_(one.critics.head.network.weights[-1])  # type: ignore[union-attr, index, arg-type]
    rolled = one.model.roll(batch)
    one.acted(rolled, rng.generator(0, "model"))["loss/actor"].backward()
    assert learned(one.policy)
    assert not learned(one.critics)
    assert not learned(one.model)
    one.zero_grad()
    one.valued(rolled, rng.generator(0, "model"))["loss/critic"].backward()
    assert learned(one.critics)
    assert learned(one.model.dynamics)
    assert learned(one.model.encoder)
    assert not learned(one.policy)
    assert not learned(one.slow)


def test_the_slow_critics_follow_but_not_after_a_skipped_update() -> None:
    one, batch = agent(), experience(SPACES, 2, 4)
    nn.init.ones_(one.critics.head.network.biases[-1])  # type: ignore[union-attr, index, arg-type]
    slow = one.slow.head.network.biases[-1]  # type: ignore[union-attr, index]
    one.losses(batch, rng.generator(0, "model"))
    torch.testing.assert_close(slow, torch.full_like(slow, 0.01))
    one.guard.streak = 1
    one.losses(batch, rng.generator(0, "model"))
    torch.testing.assert_close(slow, torch.full_like(slow, 0.01))


def test_planners_get_the_policy_and_every_critic() -> None:
    one = agent()
    values = says(one.critics, [25, 23])
    state = one.model.filter(one.model.initial(3), torch.zeros(3, 2), experience(SPACES, 3, 1)[:, 0])
    found = one.eval().learned()["values"](state)
    torch.testing.assert_close(found, values[:, None].expand(2, 3))


def _system(rows: int, draw: torch.Generator) -> TensorDict:
    """x' = 0.9 x + 0.5 a, reward -(x'^2 + 0.1 a^2), four observations from anywhere, any actions."""
    action = torch.rand(rows, 4, 1, generator=draw) * 2 - 1
    x = [torch.rand(rows, 1, generator=draw) * 2 - 1]
    for step in range(1, 4):
        x.append(0.9 * x[-1] + 0.5 * action[:, step])
    observation = torch.stack(x, 1)
    no = torch.zeros(rows, 4, 1, dtype=torch.bool)
    reward = -(observation.square() + 0.1 * action.square())
    batch = {"observation": observation, "action": action, "reward": reward, "terminated": no, "is_init": no}
    return TensorDict(batch, [rows, 4])


def test_a_policy_learned_on_a_linear_quadratic_problem_approaches_the_optimal_gain() -> None:
    """Riccati with F 0.9, G 0.5, discount 0.9: P = 1 + 0.81 d P - (0.45 d P)^2 / (0.1 + 0.25 d P), a = -K x."""
    discount, p = 0.9, 1.0
    for _ in range(200):  # the value of x' is -p x'^2, its own reward included
        gain = 0.45 * p / (0.1 + 0.25 * p)
        p = 1.0 + discount * ((0.9 - 0.5 * gain) ** 2 * p + 0.1 * gain**2)
    draw, one = torch.Generator().manual_seed(0), agent(Spaces(action=1, observation=1), units=32, discount=discount)
    optimiser = torch.optim.Adam(one.parameters(), lr=3e-3)
    for step in range(400):
        one.step = step
        measured = one.losses(_system(64, draw), rng.generator(0, "model", 0, step))
        optimiser.zero_grad()
        total(measured).backward()
        optimiser.step()
    seen = torch.linspace(-0.4, 0.4, 9)[:, None]
    state = one.model.filter(one.model.initial(9), torch.zeros(9, 1), TensorDict({"observation": seen}, [9]))
    action = one.eval().policy.statistics(state["latent"])[0].tanh().detach()
    slope = float((seen * action).sum() / seen.square().sum())
    assert slope == pytest.approx(-gain, rel=0.15)


def test_the_whole_circle_and_every_planner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert fit([*RUN, f"run={run}", "planner=policy"]) == 0
    few = ["planner.candidates=4", "planner.iterations=1", "episodes=1"]
    for planner in ("policy_grad_mpc", "grad_mpc", "mppi"):
        sampler = ["planner.elites=2", "planner.policy_candidates=1"] if planner == "mppi" else []
        capsys.readouterr()
        assert evaluate([f"run={run}", f"planner={planner}", *few, *sampler]) == 0
        assert planner in capsys.readouterr().out
    assert load_actor(run).act({"observation": torch.zeros(3, 5)}).shape == (3, 1)


def test_it_goes_on_exactly(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert fit([*RUN, f"run={whole}", "env_steps=480"]) == 0
    assert fit([*RUN, f"run={parts}", "env_steps=320"]) == 0
    assert fit([*RUN, f"run={parts}", "env_steps=480"]) == 0
    ours, theirs = weights(parts), weights(whole)
    assert any(name.startswith("slow.") for name in theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_what_it_refuses() -> None:
    with pytest.raises(UserError, match="type model=joint_embedding, or agent=dreamer"):
        TDMPC(TDMPCConfig(), world(SPACES))
    with pytest.raises(UserError, match=r"replay\.length=1.*type replay\.length=4"):
        agent().losses(experience(SPACES, 2, 1), rng.generator(0, "model"))
    with pytest.raises(ValueError, match=r"agent\.critic\.members=1"):
        ActionCriticConfig(members=1)
