"""L-BFGS on actions and the mean of a basin, against values worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_wm.planning.quasi_newton import QuasiNewton
from lightning_wm.planning.search import Search
from lightning_wm.planning.selection import choose
from lightning_wm.protocols import Problem
from tests.problems import DoubleWell, generators, linear_quadratic
from tests.test_planner_contract import build, equipped

D = torch.float64
NEWTON = {"optimiser": "lbfgs", "bound": "clip", "step_size": 0.3, "iterations": 24, "candidates": 8}


def rows(*values: float) -> Tensor:
    """One environment, a candidate per value, one action: `[1, N, 1, 1]`."""
    return torch.tensor(values, dtype=D).view(1, -1, 1, 1)


def test_the_second_step_on_a_parabola_is_newtons() -> None:
    """Score -2 (a - 0.3)^2 from 0: a first step of the radius 0.1, then, with the curvature seen, right to 0.3.

    The step of 0.2 is longer than the radius; a second candidate from 0.25 is within it.
    """

    def see(climb: QuasiNewton, at: Tensor) -> None:
        climb.see(at, -2 * (at - 0.3).square().view(1, -1), -4 * (at - 0.3))

    start = rows(0.0, 0.25)
    climb = QuasiNewton(start, 0.1, bounded=True)
    see(climb, start)
    assert climb.next().flatten().tolist() == pytest.approx([0.1, 0.35])
    see(climb, climb.next())  # 0.35 is no better than 0.25: taken back
    assert climb.best.flatten().tolist() == pytest.approx([0.1, 0.25])
    assert climb.next().flatten().tolist() == pytest.approx([0.2, 0.275])  # the radius; a quarter of the step
    see(climb, climb.next())
    assert climb.next().flatten().tolist() == pytest.approx([0.3, 0.3])


def test_an_action_at_its_bound_stands_still_and_the_others_go_on() -> None:
    start = torch.tensor([1.0, 0.0], dtype=D).view(1, 1, 2, 1)
    climb = QuasiNewton(start, 0.1, bounded=True)
    climb.see(start, torch.zeros(1, 1, dtype=D), torch.tensor([50.0, 1.0], dtype=D).view(1, 1, 2, 1))
    moved = climb.next().flatten().tolist()
    assert moved[0] == 1.0
    assert moved[1] > 1e-3


def test_a_score_that_is_not_finite_is_taken_back() -> None:
    start = rows(0.0)
    climb = QuasiNewton(start, 0.1, bounded=True)
    climb.see(start, torch.zeros(1, 1, dtype=D), rows(1.0))
    climb.see(climb.next(), torch.full((1, 1), -torch.inf, dtype=D), rows(0.0))
    assert climb.best.item() == 0.0
    assert climb.next().item() == pytest.approx(0.025)
    lost = QuasiNewton(start, 0.1, bounded=True)
    lost.see(start, torch.full((1, 1), -torch.inf, dtype=D), rows(0.0))
    assert lost.next().item() == 0.0


@pytest.mark.parametrize("action", [1, 6, 30, 50, 100])
def test_one_set_of_settings_for_any_number_of_actions(action: int) -> None:
    """The worst of three starts closes nine tenths of the gap to the optimum, in 25 scorings of eight candidates."""
    lq = linear_quadratic(action)
    plan = build("grad_mpc", horizon=12, execute="basin", **NEWTON).plan(lq.problem, lq.state, None, generators(3))
    assert (lq.share(plan["actions"]) > 0.9).all()
    assert plan["stats", "model_steps"][0] == (25 * 8 + 7 + 1) * 12


@pytest.mark.parametrize("name", ["icem", "mppi", "cem_gd", "random_shooting", "grad_mpc", "policy_grad_mpc"])
def test_no_planner_ends_below_doing_nothing(name: str) -> None:
    lq = linear_quadratic(50)
    plan = build(name, horizon=12).plan(equipped(name, lq.problem), lq.state, None, generators(3))
    assert (lq.share(plan["actions"]) >= 0).all()


def test_the_mean_of_a_basin_is_not_between_peaks() -> None:
    """Concave score -(a^2 - 0.25)^2 near its peaks at +-0.5: three plans at one and two at the other."""
    peaks = Problem(1, lambda state, action, _: {"x": action}, lambda s: -(s["x"][:, 0].square() - 0.25).square())
    search = Search(peaks, {"x": torch.zeros(1, 1, dtype=D)}, generators(1), 1)
    plans = rows(0.45, 0.5, 0.56, -0.52, -0.47)
    score = search.score(plans)
    assert choose(search, plans, score, "basin", None)[0].item() == pytest.approx((0.45 + 0.5 + 0.56) / 3)
    assert choose(search, plans, score, "basin", 2)[0].item() == pytest.approx(0.5)  # the other is at the far peak
    assert abs(choose(search, plans, score, "mean", 5)[0].item()) < 0.2
    broken = score.clone()
    broken[0, 0] = -torch.inf
    assert choose(search, plans, broken, "basin", None)[0].item() == pytest.approx((0.5 + 0.56) / 2)


def test_a_single_candidate_has_no_basin() -> None:
    with pytest.raises(ValueError, match=r"planner\.execute=basin: .* type planner\.execute=best"):
        build("grad_mpc", execute="basin", candidates=1)
    with pytest.raises(ValueError, match=r"basin: planner\.elites=1, a single candidate, has no neighbours"):
        build("random_shooting", execute="basin")


def test_the_far_peak_is_reached_and_kept() -> None:
    """Where candidates climb both peaks of the double well, the plan ends on the higher one."""
    well = DoubleWell()
    planner = build("grad_mpc", execute="basin", **{**NEWTON, "candidates": 32}, init_std=1.0, colour=2.0)
    plan = planner.plan(well.problem, well.state, None, generators(2))
    end = well.state["x"][:, 0] + 0.4 * plan["actions"][..., 0].sum(1)
    assert end.tolist() == pytest.approx([1.5] * 2, abs=0.15)
