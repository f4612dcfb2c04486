"""Policy+Grad-MPC executes its plan where that is worth more than the policy on average over draws of the latents."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from lightning_wm.planning.mix import Mix
from lightning_wm.planning.search import Search
from lightning_wm.protocols import Problem, State
from tests.problems import generators, linear_quadratic
from tests.test_planner_contract import build

D = torch.float64
PULL = 0.5
"""What an action is worth, and what the policy lacks: it does nothing."""


def drawn(steps: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(*steps, 1, generator=generator, dtype=D)


def remember(state: State, action: Tensor, noise: Tensor | None = None) -> State:
    """The action, and the noise of the step: 0 on the prior's mode."""
    return {"a": action, "n": torch.zeros_like(action) if noise is None else noise}


def idle(state: State) -> Normal:
    return Normal(torch.zeros_like(state["a"]), 1e-6)


def risky(risk: float) -> Problem:
    """An action earns PULL a on the mode, and costs risk n^2 a^2 under noise n: PULL a - risk a^2 on average."""

    def reward(state: State) -> Tensor:
        return (PULL * state["a"] - risk * (state["n"] * state["a"]).square())[:, 0]

    return Problem(action=1, imagine=remember, reward=reward, policy=idle, noise=drawn)


def start(environments: int = 1) -> State:
    return {name: torch.zeros(environments, 1, dtype=D) for name in ("a", "n")}


def executed(risk: float, **settings: object) -> float:
    planner = build("policy_grad_mpc", horizon=1, step_size=0.5, **settings)
    plan = planner.plan(risky(risk), start(), None, generators(1))
    assert plan["stats", "by_policy"].item() is (abs(plan["action"].item()) < 1e-3)
    return float(plan["action"])


@pytest.mark.parametrize(("risk", "expected"), [(0.01, 1.0), (20.0, 0.0)])
def test_a_gain_that_is_of_the_mode_alone_is_not_executed(risk: float, expected: float) -> None:
    assert executed(risk, policy_draws=64) == pytest.approx(expected, abs=0.1)


def test_without_draws_the_mode_is_believed() -> None:
    assert executed(20.0, policy_draws=0) == pytest.approx(1.0, abs=0.1)


def test_without_a_policy_nobody_is_asked() -> None:
    assert executed(20.0, policy_draws=64, mix=Mix(0.0, 0.5, 0.5)) == pytest.approx(1.0, abs=0.1)


def test_expectations_by_hand() -> None:
    """Two plans meet the same draws; their scores are averaged over them."""
    search = Search(risky(2.0), start(2), generators(2), 1)
    plans = torch.tensor([[0.5, -1.0], [0.0, 1.0]], dtype=D).view(2, 2, 1, 1)
    noise = [drawn((1, 5), own)[0, :, 0] for own in generators(2)]
    wanted = [[PULL * a - 2.0 * a * a * own.square().mean().item() for a in row]
              for row, own in zip([[0.5, -1.0], [0.0, 1.0]], noise, strict=True)]  # fmt: skip
    got = search.expected(plans, 5)
    assert got.tolist() == [pytest.approx(row) for row in wanted]
    assert (search.model_steps, search.sequential_calls) == (10, 1)


def test_every_step_has_its_own_draw() -> None:
    """Three steps of two plans in two environments, each environment with draws of its own."""
    search = Search(risky(2.0), start(2), generators(2), 3)
    plans = torch.randn(2, 2, 3, 1, dtype=D, generator=torch.Generator().manual_seed(3))
    wanted = torch.zeros(2, 2, dtype=D)
    for environment, own in enumerate(generators(2)):
        noise = drawn((3, 4), own)[:, :, 0]  # H, K
        for number, plan in enumerate(plans[environment, :, :, 0]):
            wanted[environment, number] = sum(
                PULL * a - 2.0 * a * a * n.square().mean() for a, n in zip(plan, noise, strict=True)
            )
    torch.testing.assert_close(search.expected(plans, 4), wanted)


def test_a_rollout_that_is_not_finite_gives_way() -> None:
    def reward(state: State) -> Tensor:
        unknown = (state["n"] != 0) | (state["a"].abs() < 0.1)
        return torch.where(unknown, torch.nan, PULL * state["a"])[:, 0]

    planner = build("policy_grad_mpc", horizon=1, step_size=0.5)
    plan = planner.plan(replace(risky(0.0), reward=reward), start(), None, generators(1))
    assert not plan["stats", "fallback"].any()
    assert float(plan["action"].abs()) > 0.1


def test_the_question_costs_one_unroll_of_both_plans_under_every_draw() -> None:
    planner = build("policy_grad_mpc")
    plan = planner.plan(risky(0.1), start(), None, generators(1))
    assert plan["stats", "model_steps"].tolist() == [4 * 11 + 6 * 8 * 12 + 12 + 2 * 16 * 12]
    assert plan["stats", "sequential_calls"].tolist() == [11 + 6 * 12 + 12 + 12]


def test_a_model_that_draws_nothing_is_asked_once() -> None:
    lq = linear_quadratic(2)
    search = Search(lq.endless(), lq.state, generators(3), 4)
    plans = torch.zeros(3, 2, 4, 2, dtype=D)
    assert torch.equal(search.expected(plans, 16), search.score(plans))


def test_what_is_not_finite_under_draws_is_not_executed() -> None:
    def reward(state: State) -> Tensor:
        unknown = (state["n"] != 0) & (state["a"].abs() > 0.1)
        return torch.where(unknown, torch.nan, PULL * state["a"])[:, 0]

    planner = build("policy_grad_mpc", horizon=1, step_size=0.5)
    plan = planner.plan(replace(risky(0.0), reward=reward), start(), None, generators(1))
    assert float(plan["action"]) == pytest.approx(0.0, abs=1e-3)
    assert not plan["stats", "fallback"].any()


@pytest.mark.parametrize("action", [1, 6, 30])
def test_the_optimal_policy_is_executed(action: int) -> None:
    """No mean of plans is worth more than the rollout of the optimal policy."""
    lq = linear_quadratic(action)
    plan = build("policy_grad_mpc").plan(lq.endless(), lq.state, None, generators(3))
    assert torch.allclose(plan["action"], -lq.start @ lq.riccati()[0].T, atol=1e-6)
    assert plan["stats", "by_policy"].all()
