"""Returns along replay: by hand, over seams between episodes, at ends for good, and what the critics learn of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lightning_wm.agents.replayed import replayed_returns
from tests.test_dreamer import SMALL, SPACES, dreamer, experience, gradients

REWARD = torch.tensor([[9.0, 1.0, 2.0, 3.0]])
VALUE = torch.tensor([[5.0, 10.0, 20.0, 30.0]])
NEVER = torch.zeros(1, 4, dtype=torch.bool)


def found(ends: int | None = None, terminated: int | None = None) -> tuple[list[float], list[float]]:
    seams, ended = NEVER[:, 1:].clone(), NEVER.clone()
    if ends is not None:
        seams[0, ends] = True
    if terminated is not None:
        ended[0, terminated] = True
    returns, real = replayed_returns(REWARD, seams, ended, VALUE, 0.5, 0.8)
    return returns[0].tolist(), real[0].tolist()


def test_a_window_of_one_episode_by_hand() -> None:
    returns, real = found()
    # G_2 = 3 + .5*30 = 18;  G_1 = 2 + .5 (.2*20 + .8*18) = 11.2;  G_0 = 1 + .5 (.2*10 + .8*11.2) = 6.48
    assert returns == pytest.approx([6.48, 11.2, 18.0])
    assert real == [1.0, 1.0, 1.0]


def test_a_seam_ends_returns_in_the_value_of_the_state_before_it() -> None:
    returns, real = found(ends=1)
    # State 1 is the last of its episode: G_0 = 1 + .5*10 = 6, whatever comes after.
    assert returns[0] == pytest.approx(6.0)
    assert returns[2] == pytest.approx(18.0)
    assert real == [1.0, 0.0, 1.0]


def test_after_an_end_for_good_there_is_nothing() -> None:
    returns, _ = found(terminated=2)
    # G_1 = 2;  G_0 = 1 + .5 (.2*10 + .8*2) = 2.8
    assert returns[:2] == pytest.approx([2.8, 2.0])


def replayed_gradients(weight: float) -> tuple[dict[str, Tensor], list[Tensor | None], list[Tensor | None]]:
    agent, batch = dreamer(replace(SMALL, replayed=weight)), experience(SPACES, 2, 5)
    states, _ = agent.model.observe(batch)
    measured = agent.behave(states, batch)
    if weight:
        measured["loss/replayed"].backward()
    return measured, gradients(agent.critics), [*gradients(agent.policy), *gradients(agent.model)]


def test_only_the_critics_learn_of_it() -> None:
    measured, critics, others = replayed_gradients(0.3)
    assert "loss/replayed" in measured
    assert any(gradient is not None and bool(gradient.any()) for gradient in critics)
    assert all(gradient is None or not gradient.any() for gradient in others)
    assert "loss/replayed" not in replayed_gradients(0.0)[0]


def test_values_become_those_of_the_rewards_that_were_earned() -> None:
    """A constant reward of 1 at discount 0.5 is worth 2 everywhere, whatever the model imagines."""
    agent, batch = dreamer(replace(SMALL, replayed=1.0, discount=0.5)), experience(SPACES, 4, 6)
    batch["reward"].fill_(1.0)
    batch["terminated"].fill_(False)
    states, _ = agent.model.observe(batch)
    features = agent.unfolded(states, batch)
    optimiser = torch.optim.Adam(agent.critics.parameters(), 1e-2)
    for _ in range(300):
        agent.slow.follow(agent.critics)
        optimiser.zero_grad()
        agent.behaviour.replayed_loss(features, batch).backward()
        optimiser.step()
    values = agent.critics(features.flatten(0, 1)).mean(0)
    assert values.mean().item() == pytest.approx(2.0, abs=0.1)
