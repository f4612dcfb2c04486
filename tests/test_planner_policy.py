"""Candidates from a policy, and the compiled objective."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributions import Beta, Distribution, Independent, Normal
from torchrl.modules import TanhNormal

from lightning_wm.agents.dreamer import Dreamer
from lightning_wm.errors import UserError
from lightning_wm.models.freezing import frozen
from lightning_wm.planners.grad_mpc import GradMPC, GradMPCConfig
from lightning_wm.planning import Objective, problem_of
from lightning_wm.planning.base import POLICY, ZERO
from lightning_wm.planning.compiled import use_cache
from lightning_wm.planning.policy_rollouts import draw, rollouts
from lightning_wm.planning.search import Search
from lightning_wm.protocols import State
from tests.problems import generators, recurrent
from tests.test_planner_contract import build, rows
from tests.worlds import world


def policy(state: State) -> Distribution:
    """A squashed Gaussian that depends on the state."""
    return TanhNormal(state["stoch"][:, :2], torch.full_like(state["stoch"][:, :2], 0.3))


def test_draw_is_a_function_of_noise() -> None:
    noise = torch.tensor([[1.0, -1.0]])
    normal = Normal(torch.tensor([[0.5, 0.0]]), torch.tensor([[2.0, 0.1]]))
    assert draw(normal, noise)[0].tolist() == pytest.approx([2.5, -0.1])
    assert draw(Independent(normal, 1), noise)[0].tolist() == pytest.approx([2.5, -0.1])
    squashed = TanhNormal(normal.loc, normal.scale)
    assert draw(squashed, noise)[0].tolist() == pytest.approx(torch.tensor([2.5, -0.1]).tanh().tolist(), abs=1e-5)
    with pytest.raises(UserError, match="cannot draw from the policy's Beta"):
        draw(Beta(torch.ones(1), torch.ones(1)), noise[:, :1])


def test_rollouts_follow_the_policy() -> None:
    """The first is the mode, step by step through the model; the others differ; rows are independent."""
    model = recurrent()
    problem = replace(problem_of(model), policy=policy)
    state = model.initial(2)
    plans, finite = rollouts(Search(problem, state, generators(2), 4), 3)
    assert finite.tolist() == [[True] * 3] * 2
    assert plans.shape == (2, 3, 4, 2)
    for step in range(4):
        action = state["stoch"][:, :2].tanh()
        assert torch.allclose(plans[:, 0, step], action, atol=1e-4)
        state = model.imagine(state, plans[:, 0, step])
    assert (plans[:, 1] != plans[:, 2]).all()
    alone, _ = rollouts(Search(problem, rows(model.initial(2), 1), generators(2)[1:], 4), 3)
    assert torch.allclose(alone[0], plans[1], rtol=0, atol=1e-9)


def test_mppi_has_candidates_of_the_policy() -> None:
    model = recurrent()
    problem = replace(problem_of(model), policy=policy)
    planner = build("mppi", horizon=4, candidates=12, elites=4, policy_candidates=5)
    plan = planner.plan(problem, model.initial(2), None, generators(2))
    assert (plan["candidates", "origin"] == POLICY).sum(1).tolist() == [5, 5]
    assert plan["stats", "model_steps"].tolist() == [6 * 12 * 4 + 5 * 3] * 2


@pytest.mark.parametrize(("candidates", "zeros"), [(12, 1), (10, 1), (6, 0), (2, 0)])
def test_mppi_s_zero_candidate_takes_no_rollout_s_place(candidates: int, zeros: int) -> None:
    """Five rollouts, as far as there is room beside the mean: among few candidates half way is one of theirs."""
    planner = build("mppi", horizon=4, candidates=candidates, elites=2, policy_candidates=5)
    model = recurrent()
    problem = replace(problem_of(model), policy=policy)
    origin = planner.plan(problem, model.initial(2), None, generators(2))["candidates", "origin"]
    assert (origin == POLICY).sum(1).tolist() == [min(5, candidates - 1)] * 2
    assert (origin == ZERO).sum(1).tolist() == [zeros] * 2


def test_weights_are_fixed_only_while_a_graph_is_built_through_them() -> None:
    """Its backward pass would compute their gradients too; afterwards they are as they were."""
    model = recurrent()
    model.ending.requires_grad_(False)
    before = [weight.requires_grad for weight in model.parameters()]
    with frozen(model):
        assert not any(weight.requires_grad for weight in model.parameters())
    assert [weight.requires_grad for weight in model.parameters()] == before
    assert set(before) == {True, False}


def test_compiled_code_is_kept_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert use_cache() == os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "lightning_wm" / "inductor")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "mine")
    assert use_cache() == "mine"


@pytest.mark.parametrize("terminal_value", [False, True])
def test_a_score_is_compiled_once_for_all_actors_of_a_model(
    terminal_value: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every evaluation makes an actor, with new weights; only another shape or another model is announced."""
    graphs: list[int] = []
    announced: list[int] = []
    compile = torch.compile

    def counting(graph: Any, inputs: Any) -> Any:
        graphs.append(len(inputs))
        return graph

    def watched(call: Any, dynamic: bool, options: Any) -> Any:
        return compile(call, dynamic=dynamic, backend=counting)

    monkeypatch.setattr(torch, "compile", watched)
    objective = Objective(terminal_value=terminal_value)
    config = GradMPCConfig(horizon=3, iterations=2, candidates=4, compile=True, objective=objective)

    def evaluated(agent: Dreamer, environments: int = 2) -> tuple[int, int]:
        """Graphs, and announcements of them, so far."""
        with torch.no_grad():
            next(agent.model.parameters()).add_(0.01)
        actions = []
        for settings in (config, replace(config, compile=False)):
            actor, state = agent.actor(GradMPC(settings)), agent.model.initial(environments)
            actions.append(actor.planner.plan(actor.problem, state, None, generators(environments))["actions"])
        assert torch.allclose(*actions, atol=1e-4)
        announced.append(capsys.readouterr().err.count("compiling the score"))
        return len(graphs), sum(announced)

    one, other = (Dreamer(model=world(seed=seed)) for seed in (0, 1))
    assert [evaluated(one), evaluated(one), evaluated(one.eval()), evaluated(one.train())] == [(1, 1)] * 4
    assert evaluated(one, environments=3) == (2, 2)
    assert evaluated(other)[1] == 3
    assert evaluated(one)[1] == 3


def test_a_score_without_a_gradient_is_not_compiled(capsys: pytest.CaptureFixture[str]) -> None:
    model = recurrent()
    problem = replace(problem_of(model), reward=lambda state: model.reward(state).detach())
    planner = build("grad_mpc", horizon=3, iterations=2, candidates=4, compile=True)
    with pytest.raises(UserError, match="the model's reward has no gradient with respect to the state"):
        planner.plan(problem, model.initial(2), None, generators(2))
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_compiled_plans_are_the_eager_ones(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    model = recurrent(double=False)
    problem, state = problem_of(model), model.initial(2)
    settings = {"horizon": 3, "iterations": 2, "candidates": 4}
    eager = build("grad_mpc", **settings).plan(problem, state, None, generators(2))
    planner = build("grad_mpc", **settings, compile=True)
    with torch.inference_mode():
        compiled = planner.plan(problem, state, None, generators(2))
    assert torch.allclose(eager["actions"], compiled["actions"], atol=1e-4)
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())
    assert "compiled in" in capsys.readouterr().err
    assert any(path.is_file() for path in tmp_path.rglob("*"))
