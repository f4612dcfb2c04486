"""The actor: one object for the commands, for TorchRL's rollouts and for a loop of one's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from lightning_wm.agents.planet import PlaNet
from lightning_wm.config import ObservationConfig, TaskConfig
from lightning_wm.envs import make_env, observation_layout, spaces
from lightning_wm.errors import UserError
from lightning_wm.planners.grad_mpc import GradMPC
from lightning_wm.playing.actor import WorldModelActor
from lightning_wm.playing.play import play, play_many
from lightning_wm.playing.random import RandomActor
from lightning_wm.protocols import Spaces
from tests.worlds import world

TASK = TaskConfig("dmc/cartpole_swingup", action_repeat=8, max_decisions=6)
PLANNER = GradMPC(GradMPC.Config(horizon=3, iterations=2, candidates=4))


def actor(noise: float = 0.0, planner: GradMPC = PLANNER, **settings: int) -> WorldModelActor:
    agent = PlaNet(model=world(Spaces(action=1, observation=5)))
    return agent.actor(planner, noise=noise, **settings)


def seen(environments: int) -> torch.Tensor:
    return torch.randn(environments, 5, generator=torch.Generator().manual_seed(0))


def test_every_form_of_an_observation_gives_the_same_action() -> None:
    observation = seen(1)
    forms = [
        {"observation": observation},
        {"observation": observation[0]},
        {"observation": observation[0].numpy()},
        TensorDict({"observation": observation}, [1]),
        TensorDict({"observation": observation[0]}, []),
    ]
    actions = [actor().act(form) for form in forms]
    assert [tuple(a.shape) for a in actions] == [(1, 1), (1,), (1,), (1, 1), (1,)]
    assert isinstance(actions[2], np.ndarray)
    assert len({float(a.reshape(-1)[0]) for a in actions}) == 1


def test_a_missing_observation_is_named() -> None:
    with pytest.raises(UserError, match=r"with pixels \[1, 5\]; expected a mapping with 'observation' numbers \[5\]"):
        actor().act({"pixels": seen(1)})


BAD_FORMS = {
    "a wrong size": ({"observation": torch.zeros(4)}, r"observation has shape \[4\]; expected .* \[5\]"),
    "too many axes": ({"observation": torch.zeros(1, 1, 5)}, r"shape \[1, 1, 5\]"),
    "no environment": ({"observation": torch.zeros(0, 5)}, r"shape \[0, 5\]"),
    "text": ({"observation": ["a"] * 5}, "no array of numbers"),
    "complex numbers": ({"observation": np.zeros(5, complex)}, "complex128"),
    "nothing": (None, "NoneType|no array"),
    "not-a-number": ({"observation": torch.tensor([0.0, 0, torch.nan, 0, 0])}, r"observation\[2\] is nan"),
    "infinite": (
        {"observation": torch.tensor([[0.0] * 5, 4 * [0.0] + [-torch.inf]])},
        r"observation\[4\] of environment 1 is -inf",
    ),
}


@pytest.mark.parametrize(("observation", "message"), BAD_FORMS.values(), ids=list(BAD_FORMS))
def test_a_bad_observation_is_refused_and_the_next_acts_as_if_it_had_not_come(
    observation: object, message: str
) -> None:
    """One NaN poisoned the latent state for good."""
    player, untouched = actor(), actor()
    for other in (player, untouched):
        other.act({"observation": seen(2)})
    with pytest.raises(UserError, match=message):
        player.act(observation)
    after = {"observation": seen(2) + 1}
    assert torch.equal(player.act(after), untouched.act(after))
    assert torch.equal(player._state["deter"], untouched._state["deter"])


def test_a_missing_row_may_be_what_the_model_expects() -> None:
    """`missing = "predict"`: the prior's step in that row, the posterior's in the other."""
    player, whole = actor(), actor()
    player.missing = "predict"
    action = player.act({"observation": seen(2)})
    whole.act({"observation": seen(2)})
    state = {name: value.clone() for name, value in player._state.items()}
    after = seen(2) + 1
    whole.act({"observation": after})
    after[0, 3] = torch.nan
    player.act({"observation": after})
    torch.testing.assert_close(player._state["deter"][0], player.model.imagine(state, action)["deter"][0])
    torch.testing.assert_close(player._state["stoch"][0], player.model.imagine(state, action)["stoch"][0])
    torch.testing.assert_close(player._state["stoch"][1], whole._state["stoch"][1])
    assert bool(player._state["deter"].isfinite().all())


def test_the_bare_vector_and_the_task_s_own_dictionary_are_taken() -> None:
    """dm_control's own order: position (3) before velocity (2)."""
    env = make_env(TASK, ObservationConfig(), 1)
    vector = seen(1)[0].numpy()
    player, by_parts = actor(), actor()
    by_parts.intake.layout = observation_layout(env)
    expected = actor().act({"observation": vector})
    np.testing.assert_array_equal(player.act(vector), expected)
    np.testing.assert_array_equal(by_parts.act({"velocity": vector[3:], "position": vector[:3]}), expected)
    with pytest.raises(UserError, match=r"velocity is missing.*position \(3\), velocity \(2\)"):
        by_parts.act({"position": vector[:3]})
    with pytest.raises(UserError, match=r"velocity\[1\] is nan"):
        by_parts.act({"position": vector[:3], "velocity": np.array([0.0, np.nan])})


@pytest.mark.parametrize("full", [None, torch.tensor([True, True])], ids=["reset()", "a full mask"])
def test_every_full_reset_begins_episodes_with_streams_of_their_own(full: torch.Tensor | None) -> None:
    """A loop of one's own played the same exploration noise in every episode."""
    player = actor(noise=0.5)
    player.reset()
    first = player.act({"observation": seen(2)})
    player.reset(full)
    second = player.act({"observation": seen(2)})
    assert not torch.equal(first, second)
    fresh = actor(noise=0.5)
    fresh.episode = 2  # two environments have played episodes 0 and 1
    torch.testing.assert_close(second, fresh.act({"observation": seen(2)}))


def test_a_full_reset_follows_partial_ones_without_repeating_a_stream() -> None:
    player = actor(noise=0.5)
    player.act({"observation": seen(2)})
    player.reset(torch.tensor([True, False]))  # environment 0 goes on with episode 2
    player.act({"observation": seen(2)})
    player.reset()
    fresh = actor(noise=0.5)
    fresh.episode = 3
    torch.testing.assert_close(player.act({"observation": seen(2)}), fresh.act({"observation": seen(2)}))


def test_what_it_did_is_what_it_filters_next() -> None:
    player = actor(noise=0.5)
    first = player.act({"observation": seen(2)})
    state = {name: value.clone() for name, value in player._state.items()}
    after = seen(2) + 1
    player.act({"observation": after})
    expected = player.model.filter(state, first, TensorDict({"observation": after}, [2]))
    torch.testing.assert_close(player._state["deter"], expected["deter"])


def test_exploration_noise_is_keyed_and_stays_in_bounds() -> None:
    calm, noisy = actor().act({"observation": seen(3)}), actor(noise=5.0).act({"observation": seen(3)})
    assert not torch.equal(calm, noisy)
    assert noisy.abs().max() <= 1
    assert torch.equal(noisy, actor(noise=5.0).act({"observation": seen(3)}))
    assert not torch.equal(noisy, actor(noise=5.0, seed=1).act({"observation": seen(3)}))
    assert not torch.equal(noisy, actor(noise=5.0, rank=1).act({"observation": seen(3)}))


def test_reset_of_one_environment_leaves_the_others() -> None:
    player, alone = actor(), actor()
    observations = [seen(2) + i for i in range(3)]
    for observation in observations[:2]:
        player.act({"observation": observation})
        alone.act({"observation": observation})
    player.reset(torch.tensor([True, False]))
    mixed, on = player.act({"observation": observations[2]}), alone.act({"observation": observations[2]})
    torch.testing.assert_close(mixed[1], on[1])
    fresh = actor()
    fresh.episode = 2  # environment 0 has begun its second episode; the two of them its first two
    torch.testing.assert_close(mixed[0], fresh.act({"observation": observations[2]})[0])


def test_it_is_a_policy_for_torchrls_rollouts() -> None:
    env = make_env(TASK, ObservationConfig(), 2)
    rolled = env.rollout(20, policy=actor(), break_when_any_done=False)
    assert rolled["action"].shape == (2, 20, 1)
    assert rolled["action"].abs().max() <= 1
    by_hand = play(make_env(TASK, ObservationConfig(), 2), actor(), [3, 4], keep=True)
    again = play(make_env(TASK, ObservationConfig(), 2), actor(), [3, 4], keep=True)
    for one, other in zip(by_hand, again, strict=True):
        assert torch.equal(one.transitions["observation"], other.transitions["observation"])


def test_replan_executes_k_actions_of_a_plan() -> None:
    player = actor(planner=GradMPC(GradMPC.Config(horizon=3, iterations=2, candidates=4, replan=3)))
    first = player.act({"observation": seen(2)})
    plan = player.plan["actions"]
    torch.testing.assert_close(first, plan[:, 0])
    for step in (1, 2):
        torch.testing.assert_close(player.act({"observation": seen(2)}), plan[:, step])
    player.act({"observation": seen(2)})
    assert player.plan["actions"] is not plan


def test_a_reset_does_not_make_others_replan() -> None:
    planner = GradMPC(GradMPC.Config(horizon=4, iterations=2, candidates=4, replan=3))
    player, alone = actor(planner=planner), actor(planner=planner)
    for step in range(7):
        if step == 2:
            player.reset(torch.tensor([True, False]))
        observation = {"observation": seen(2) + step}
        torch.testing.assert_close(player.act(observation)[1], alone.act(observation)[1])


def test_an_agent_without_a_policy_needs_a_planner() -> None:
    with pytest.raises(UserError, match="planner=grad_mpc"):
        PlaNet(model=world()).actor(None)


# ---- playing


def test_transitions_are_replays() -> None:
    env = make_env(TASK, ObservationConfig(), 1)
    (episode,) = play(env, actor(), [5], keep=True)
    rows = episode.transitions
    assert rows.batch_size == (7,)
    assert rows["is_init"].flatten().tolist() == [True] + 6 * [False]
    assert rows["action"][0].item() == 0
    assert rows["reward"][0].item() == 0
    assert episode.total == pytest.approx(rows["reward"].sum().item(), rel=1e-6)
    assert (episode.length, episode.env_steps) == (6, 48)
    raw = make_env(TASK, ObservationConfig(), 1)
    td = raw.reset(seeds=[5])
    torch.testing.assert_close(td["observation"][0], rows["observation"][0])
    for row in range(1, 7):
        td["action"] = rows["action"][row][None]
        td = raw.step(td)["next"]
        torch.testing.assert_close(td["observation"][0], rows["observation"][row])
        torch.testing.assert_close(td["reward"][0], rows["reward"][row])


def test_many_episodes_on_few_environments_are_the_same_episodes() -> None:
    players = [actor(), actor()]
    few = play_many(make_env(TASK, ObservationConfig(), 2), players[0], range(3))
    many = play_many(make_env(TASK, ObservationConfig(), 3), players[1], range(3))
    assert [e.total for e in few] == pytest.approx([e.total for e in many], rel=1e-3)
    assert [e.seed for e in few] == [0, 1, 2]


# ---- random actions


def test_random_actions_are_held_and_each_environment_draws_alone() -> None:
    player = RandomActor(2, environments=3, hold=4, seed=1)
    actions = torch.stack([player.act() for _ in range(200)])  # [200, 3, 2]
    assert actions.abs().max() <= 1
    changed = (actions[1:] != actions[:-1]).any(-1)
    lengths = [len(run) for run in "".join("x" if c else "." for c in changed[:, 0]).split("x")]
    assert max(lengths[:-1]) == 3  # held for four decisions: three without a change
    alone = RandomActor(2, environments=1, hold=4, seed=1)
    torch.testing.assert_close(torch.stack([alone.act() for _ in range(200)])[:, 0], actions[:, 0])


def test_the_random_actor_s_episodes_differ_and_a_numbered_one_is_the_same_again() -> None:
    player = RandomActor(2, environments=2, seed=1)
    player.reset()
    first = player.act()
    player.reset()
    assert not torch.equal(player.act(), first)
    player.reset()
    player.episode = 0
    assert torch.equal(player.act(), first)


def test_random_actor_in_a_rollout() -> None:
    env = make_env(TASK, ObservationConfig(), 2)
    rolled = env.rollout(4, policy=RandomActor(spaces(env).action, 2))
    assert rolled["action"].shape == (2, 4, 1)
