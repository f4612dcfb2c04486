"""Planners that start from a policy: `policy`, `policy_grad_mpc` and its settings `dream_mpc`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from lightning_wm import RSSM, PlaNet, rng
from lightning_wm.config import load
from lightning_wm.errors import ConfigError, UserError
from lightning_wm.fit import main as fit
from lightning_wm.models.rssm import RSSMConfig
from lightning_wm.planners.policy import PolicyOnly, PolicyOnlyConfig
from lightning_wm.planners.policy_grad_mpc import PolicyGradMPC, PolicyGradMPCConfig
from lightning_wm.planning import Objective, problem_of, score
from lightning_wm.planning.base import POLICY, PREVIOUS, RANDOM
from lightning_wm.planning.mix import Mix
from lightning_wm.planning.search import Search
from lightning_wm.planning.terms import TerminalValue
from lightning_wm.protocols import Problem, Spaces, State
from lightning_wm.registry import build as build_part
from tests.problems import arbitrary_policy, generators, linear_quadratic, recurrent
from tests.test_planner_contract import build

FIFTIETH = 12 * 10 * 1000 // 50
"""Model steps: one fiftieth of PlaNet's CEM."""


def drift(state: State, action: Tensor, noise: Tensor | None = None) -> State:
    """x' = x + a."""
    return {"x": state["x"] + action}


def steady(state: State) -> Normal:
    """Always 0.4, give or take 0.1."""
    return Normal(torch.full_like(state["x"], 0.4), 0.1)


FLAT = Problem(action=1, imagine=drift, reward=lambda s: 0.0 * s["x"].sum(1), policy=steady)
"""Nothing is worth more than anything else."""
ORIGIN = {"x": torch.zeros(2, 1)}


# ---- where candidates come from


def test_counts_by_hand() -> None:
    """8 of 1/2, 1/8, 3/8 are 4, 1, 3; of 4 the halves left over go to the first of equal remainders."""
    assert Mix().counts(8) == (4, 1, 3)
    assert Mix().counts(4) == (2, 1, 1)
    assert Mix(1 / 3, 1 / 3, 1 / 3).counts(3) == (1, 1, 1)
    assert Mix(1.0, 0.0, 0.0).counts(5) == (5, 0, 0)
    assert Mix(0.01, 0.19, 0.8).counts(8) == (1, 2, 5)  # not 0, 2, 6: the policy has at least one
    assert Mix(0.0, 0.5, 0.5).counts(3) == (0, 2, 1)


@pytest.mark.parametrize("mix", [Mix(), Mix(0.7, 0.2, 0.1), Mix(0.01, 0.01, 0.98), Mix(0.0, 1.0, 0.0)])
def test_counts_add_up(mix: Mix) -> None:
    for candidates in range(1, 60):
        counts = mix.counts(candidates)
        assert sum(counts) == candidates
        assert min(counts) >= 0
        assert (counts[0] > 0) == (mix.policy > 0)


def test_starts_are_what_they_are_said_to_be() -> None:
    """Policy first (its mode, then samples), then the previous plan, then noise; a cold row has noise instead."""
    planner = PolicyGradMPC(PolicyGradMPCConfig(horizon=3, candidates=8))
    memory = planner.memory(2, 1, ORIGIN["x"])
    memory["actions"] = torch.tensor([0.3, -0.2, 0.0]).view(1, 3, 1).expand(2, -1, -1).clone()
    memory["valid"] = torch.tensor([True, False])
    begun, origin = planner.starts(Search(FLAT, ORIGIN, generators(2), 3), memory)
    assert origin.tolist() == [[POLICY] * 4 + [PREVIOUS] + [RANDOM] * 3, [POLICY] * 4 + [RANDOM] * 4]
    assert begun[:, 0].flatten().tolist() == pytest.approx([0.4] * 6)
    assert (begun[:, 1:4] != 0.4).all()
    assert (begun[:, 1:4] - 0.4).abs().mean() < 0.2  # samples of a policy of spread 0.1
    assert begun[0, 4, :, 0].tolist() == pytest.approx([0.3, -0.2, 0.0])
    assert begun[1, 4, :, 0].tolist() != pytest.approx([0.3, -0.2, 0.0])
    assert begun[:, 4:].std() > 0.3


def test_further_previous_candidates_are_noise_around_it() -> None:
    planner = PolicyGradMPC(PolicyGradMPCConfig(horizon=2, candidates=2001, init_std=0.1, mix=Mix(0.0, 1.0, 0.0)))
    memory = planner.memory(1, 1, ORIGIN["x"])
    memory["actions"][:] = 0.5
    memory["valid"][:] = True
    state = {"x": ORIGIN["x"][:1]}
    begun, origin = planner.starts(Search(replace(FLAT, policy=None), state, generators(1), 2), memory)
    assert (origin == PREVIOUS).all()
    assert begun[0, 0].tolist() == [[0.5], [0.5]]
    assert begun[0, 1:].mean().item() == pytest.approx(0.5, abs=0.01)
    assert begun[0, 1:].std().item() == pytest.approx(0.1, abs=0.01)


def test_noise_on_the_policy_spares_its_mode() -> None:
    config = PolicyGradMPCConfig(horizon=3, candidates=1000, policy_std=0.3, mix=Mix(1.0, 0.0, 0.0))
    begun, _ = PolicyGradMPC(config).starts(Search(FLAT, ORIGIN, generators(2), 3), None)
    assert begun[:, 0].flatten().tolist() == pytest.approx([0.4] * 6)
    assert begun[:, 1:].std().item() == pytest.approx((0.3**2 + 0.1**2) ** 0.5, abs=0.02)


# ---- what refining does


@pytest.mark.parametrize("settings", [{}, {"bound": "tanh"}, {"step_size": 3.0}, {"optimiser": "adam"}])
@pytest.mark.parametrize("action", [1, 6])
def test_refining_the_optimal_policy_is_never_below_it(action: int, settings: dict[str, Any]) -> None:
    """With the value at its end every horizon's optimum is the policy's own rollout, worth x'Px."""
    lq = linear_quadratic(action)
    problem = lq.endless()
    assert problem.value is not None
    plan = build("policy_grad_mpc", execute="best", **settings).plan(problem, lq.state, None, generators(3))
    assert plan["stats", "score_best"].tolist() == pytest.approx(problem.value(lq.state).tolist(), rel=1e-9)
    assert torch.allclose(plan["action"], -lq.start @ lq.riccati()[0].T, atol=1e-6)


SHARES = [
    # action dimensions, share of the best gain that the policy has, share of what it lacks that planning gains
    (1, 0.0, 0.85),
    (1, 0.5, 0.85),
    (6, 0.0, 0.8),
    (6, -0.5, 0.95),
    (30, 0.0, 0.8),
    (30, -0.5, 0.95),
]


@pytest.mark.parametrize(("action", "gain", "share"), SHARES)
def test_share_of_what_a_poor_policy_lacks(action: int, gain: float, share: float) -> None:
    lq = linear_quadratic(action)
    problem = lq.endless(gain)
    assert problem.value is not None
    poor = score(problem, lq.state, PolicyOnly(PolicyOnlyConfig(horizon=12)).plan(
        problem, lq.state, None, generators(3))["actions"])  # fmt: skip
    plan = build("policy_grad_mpc").plan(problem, lq.state, None, generators(3))
    reached = (plan["stats", "score_best"] - poor) / (problem.value(lq.state) - poor)
    assert (reached > share).all(), reached.tolist()
    assert (reached <= 1 + 1e-9).all()  # or the optimum is none


def test_the_policy_wins_ties() -> None:
    """Where the model sees no difference the policy's mode is executed, and every candidate stays what it was."""
    plan = build("policy_grad_mpc", horizon=3, candidates=64, execute="best").plan(FLAT, ORIGIN, None, generators(2))
    assert plan["actions"].flatten().tolist() == pytest.approx([0.4] * 6)
    assert plan["candidates", "score"].abs().max() == 0


def test_tanh_keeps_a_start_at_the_bound() -> None:
    """The best plan is 1 throughout; tanh never reaches it, the policy's start does."""
    problem = replace(FLAT, reward=lambda s: s["x"][:, 0], policy=lambda s: Normal(0 * s["x"] + 2.0, 0.1))
    plan = build("policy_grad_mpc", horizon=3, bound="tanh").plan(problem, ORIGIN, None, generators(2))
    assert plan["actions"].flatten().tolist() == [1.0] * 6
    assert plan["stats", "score_best"].tolist() == [6.0, 6.0]  # 1 + 2 + 3


@pytest.mark.parametrize("name", ["policy_grad_mpc", "dream_mpc"])
def test_a_plan_costs_at_most_a_fiftieth_of_cem(name: str) -> None:
    """Default settings, every call of the model counted, those of the policy's rollouts too."""
    seen = 0

    def imagine(state: State, action: Tensor, noise: Tensor | None = None) -> State:
        nonlocal seen
        seen += len(action)
        return drift(state, action)

    problem = replace(FLAT, imagine=imagine, reward=lambda s: -s["x"].square().sum(1))
    planner = build_part("planner", load(["recipe=quickstart", f"planner={name}"]).config.planner)
    plan = planner.plan(problem, {"x": torch.ones(1, 1)}, None, generators(1))
    assert plan["stats", "model_steps"].tolist() == [seen]
    # Rollouts of P candidates take H-1 steps; N candidates are scored once more than they are improved, a mean once; it
    # and the policy's rollout are compared once, by a model that draws nothing.
    assert seen == {"policy_grad_mpc": 4 * 11 + 6 * 8 * 12 + 12 + 2 * 12, "dream_mpc": 5 * 2 + 2 * 5 * 3}[name]
    assert seen <= FIFTIETH


# ---- Dream-MPC


def test_dream_mpc_is_its_paper() -> None:
    config = load(["recipe=quickstart", "planner.candidates=6", "planner=dream_mpc"]).config.planner
    assert isinstance(config, PolicyGradMPCConfig)
    assert (config.candidates, config.horizon, config.iterations, config.reuse) == (6, 3, 1, 0.1)
    assert (config.objective.value_doubt, config.objective.terminal_value) == (0.01, True)
    assert config.mix.counts(5) == (5, 0, 0)


def test_reuse_by_hand() -> None:
    """0.1 of the previous plan, 0.9 of the policy; the step that was never planned is the policy's; cold rows too."""
    planner = build_part("planner", load(["recipe=quickstart", "planner=dream_mpc"]).config.planner)
    memory = planner.memory(2, 1, ORIGIN["x"])
    memory["actions"] = torch.tensor([1.0, -1.0, 0.0]).view(1, 3, 1).expand(2, -1, -1).clone()
    memory["valid"] = torch.tensor([True, False])
    begun, origin = planner.starts(Search(FLAT, ORIGIN, generators(2), 3), memory)
    assert (origin == POLICY).all()
    assert begun[0, 0, :, 0].tolist() == pytest.approx([0.46, 0.26, 0.4])
    assert begun[1, 0, :, 0].tolist() == pytest.approx([0.4, 0.4, 0.4])


def test_one_step_of_dream_mpc_by_hand() -> None:
    """Score 3 a_1 + 2 a_2 + a_3 from a = 0.4: gradient (3, 2, 1) of norm sqrt(14), clipped to 1, step 0.1."""
    planner = build_part("planner", load(["recipe=quickstart", "planner=dream_mpc"]).config.planner)
    problem = replace(FLAT, reward=lambda s: s["x"][:, 0], policy=lambda s: Normal(0 * s["x"] + 0.4, 1e-9))
    plan = planner.plan(problem, ORIGIN, None, generators(2))
    expected = [0.4 + 0.1 * part / 14**0.5 for part in (3, 2, 1)]
    assert plan["actions"][0, :, 0].tolist() == pytest.approx(expected, abs=1e-6)


# ---- the policy alone


def test_policy_acts_without_the_model() -> None:
    model = recurrent()
    problem = replace(problem_of(model), policy=arbitrary_policy(2), imagine=None, reward=None)  # type: ignore[arg-type]
    state = model.initial(3)
    plan = PolicyOnly().plan(problem, state, None, generators(3))
    assert torch.equal(plan["action"], (0.5 * state["stoch"][:, :2]).clamp(-1, 1))
    assert plan["candidates", "origin"].tolist() == [[POLICY]] * 3
    assert (plan["stats", "model_steps"] + plan["stats", "sequential_calls"]).tolist() == [0, 0, 0]
    assert plan["stats", "by_policy"].all()
    sampled = PolicyOnly(PolicyOnlyConfig(execute="sample")).plan(problem, state, None, generators(3))
    noise = torch.stack([torch.randn(1, 1, 2, generator=one)[0, 0] for one in generators(3)]).double()
    assert torch.allclose(sampled["action"], (0.5 * state["stoch"][:, :2] + 0.3 * noise).clamp(-1, 1))


def test_a_policy_that_is_not_finite_falls_back_where_it_is() -> None:
    def broken(state: State) -> Normal:
        return Normal(torch.tensor([[0.5], [float("nan")]]), 1.0, validate_args=False)

    with pytest.warns(RuntimeWarning, match="policy: no candidate's score is finite in 1 of 2"):
        plan = PolicyOnly().plan(replace(FLAT, policy=broken), ORIGIN, None, generators(2))
    assert plan["action"].tolist() == [[0.5], [0.0]]
    assert plan["stats", "fallback"].tolist() == [False, True]


def test_a_sample_that_is_not_finite_falls_back_to_the_mode() -> None:
    """It was played as zeros and counted nowhere."""

    def broken(state: State) -> Normal:
        return Normal(0.5, torch.tensor([[1e-9], [float("nan")]]), validate_args=False)

    sampling = PolicyOnly(PolicyOnlyConfig(execute="sample"))
    with pytest.warns(RuntimeWarning, match="in 1 of 2"):
        plan = sampling.plan(replace(FLAT, policy=broken), ORIGIN, None, generators(2))
    assert plan["action"].flatten().tolist() == pytest.approx([0.5, 0.5])
    assert plan["stats", "fallback"].tolist() == [False, True]


def test_the_policy_is_asked_once_a_decision() -> None:
    asked: list[State] = []

    def policy(state: State) -> Normal:
        asked.append(state)
        return Normal(0 * state["x"] + 0.5, 1.0)

    PolicyOnly().plan(replace(FLAT, policy=policy), ORIGIN, None, generators(2))
    assert len(asked) == 1


def test_mppi_has_24_candidates_of_512_from_the_policy() -> None:
    plan = build("mppi", iterations=1, horizon=2).plan(FLAT, ORIGIN, None, generators(2))
    assert plan["candidates", "origin"].shape == (2, 512)
    assert (plan["candidates", "origin"] == POLICY).sum(1).tolist() == [24, 24]


# ---- with a model that learns


def test_it_plans_through_an_rssm_with_policy_and_critics() -> None:
    """The RSSM's fused unroll and its step-by-step form give the same plan; weights get no gradient."""
    with rng.scope(0, "init"):
        model = RSSM(RSSMConfig(deter=16, stoch=4, hidden=16, units=16), Spaces(action=2, observation=3))
        critics = torch.nn.ModuleList(torch.nn.Linear(16 + 4, 1) for _ in range(2))
        head = torch.nn.Linear(16 + 4, 2)

    def features(state: State) -> Tensor:
        return torch.cat([state["deter"], state["stoch"]], -1)

    problem = problem_of(
        model,
        Objective(discount=0.99, terminal_value=True, value_doubt=0.01),
        policy=lambda state: Normal(head(features(state)).tanh(), 0.3),
        values=lambda state: torch.stack([critic(features(state)).squeeze(-1) for critic in critics]),
    )
    assert problem.unroll is not None
    plans = []
    for one in (problem, replace(problem, unroll=None)):
        with torch.inference_mode():
            plans.append(build("policy_grad_mpc").plan(one, model.initial(2), None, generators(2)))
    assert torch.allclose(plans[0]["actions"], plans[1]["actions"], atol=1e-4)
    assert (plans[0]["stats", "score_best"] > plans[0]["stats", "score_first"]).all()
    assert all(weight.grad is None for part in (model, critics, head) for weight in part.parameters())


# ---- what the user can mend


@pytest.mark.parametrize("planner", ["policy", "policy_grad_mpc", "dream_mpc"])
def test_a_run_without_a_policy_says_what_to_type(
    planner: str, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is collected."""
    argv = ["recipe=quickstart", "smoke=true", f"planner={planner}", f"run={tmp_path / 'run'}"]
    assert fit([*argv, "logging.progress=false", "logging.tensorboard=false"]) == 2
    said = capsys.readouterr().err
    assert "starts from a policy, but this run learned none (agent=planet); type agent=dreamer when training" in said
    assert said.rstrip().endswith("or planner=grad_mpc")


def test_a_problem_without_a_policy_is_refused() -> None:
    with pytest.raises(UserError, match="policy_grad_mpc starts from a policy, but the problem has none; type"):
        build("policy_grad_mpc").plan(replace(FLAT, policy=None), ORIGIN, None, generators(2))
    without = PolicyGradMPC(PolicyGradMPCConfig(mix=Mix(0.0, 0.5, 0.5)))
    lq = linear_quadratic(1)
    assert not without.plan(lq.problem, lq.state, None, generators(3))["stats", "fallback"].any()


def test_a_value_asked_of_a_planet_run_says_what_to_type() -> None:
    agent = PlaNet(model=RSSM(spaces=Spaces(action=1, observation=2)))
    for settings in ({"mix": Mix(0.0, 0.0, 1.0)}, {}):
        planner = PolicyGradMPC(PolicyGradMPCConfig(**settings))  # type: ignore[arg-type]
        expected = "no value head.*agent=dreamer.*planner.objective.terminal_value=false"
        with pytest.raises(UserError, match=expected if settings else "learned none"):
            agent.actor(planner)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["mix.policy=1"], r"policy 1 \+ previous 0.125 \+ random 0.375 = 1.5; expected shares that add up to 1; type "
                           r"e.g. planner.mix.policy=1 planner.mix.previous=0 planner.mix.random=0"),
        (["mix.random=0"], r"= 0.625; .* planner.mix.policy=0.5 planner.mix.previous=0.125 planner.mix.random=0.375"),
        (["mix.policy=-0.5"], r"planner.mix.policy=-0.5: expected a share between 0 and 1"),
        (["mix.policyy=1"], r"did you mean 'planner.mix.policy'"),
        (["reuse=1.5"], r"planner.reuse=1.5: expected a share between 0 and 1"),
        (["policy_std=-1"], r"planner.policy_std=-1.*: expected at least 0"),
        (["candidates=0"], r"planner.candidates=0"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_meant(typed: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(["recipe=quickstart", "planner=policy_grad_mpc", *(f"planner.{one}" for one in typed)])


def test_what_is_advised_is_accepted() -> None:
    for wrong in ((0.9, 0.3, 0.2), (0.333, 0.333, 0.333), (0.0, 0.1, 0.1)):
        with pytest.raises(ValueError, match=r"type e\.g\. ") as caught:
            Mix(*wrong)
        typed = str(caught.value).partition("type e.g. ")[2].split()
        config = load(["recipe=quickstart", "planner=policy_grad_mpc", *typed]).config.planner
        assert sum(config.mix.counts(16)) == 16


def test_terminal_value_is_on_by_default() -> None:
    model = recurrent()
    config = PolicyGradMPCConfig()
    assert config.objective.terminal_value
    assert config.objective.discount is None  # the agent's, 0.99 by default
    values = problem_of(model, Objective(terminal_value=True), values=lambda s: s["stoch"].T)
    assert values.terms == (TerminalValue(),)
    state = model.initial(2)
    assert values.value is not None
    assert torch.allclose(values.value(state), state["stoch"].mean(1))
