"""What is executed where a peak found by many stands beside a single plan's: against values worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lightning_wm.benchmarks.optimum import PROBLEMS, rows
from lightning_wm.planning.search import Search
from lightning_wm.planning.selection import choose
from lightning_wm.protocols import Problem
from tests.problems import generators
from tests.test_planner_contract import build

D = torch.float64
PLANS = (0.5, -0.52, -0.5, -0.47)


def peaks(spread: float) -> Problem:
    """Score -(a^2 - 0.25)^2 + 0.01 a plus `spread` times a standard normal: peaks near 0.5 (higher) and -0.5."""

    def imagine(state: dict[str, Tensor], action: Tensor, noise: Tensor | None) -> dict[str, Tensor]:
        return {"x": action + 0 * state["x"], "n": torch.zeros_like(action) if noise is None else noise}

    def reward(state: dict[str, Tensor]) -> Tensor:
        x = state["x"][:, 0]
        return -(x.square() - 0.25).square() + 0.01 * x + spread * state["n"][:, 0]

    def noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.randn(*shape, 1, generator=generator)

    return Problem(1, imagine, reward, noise=noise)


def search(problem: Problem, environments: int = 1) -> Search:
    """One step from nowhere."""
    nowhere = torch.zeros(environments, 1, dtype=D)
    return Search(problem, {"x": nowhere, "n": nowhere}, generators(environments), 1)


def vote(spread: float, plans: tuple[float, ...] = PLANS, elites: int | None = None) -> float:
    """The action that is executed of these plans."""
    looked = search(peaks(spread))
    candidates = torch.tensor(plans, dtype=D).view(1, -1, 1, 1)
    return choose(looked, candidates, looked.score(candidates), "vote", elites)[0].item()


def test_doubt_is_the_deviation_over_draws_of_the_latents() -> None:
    looked = search(peaks(0.3), environments=2)
    drawn = [torch.randn(1, 8, 1, generator=one)[0, :, 0] for one in generators(2)]
    doubt = looked.doubt(torch.tensor([0.5, -0.2], dtype=D).view(2, 1, 1))
    assert doubt.tolist() == pytest.approx([0.3 * row.std().item() for row in drawn])
    assert looked.model_steps == 8
    silent = search(replace(peaks(0.3), noise=None))
    assert silent.doubt(torch.zeros(1, 1, 1, dtype=D)).tolist() == [0.0]


def test_a_plan_that_is_not_finite_leaves_no_doubt() -> None:
    broken = replace(peaks(0.3), reward=lambda state: state["n"][:, 0] / 0)
    assert search(broken).doubt(torch.zeros(1, 1, 1, dtype=D)).tolist() == [0.0]


def test_without_doubt_the_best_ones_peak_is_executed() -> None:
    """Three plans on the other peak count for nothing: the model is sure."""
    assert vote(0.0) == pytest.approx(0.5)
    assert vote(0.0, (0.48, 0.54, -0.52, -0.5, -0.47)) == pytest.approx(0.51)


def test_what_the_model_cannot_tell_apart_is_decided_by_number() -> None:
    """Half-way between the peaks the score lacks 0.06, the lower peak 0.01.

    With a doubt of about 0.02 three votes of exp(-0.01 / 0.02) = 0.6 are more than one, with 0.002 they are nothing,
    and with 0.2 there is one peak.
    """
    assert vote(0.02) == pytest.approx((-0.52 - 0.5 - 0.47) / 3)
    assert vote(0.002) == pytest.approx(0.5)
    assert vote(0.2) == pytest.approx(sum(PLANS) / 4)
    assert vote(0.02, elites=2) == pytest.approx(0.5)  # one vote against one, and the lower counts less


def test_the_better_half_is_averaged_where_the_others_would_drag_it_back() -> None:
    """0.3 is on the peak (-0.006 half-way to 0.48, -0.009 the mean of both ends), and a mean with it is worth less."""
    assert vote(0.0, (0.48, 0.3, 0.53)) == pytest.approx(0.505)  # worth 0.0050; of all 0.0009; 0.48 alone 0.0044
    assert vote(0.0, (0.53, 0.44, 0.57, 0.48)) == pytest.approx(0.505)  # of all as of the better half
    assert vote(0.0, (0.53, 0.45, 0.54)) == pytest.approx((0.53 + 0.45 + 0.54) / 3)  # 0.535 without the worst


def test_candidates_that_are_not_finite_have_no_vote() -> None:
    looked = search(peaks(0.02))
    candidates = torch.tensor(PLANS, dtype=D).view(1, -1, 1, 1)
    score = looked.score(candidates)
    score[0, 1:3] = -torch.inf
    assert choose(looked, candidates, score, "vote", None)[0].item() == pytest.approx(0.5)  # 1 against 0.6
    score[:] = -torch.inf
    assert choose(looked, candidates, score, "vote", None)[0].isfinite().all()


def test_a_single_candidate_is_executed_without_asking() -> None:
    plan = build("grad_mpc", candidates=1, iterations=2, horizon=1).plan(
        peaks(0.02), {"x": torch.zeros(1, 1, dtype=D), "n": torch.zeros(1, 1, dtype=D)}, None, generators(1)
    )
    assert plan["actions"].isfinite().all()
    assert plan["stats", "model_steps"].tolist() == [3]


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_defaults_find_known_optima(name: str) -> None:
    """One set of settings from one action to a hundred, round a bend and up from hanging."""
    (row,) = rows(["grad_mpc"], [name])
    assert row["share"] > {"Rosenbrock": 0.85, "pendulum": 0.95}.get(name, 0.9)
    assert row["scorings"] <= 205
