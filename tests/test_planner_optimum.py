"""How far each planner gets on problems whose answer is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_wm.planners.mppi import weights
from lightning_wm.planning import starts
from lightning_wm.planning.gaussian import fit
from lightning_wm.planning.selection import average
from lightning_wm.protocols import Problem, State
from tests.problems import DoubleWell, generators, linear_quadratic
from tests.test_planner_contract import SEARCHING, build, equipped

CLIMB = {"execute": "best", "iterations": 100, "optimiser": "sgd", "bound": "clip", "step_size": 0.02}
TANH: dict[str, Any] = {"optimiser": "adam", "bound": "tanh"}
ADAM = TANH | {"execute": "best", "iterations": 200, "step_size": 0.1, "decay": 0.01, "zero": True}

BUDGETS: list[tuple[str, int, dict[str, Any], float]] = [
    # planner, action dimensions, settings, share of the way from doing nothing to the optimum
    ("grad_mpc", 1, CLIMB, 0.99),
    ("grad_mpc", 6, CLIMB, 0.99),
    ("grad_mpc", 30, CLIMB, 0.99),
    ("grad_mpc", 1, ADAM, 0.99),
    ("grad_mpc", 6, ADAM, 0.99),
    ("grad_mpc", 30, ADAM, 0.99),
    ("cem_gd", 6, {"steps": 200, "decay": 0.01}, 0.95),
    ("cem_gd", 30, {"steps": 200, "decay": 0.01}, 0.95),
    ("cem", 6, {}, 0.6),
    ("collocation", 1, {}, 0.95),
    ("collocation", 6, {"iterations": 100, "penalty": 5.0}, 0.9),
    ("collocation", 30, {"iterations": 100, "penalty": 5.0}, 0.9),
    ("icem", 1, {"colour": 0.5, "iterations": 10}, 0.9),
    ("mppi", 1, {"temperature": 10.0}, 0.5),
    ("random_shooting", 1, {}, 0.0),
]
DEFAULT: tuple[dict[str, Any], float] = ({}, 0.5)
"""The row of a planner that has none: with its own settings, half of the way at one action dimension."""

ROWS = BUDGETS + [(name, 1, *DEFAULT) for name in SEARCHING if name not in {row[0] for row in BUDGETS if row[1] == 1}]


@pytest.mark.parametrize(("name", "action", "settings", "share"), ROWS)
def test_share_of_the_known_optimum(name: str, action: int, settings: dict[str, Any], share: float) -> None:
    lq = linear_quadratic(action)
    plan = build(name, horizon=12, **settings).plan(equipped(name, lq.problem), lq.state, None, generators(3))
    reached = lq.share(plan["actions"])
    assert (reached > share).all(), reached.tolist()
    assert (reached <= 1 + 1e-9).all()  # or the optimum is none


def test_the_optimum_is_one() -> None:
    """Its bounds are inactive and no small change improves on it."""
    lq = linear_quadratic(6)
    best = lq.optimum(12).requires_grad_()
    (gradient,) = torch.autograd.grad(lq.value(best).sum(), best)
    assert gradient.abs().max() < 1e-9
    assert 0.5 < best.abs().max() < 0.75
    assert lq.share(best.detach()).tolist() == pytest.approx([1.0] * 3)


def test_a_single_climb_is_stuck_where_several_are_not() -> None:
    """From zero actions the gradient leads to the near peak; smooth starts that spread out find the far one."""
    well = DoubleWell()

    def end(**settings: Any) -> list[float]:
        planner = build("grad_mpc", **TANH, iterations=25, **settings)
        plan = planner.plan(well.problem, well.state, None, generators(2))
        return (well.state["x"][:, 0] + 0.4 * plan["actions"][..., 0].sum(1)).tolist()

    assert end(candidates=1, init_std=1e-3, decay=0.1, step_size=0.1) == pytest.approx([-0.5] * 2, abs=0.1)
    smooth = {"candidates": 32, "step_size": 0.3, "init_std": 1.0, "colour": 2.0, "decay": 0.1}
    assert end(**smooth, execute="best") == pytest.approx([1.5] * 2, abs=0.15)
    # The mean of candidates that climbed different peaks lies between the peaks.
    assert max(end(**smooth, execute="mean")) < 1.35


@pytest.mark.parametrize("colour", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("horizon", [12, 13])
def test_coloured_noise_has_unit_variance_and_its_spectrum(colour: float, horizon: int) -> None:
    one = generators(1)
    noise = starts.noise(20_000, horizon, 1, one, torch.zeros(1, dtype=torch.float64), colour)[0, :, :, 0]
    assert noise.var(0).tolist() == pytest.approx([1.0] * horizon, rel=0.05)
    power = torch.fft.rfft(noise).abs().square().mean(0)[1 : (horizon + 1) // 2]
    frequency = torch.arange(1, len(power) + 1, dtype=torch.float64)
    assert (power * frequency**colour / power[0]).tolist() == pytest.approx([1.0] * len(power), rel=0.06)


def test_white_noise_of_a_row_is_its_generators() -> None:
    noise = starts.noise(2, 3, 4, generators(2), torch.zeros(1))
    assert torch.equal(noise[1], torch.randn(2, 3, 4, generator=generators(2)[1]))


def test_fit_by_hand() -> None:
    """Plans 0 and 1 with weights 1 and 3: mean 3/4, variance 3/16; a row without weights keeps what it had."""
    elites = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1).expand(2, -1, -1, -1)
    old = torch.full((2, 1, 1), 7.0)
    mean, std = fit(elites, torch.tensor([[1.0, 3.0], [0.0, 0.0]]), old, old)
    assert mean.flatten().tolist() == pytest.approx([0.75, 7.0])
    assert std.flatten().tolist() == pytest.approx([(3 / 16) ** 0.5, 7.0])
    assert average(elites[:1, :1], torch.ones(1, 1)).item() == 0


def test_one_elite_is_no_nan() -> None:
    lq = linear_quadratic(1)
    for name in ("cem", "icem", "mppi", "cem_gd"):
        plan = build(name, horizon=12, elites=1, candidates=64).plan(lq.problem, lq.state, None, generators(3))
        assert plan["actions"].isfinite().all()
        assert (lq.share(plan["actions"]) > 0).all()


@pytest.mark.parametrize("climbers", [1, 2, 4])
def test_no_two_climbers_are_one_plan(climbers: int) -> None:
    """The best plan of the search is mostly the best of its last iteration."""
    lq = linear_quadratic(6, environments=20)
    planner = build("cem_gd", climbers=climbers, steps=1, step_size=1e-6)
    climbed = planner.plan(lq.problem, lq.state, None, generators(20))["candidates", "action"].flatten(2)
    number = max(2, climbers)
    apart = torch.cdist(climbed, climbed) + torch.eye(number)
    assert apart.shape == (20, number, number)
    assert apart.min() > 0.01


def test_weights_survive_any_score() -> None:
    """exp(T * score) overflows at 100 a step; with the maximum subtracted the best weighs 1."""
    score = torch.tensor([[1e4, 1e4 - 2, -torch.inf], [-torch.inf] * 3])
    assert weights(score, 0.5)[0].tolist() == pytest.approx([1.0, 0.36788, 0.0], rel=1e-4)
    assert weights(score, 0.5)[1].tolist() == [0.0, 0.0, 0.0]


def test_patience_stops_each_environment_by_itself() -> None:
    """A row at its optimum stands still while the others go on; alone it costs fewer steps."""
    lq = linear_quadratic(1)
    planner = build("grad_mpc", horizon=12, iterations=60, patience=3, step_size=0.3, decay=0.1, **TANH)
    plan = planner.plan(lq.problem, lq.state, None, generators(3))
    assert plan["stats", "model_steps"][0] < 61 * planner.config.candidates * 12
    for e in range(3):
        state = {key: value[e : e + 1] for key, value in lq.state.items()}
        alone = planner.plan(lq.problem, state, None, [generators(3)[e]])
        assert torch.allclose(alone["actions"][0], plan["actions"][e], rtol=0, atol=1e-9)


@pytest.mark.parametrize("bound", ["tanh", "clip"])
@pytest.mark.parametrize(
    "settings", [{"normalise": True}, {"clip_norm": 0.1}, {"noise": 0.1}, {"optimiser": "sgd"}, {"optimiser": "lbfgs"}]
)
def test_each_way_to_climb_improves_and_stays_in_bounds(bound: str, settings: dict[str, Any]) -> None:
    lq = linear_quadratic(2)
    planner = build("grad_mpc", **{"optimiser": "adam", "step_size": 0.05, "iterations": 30, **settings}, bound=bound)
    plan = planner.plan(lq.problem, lq.state, None, generators(3))
    assert (plan["stats", "score_best"] > plan["stats", "score_first"]).all()
    assert plan["candidates", "action"].abs().max() <= 1


def test_normalising_and_clipping_by_hand() -> None:
    """Gradient (3, 4): root mean square 3.5355, norm 5; the other candidate, 100 times larger, changes nothing."""
    how = build("grad_mpc", normalise=True).config
    gradient = torch.tensor([[3.0, 4.0], [300.0, 400.0]]).view(1, 2, 2, 1)
    assert how.scaled(gradient).flatten().tolist() == pytest.approx([0.848528, 1.131371] * 2)
    how = build("grad_mpc", clip_norm=1.0).config
    assert how.scaled(gradient).flatten().tolist() == pytest.approx([0.6, 0.8] * 2)
    assert how.scaled(gradient / 1000)[0, 0].flatten().tolist() == pytest.approx([0.003, 0.004])


def test_collocation_leaves_what_a_state_carries_alone() -> None:
    """A goal that the reward is measured from is part of the state; the model is never called with another goal.

    A goal that could move would be the cheapest way to the reward. The mass has one entry that is used up in a step.
    """
    goal = torch.tensor([[1.0, -0.5], [-0.8, 0.3]], dtype=torch.float64)
    state = {"x": torch.zeros_like(goal), "goal": goal, "mass": torch.ones_like(goal)}
    seen: dict[str, list[Tensor]] = {"x": [], "goal": [], "mass": []}

    def imagine(state: State, action: Tensor, noise: Tensor | None = None) -> State:
        for name, values in seen.items():
            values.append(state[name].detach().unflatten(0, (-1, 2, 6)) if len(state[name]) > 12 else state[name])
        used = state["mass"] - torch.tensor([0.0, 0.1], dtype=torch.float64) * state["mass"][:, :1]
        return {"x": state["x"] + 0.4 * action * state["mass"][:, :1], "goal": state["goal"], "mass": used}

    problem = Problem(2, imagine, lambda s: -(s["x"] - s["goal"]).square().sum(1))
    planner = build("collocation", horizon=5, candidates=6, iterations=4, state_noise=0.2, state_step=0.1)
    plan = planner.plan(problem, state, None, generators(2))
    relaxed = {name: torch.stack([value for value in values if value.ndim == 4]) for name, values in seen.items()}
    assert relaxed["x"].shape == (4, 5, 2, 6, 2)  # one call for all steps in each iteration
    assert (relaxed["goal"] == goal[:, None]).all()
    assert (relaxed["mass"][..., 0] == 1).all()
    free = relaxed["mass"][:, 1:, ..., 1]  # disturbed, and so no longer the same in all candidates
    assert (free[1:].std(-1) > 0).all()
    assert (relaxed["x"][1:, 1:].std(-2) > 0).all()
    reached = 0.4 * plan["actions"][:, :3].sum(1)
    assert torch.allclose(reached, goal, atol=0.15)
