"""What holds for every registered planner; a new one is tested by being registered."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_wm import registry
from lightning_wm.planning import Objective, problem_of
from lightning_wm.planning.base import PREVIOUS
from lightning_wm.protocols import ORIGINS, Problem, State
from tests.problems import DoubleWell, arbitrary_policy, generators, linear_quadratic, recurrent

PLANNERS = registry.names("planner")
SMALL = {"horizon": 5, "iterations": 3, "candidates": 12, "elites": 4}
every_planner = pytest.mark.parametrize("name", PLANNERS)
SEARCHING = [name for name in PLANNERS if name not in ("random", "policy")]
"""Planners that score plans."""
with_a_model = pytest.mark.parametrize("name", SEARCHING)


def build(name: str, **changes: Any) -> Any:
    """A planner with those of the changes that its Config has."""
    cls = registry.lookup("planner", name)
    known = {field.name for field in fields(cls.Config)}
    if name == "policy" and changes.get("execute") == "best":  # there is nothing to choose from
        changes = {**changes, "execute": "mean"}
    return cls(replace(cls.Config(), **{key: value for key, value in changes.items() if key in known}))


def equipped(name: str, problem: Problem) -> Problem:
    """The problem with a policy, where the planner cannot do without."""
    if not registry.lookup("planner", name).needs_policy:
        return problem
    return replace(problem, policy=arbitrary_policy(problem.action))


def having(field: str) -> list[str]:
    """Names of the planners whose Config has a field."""
    configs = {name: registry.lookup("planner", name).Config for name in PLANNERS}
    return [name for name, config in configs.items() if field in {one.name for one in fields(config)}]


def rows(state: State, *index: int) -> State:
    """Those rows of a state."""
    return {name: value[list(index)] for name, value in state.items()}


@pytest.fixture(scope="module")
def model() -> Any:
    """A random recurrent model in float64."""
    return recurrent()


@every_planner
def test_keys_and_shapes(name: str, model: Any) -> None:
    planner = build(name, **SMALL)
    plan = planner.plan(equipped(name, problem_of(model)), model.initial(3), None, generators(3))
    horizon = planner.config.horizon
    count = plan["candidates"].shape[1]
    assert plan.batch_size == (3,)
    assert plan["candidates"].batch_size == (3, count)
    assert plan["action"].shape == (3, 2)
    assert plan["actions"].shape == (3, horizon, 2)
    assert torch.equal(plan["action"], plan["actions"][:, 0])
    assert plan["candidates", "action"].shape == (3, count, horizon, 2)
    assert plan["candidates", "score"].shape == plan["candidates", "origin"].shape == (3, count)
    assert plan["candidates", "origin"].dtype == torch.int64
    assert plan["candidates", "origin"].min() >= 0
    assert plan["candidates", "origin"].max() < len(ORIGINS)
    scores = {"score_first", "score_best"}
    assert set(plan["stats"].keys()) == scores | {"model_steps", "sequential_calls", "fallback", "by_policy"}
    assert plan["memory", "valid"].all()
    assert not plan["stats", "fallback"].any()
    assert not any(value.requires_grad or value.is_inference() for value in plan.flatten_keys(".").values())
    empty = planner.memory(3, 2, plan["action"])
    assert not empty["valid"].any()
    assert empty.batch_size == (3,)
    assert {key: value.shape for key, value in empty.items()} == {k: v.shape for k, v in plan["memory"].items()}


@every_planner
def test_model_steps_are_what_the_model_saw(name: str, model: Any) -> None:
    seen = {"rows": 0, "calls": 0}

    def imagine(state: State, action: Tensor, noise: Tensor | None = None) -> State:
        seen["rows"] += len(action)
        seen["calls"] += 1
        return model.imagine(state, action, noise)

    problem = equipped(name, replace(problem_of(model), imagine=imagine))
    plan = build(name, **SMALL).plan(problem, model.initial(2), None, generators(2))
    assert plan["stats", "model_steps"].sum() == seen["rows"]
    assert plan["stats", "sequential_calls"].tolist() == [seen["calls"]] * 2


@every_planner
@pytest.mark.parametrize("execute", ["best", "mean", "sample"])
def test_actions_stay_inside_the_bounds(name: str, execute: str) -> None:
    """The reward pulls to infinity, the policy lies outside; steps and spreads are far too large."""
    problem = Problem(
        action=2,
        imagine=lambda s, a, n=None: {"x": s["x"] + a},
        reward=lambda s: 1e3 * s["x"].sum(1),
        policy=lambda s: torch.distributions.Normal(0 * s["x"] + 3.0, 10.0),
    )
    planner = build(name, **SMALL, execute=execute, init_std=10.0, step_size=50.0)
    memory = None
    for decision in range(3):
        plan = planner.plan(problem, {"x": torch.zeros(4, 2)}, memory, generators(4, decision))
        for actions in (plan["action"], plan["actions"], plan["candidates", "action"]):
            assert actions.abs().max() <= 1
        memory = plan["memory"]


@every_planner
@pytest.mark.parametrize("latents", ["mean", "sample"])
def test_environments_are_independent(name: str, latents: str, model: Any) -> None:
    """Row e of a batch of three equals the row alone, over two decisions with a warm start."""
    planner = build(name, **SMALL, latents=latents)
    problem = equipped(name, problem_of(model, Objective(continues=True)))
    # Adam divides by 1e-8 and more: where a gradient is nearly 0, the last digit of a processor becomes 1e-9 a step.
    close = 1e-8 if name == "collocation" else 1e-9
    state = model.initial(3)
    memory = None
    alone: list[Any] = [None] * 3
    for decision in range(2):
        plan = planner.plan(problem, state, memory, generators(3, decision))
        for e in range(3):
            own = planner.plan(problem, rows(state, e), alone[e], [generators(3, decision)[e]])
            for key in ("action", "actions", ("candidates", "action"), ("stats", "score_best")):
                assert torch.allclose(plan[key][e], own[key][0], rtol=0, atol=close), (decision, e, key)
            alone[e] = own["memory"]
        memory = plan["memory"]


@every_planner
def test_equal_generators_equal_plans_and_others_other(name: str, model: Any) -> None:
    planner = build(name, **SMALL, **({"execute": "sample"} if name == "policy" else {}))
    problem, state = equipped(name, problem_of(model)), model.initial(2)
    first, again, other = (planner.plan(problem, state, None, generators(2, k)) for k in (0, 0, 1))
    assert torch.equal(first["candidates", "action"], again["candidates", "action"])
    assert torch.equal(first["action"], again["action"])
    assert not torch.equal(first["candidates", "action"], other["candidates", "action"])


@every_planner
def test_global_random_state_is_neither_read_nor_written(name: str, model: Any) -> None:
    planner, state = build(name, **SMALL, latents="sample"), model.initial(2)
    problem = equipped(name, problem_of(model))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = planner.plan(problem, state, None, generators(2))
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(first["actions"], planner.plan(problem, state, None, generators(2))["actions"])


@pytest.mark.parametrize("name", having("warm_start"))
def test_warm_start_acts(name: str) -> None:
    """Starting from the optimum of the last decision shows in the first score, in the valid rows only."""
    effort = {"horizon": 12, "iterations": 2, "candidates": 8, "elites": 2}
    planner = build(name, **effort, warm_start=True)
    lq = linear_quadratic(1, environments=4)
    memory = planner.memory(4, 1, lq.start)
    memory["actions"] = lq.optimum(12)
    memory["valid"] = torch.tensor([True, True, True, False])

    def first(planner: Any, memory: Any) -> Tensor:
        return planner.plan(equipped(name, lq.problem), lq.state, memory, generators(4))["stats", "score_first"]

    cold = first(planner, None)
    assert (first(planner, memory) > cold).tolist() == [True, True, True, False]
    assert torch.allclose(first(planner, memory)[3], cold[3])
    ignoring = build(name, **effort, warm_start=False)
    assert torch.equal(first(ignoring, memory), first(ignoring, None))


@every_planner
@pytest.mark.parametrize("replan", [1, 3])
def test_memory_is_shifted_by_what_is_executed(name: str, replan: int, model: Any) -> None:
    # Those that fit a distribution remember its mean, whatever is executed.
    planner = build(name, **SMALL, execute="mean" if name in ("cem", "icem", "mppi") else "best", replan=replan)
    plan = planner.plan(equipped(name, problem_of(model)), model.initial(2), None, generators(2))
    remembered = plan["memory"]["actions"]
    assert remembered.shape == plan["actions"].shape
    assert torch.equal(remembered[:, :-replan], plan["actions"][:, replan:])
    assert torch.equal(remembered[:, planner.config.horizon - replan :], torch.zeros_like(remembered[:, -replan:]))


def _holes(value: float) -> Problem:
    """The reward grows with the action, but is not a number wherever an action is above 0.1."""

    def reward(state: State) -> Tensor:
        return torch.where(state["bad"], value, state["x"].sum(1))

    def imagine(state: State, action: Tensor, noise: Tensor | None = None) -> State:
        return {"x": action + 0.0 * state["x"], "bad": state["bad"] | (action > 0.1).any(1)}

    return Problem(action=1, imagine=imagine, reward=reward)


@with_a_model
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("execute", ["best", "mean", "sample"])
def test_candidates_that_are_not_finite_are_never_chosen(name: str, value: float, execute: str) -> None:
    state = {"x": torch.zeros(3, 1), "bad": torch.zeros(3, dtype=torch.bool)}
    planner = build(name, horizon=2, iterations=3, candidates=32, elites=4, execute=execute)
    plan = planner.plan(equipped(name, _holes(value)), state, None, generators(3))
    assert not plan["stats", "fallback"].any()
    assert plan["actions"].isfinite().all()
    assert (plan["actions"] <= 0.1).all()
    assert plan["stats", "score_best"].isfinite().all()
    assert not plan["candidates", "score"].isnan().any()


@with_a_model
def test_nothing_finite_falls_back_and_says_so_once(name: str, model: Any) -> None:
    """Row 1 is broken, row 0 is not: only row 1 falls back, to zeros or to the policy."""
    state = model.initial(2)
    state["deter"][1] = float("nan")
    problem = equipped(name, problem_of(model))
    planner = build(name, **SMALL)
    with pytest.warns(RuntimeWarning, match="no candidate's score is finite in 1 of 2"):
        plan = planner.plan(problem, state, None, generators(2))
    assert plan["stats", "fallback"].tolist() == [False, True]
    assert plan["stats", "by_policy"][1] == (problem.policy is not None)
    assert plan["memory", "valid"].tolist() == [True, False]
    expected = torch.zeros(2) if problem.policy is None else problem.policy(state).mean[1]
    assert torch.equal(plan["action"][1], expected.to(plan["action"]))
    assert plan["actions"][1, 1:].abs().max() == 0
    assert plan["actions"][0].abs().max() > 0
    acting = replace(problem, policy=lambda s: torch.distributions.Normal(s["stoch"][:, :2] * 0 + 0.25, 1.0))
    plan = planner.plan(acting, state, plan["memory"], generators(2, 1))  # no second warning
    assert plan["action"][1].tolist() == [0.25, 0.25]
    assert not plan["stats", "fallback"][0]
    own = planner.plan(problem, rows(model.initial(2), 0), None, generators(1))
    first = build(name, **SMALL).plan(problem, rows(state, 0), None, generators(1))
    assert torch.allclose(own["action"], first["action"])


@with_a_model
def test_execute_best_is_never_worse_than_the_best_start(name: str) -> None:
    """Steps so large that refining alone would make things worse."""
    planner = build(name, **SMALL, execute="best", step_size=5.0)
    lq = linear_quadratic(2, environments=6)
    plan = planner.plan(equipped(name, lq.problem), lq.state, None, generators(6))
    assert (plan["stats", "score_best"] >= plan["stats", "score_first"]).all()
    assert torch.allclose(plan["stats", "score_best"], lq.value(plan["actions"]))


@with_a_model
@pytest.mark.parametrize("execute", ["best", "mean", "sample"])
def test_score_best_is_that_of_what_is_executed(name: str, execute: str) -> None:
    lq = linear_quadratic(2, environments=3)
    plan = build(name, **SMALL, execute=execute).plan(equipped(name, lq.problem), lq.state, None, generators(3))
    assert torch.allclose(plan["stats", "score_best"], lq.value(plan["actions"]))


@every_planner
def test_every_gradient_mode_gives_the_same(name: str, model: Any) -> None:
    planner, problem = build(name, **SMALL), equipped(name, problem_of(model))
    plans = []
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            state = {key: value.clone() for key, value in model.initial(2).items()}
            plans.append(planner.plan(problem, state, planner.memory(2, 2, state["deter"]), generators(2)))
    for plan in plans[1:]:
        assert torch.equal(plans[0]["actions"], plan["actions"])
        assert torch.equal(plans[0]["candidates", "score"], plan["candidates", "score"])


@every_planner
def test_the_model_is_left_alone(name: str, model: Any) -> None:
    """No gradient appears, none that is there changes, nothing is written into the state."""
    state = model.initial(2)
    kept = {key: value.clone() for key, value in state.items()}
    weights = [weight.clone() for weight in model.parameters()]
    marked = next(model.parameters())
    marked.grad = torch.ones_like(marked)
    build(name, **SMALL).plan(equipped(name, problem_of(model)), state, None, generators(2))
    assert torch.equal(marked.grad, torch.ones_like(marked))
    marked.grad = None
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    assert all(torch.equal(kept[key], state[key]) for key in state)


@every_planner
def test_one_generator_per_environment(name: str, model: Any) -> None:
    with pytest.raises(ValueError, match="2 generators for 3 environments"):
        build(name, **SMALL).plan(equipped(name, problem_of(model)), model.initial(3), None, generators(2))


WRONG = {
    "horizon": 0, "iterations": 0, "candidates": 0, "elites": 10_000, "execute": "worst", "replan": 99,
    "latents": "median", "init_std": 0.0, "step_size": -1.0, "optimiser": "newton", "bound": "none",
}  # fmt: skip


@pytest.mark.parametrize(("field", "name"), [(field, name) for field in WRONG for name in having(field)])
def test_a_wrong_field_is_named(field: str, name: str) -> None:
    with pytest.raises(ValueError, match=rf"planner\.{field}={WRONG[field]}: .*"):
        registry.lookup("planner", name).Config(**{field: WRONG[field]})


@every_planner
def test_the_name_comes_first_and_is_its_own(name: str) -> None:
    config = registry.lookup("planner", name).Config
    assert fields(config)[0].name == "name"
    assert config().name == name


def test_the_well_is_double() -> None:
    """A single greedy climb ends at the near peak."""
    well = DoubleWell(1)
    at = {"x": torch.tensor([[-0.5], [1.5], [0.5]], dtype=torch.float64)}
    assert well.reward(at).tolist() == pytest.approx([1.0, 3.0, 0.0], abs=2e-3)


@pytest.mark.parametrize(("candidates", "kept", "better"), [(1, 0, 1), (5, 2, 3), (12, 5, 3)])
def test_icem_draws_beside_what_it_keeps(candidates: int, kept: int, better: int) -> None:
    """Were every candidate a kept one, an iteration would score what is known already."""
    lq = linear_quadratic(1)
    planner = build("icem", horizon=6, candidates=candidates, elites=min(candidates, 5), keep=5, iterations=8)
    assert planner.config.kept() == kept
    stats = planner.plan(lq.problem, lq.state, None, generators(3))["stats"]
    assert (stats["score_best"] > stats["score_first"]).sum() >= better


def test_a_deviation_has_its_floor_below_its_ceiling() -> None:
    with pytest.raises(ValueError, match=r"planner\.min_std=0\.05: above planner\.init_std=0\.01"):
        build("mppi", init_std=0.01)


def test_a_single_candidate_is_the_previous_plan() -> None:
    """Zero actions take no slot of their own where there is but one."""
    lq = linear_quadratic(1)
    planner = build("grad_mpc", horizon=6, candidates=1, zero=True, execute="best", iterations=1)
    first = planner.plan(lq.problem, lq.state, None, generators(3))
    again = planner.plan(lq.problem, lq.state, first["memory"], generators(3))
    assert again["candidates", "origin"].unique().tolist() == [PREVIOUS]
