"""The problems that `bench optimum` measures on: their dynamics, their optima, the command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from lightning_wm.bench import main
from lightning_wm.benchmarks.known_problems import Pendulum, Rosenbrock, linear_quadratic, returns
from lightning_wm.benchmarks.optimum import HORIZON, PROBLEMS, rows, settings_of
from lightning_wm.errors import UserError


def test_the_pendulum_is_gymnasiums() -> None:
    env = gymnasium.make("Pendulum-v1")
    env.reset(seed=0)
    inner = env.unwrapped
    inner.state = np.array([math.pi - 0.3, 0.4])  # type: ignore[attr-defined]
    pendulum, total = Pendulum(), 0.0
    state = {"x": torch.tensor([[math.pi - 0.3, 0.4]], dtype=torch.float64), "reward": torch.zeros(1)}
    for action in (0.3, -1.0, 0.8, 0.1):
        state = pendulum.imagine(state, torch.tensor([[action]], dtype=torch.float64))
        total = sum(float(env.step(np.array([2.0 * action], np.float32))[1]) for _ in range(4))
        assert pendulum.reward(state).item() == pytest.approx(total, rel=1e-5)
    assert state["x"][0].tolist() == pytest.approx(inner.state.tolist(), rel=1e-5)  # type: ignore[attr-defined]


def test_rosenbrock_by_hand() -> None:
    valley = Rosenbrock(environments=1)
    state = valley.imagine(valley.state, torch.tensor([[1.0, -1.0]], dtype=torch.float64))
    assert state["x"].tolist() == [[-0.75, 0.55]]  # from (-1, 0.8)
    assert valley.reward(state).item() == pytest.approx(-(1.75**2 + 10 * (0.55 - 0.5625) ** 2) / 10)


def test_returns_of_a_linear_problem_are_its_own() -> None:
    lq = linear_quadratic(3)
    plans = torch.rand(3, HORIZON, 3, dtype=torch.float64) - 0.5
    torch.testing.assert_close(returns(lq.problem, lq.state, plans), lq.value(plans))


@pytest.mark.parametrize("name", PROBLEMS)
def test_no_other_plan_is_better_than_the_optimum(name: str) -> None:
    known = PROBLEMS[name]()
    best = returns(known.problem, known.state, known.optimum)
    assert known.share(known.optimum).tolist() == pytest.approx([1.0] * 3)
    for scale in (0.01, 0.1, 1.0):
        other = (known.optimum + scale * torch.randn(known.optimum.shape, dtype=torch.float64)).clamp(-1, 1)
        assert (returns(known.problem, known.state, other) <= best).all()


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bench.json"
    assert (
        main(["optimum", "planners=grad_mpc:iterations=2,cem:candidates=20:elites=3", "smoke=true", f"json={path}"])
        == 0
    )
    first, second = json.loads(path.read_text())["rows"]
    assert first["problem"] == second["problem"] == "linear-quadratic, 1 actions"
    assert 0.0 < first["share"] <= 1.0
    assert first["scorings"] == 3 * 16 + 1
    assert f"{first['share']:.2f} ({first['scorings']})" in capsys.readouterr().out


def test_a_planner_without_its_policy_is_left_out() -> None:
    linear, valley = rows(["policy_grad_mpc:iterations=2"], ["linear-quadratic, 1 actions", "Rosenbrock"])
    assert linear["share"] > 0.3
    assert valley["share"] is None


def test_a_planner_of_one_step_is_asked_for_all_of_them() -> None:
    (row,) = rows(["policy"], ["linear-quadratic, 6 actions"])
    assert row["share"] > 0.9


def test_bad_planners_are_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'cem'"):
        settings_of("cemm")
    with pytest.raises(UserError, match="candidates"):
        settings_of("cem:candidate=3")
    with pytest.raises(UserError, match="leave horizon out"):
        rows(["cem:horizon=3:candidates=20:elites=3"], ["linear-quadratic, 1 actions"])
