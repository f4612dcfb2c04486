"""The score of a plan against values worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_wm import load_actor
from lightning_wm.agents.dreamer import Dreamer, DreamerConfig
from lightning_wm.agents.planet import PlaNet
from lightning_wm.config import load
from lightning_wm.errors import UserError
from lightning_wm.planners.cem import CEM, CEMConfig
from lightning_wm.planners.cem_gd import CEMGD
from lightning_wm.planners.grad_mpc import GradMPC, GradMPCConfig
from lightning_wm.planners.mppi import MPPI, MPPIConfig
from lightning_wm.planners.policy_grad_mpc import PolicyGradMPC
from lightning_wm.planners.random import RandomConfig
from lightning_wm.planning.ascent import Adam
from lightning_wm.planning.base import BasePlanner
from lightning_wm.planning.objective import Objective, imagine, score
from lightning_wm.planning.problem import problem_of
from lightning_wm.planning.terms import ActionCost, Disagreement, Smoothness, TerminalValue, ValueDoubt
from lightning_wm.protocols import Problem, Spaces, State
from lightning_wm.runs.loading import load_run, planner_config
from tests.problems import generators, recurrent
from tests.worlds import world


def _count(state: State, action: Tensor, noise: Tensor | None = None) -> State:
    """x' = x + a (+ noise)."""
    return {"x": state["x"] + action + (0.0 if noise is None else noise)}


COUNT = Problem(action=1, imagine=_count, reward=lambda s: s["x"][:, 0] ** 2)
START = {"x": torch.tensor([[1.0], [0.0]])}
ACTIONS = torch.tensor([[[1.0], [-0.5], [0.5]], [[0.0], [1.0], [-1.0]]])
# states after each action: 2, 1.5, 2 and 0, 1, 0; rewards 4, 2.25, 4 and 0, 1, 0


def test_sum_of_rewards() -> None:
    assert score(COUNT, START, ACTIONS).tolist() == pytest.approx([10.25, 1.0])


def test_discount_starts_at_the_second_reward() -> None:
    got = score(replace(COUNT, discount=0.5), START, ACTIONS)
    assert got.tolist() == pytest.approx([4 + 0.5 * 2.25 + 0.25 * 4, 0.5])


def test_continues_weigh_what_comes_after() -> None:
    """continues = x/4: 0.5, 0.375, 0.5 and 0, 0.25, 0: the second plan ends after its first step."""
    got = score(replace(COUNT, discount=0.5, continues=lambda s: s["x"][:, 0] / 4), START, ACTIONS)
    assert got.tolist() == pytest.approx([4 + 0.5 * 0.5 * 2.25 + 0.25 * 0.5 * 0.375 * 4, 0.0])


def test_terms_by_hand() -> None:
    whole = replace(
        COUNT,
        discount=0.5,
        continues=lambda s: s["x"][:, 0] / 4,
        value=lambda s: 10 * s["x"][:, 0],
        disagreement=lambda s: s["x"][:, 0],
    )
    base = score(whole, START, ACTIONS)[0].item()

    def added(term: object) -> float:
        return score(replace(whole, terms=(term,)), START, ACTIONS)[0].item() - base  # type: ignore[arg-type]

    assert added(TerminalValue()) == pytest.approx(0.125 * 0.5 * 0.375 * 0.5 * 20)
    assert added(ActionCost(2.0)) == pytest.approx(-2 * (1 + 0.25 + 0.25))
    assert added(Smoothness(2.0)) == pytest.approx(-2 * (1.5**2 + 1.0))
    assert added(Disagreement(2.0)) == pytest.approx(-2 * (2 + 0.5 * 0.5 * 1.5 + 0.25 * 0.5 * 0.375 * 2))


def test_value_doubt_by_hand() -> None:
    """Critics x and 3x: mean 2x, standard deviation x, u = 2 x^2 at the states 2, 1.5, 2, the last one twice."""
    doubtful = replace(COUNT, discount=0.5, values=lambda s: torch.stack([s["x"][:, 0], 3 * s["x"][:, 0]]))
    base = score(doubtful, START, ACTIONS)[0].item()
    got = score(replace(doubtful, terms=(ValueDoubt(0.1),)), START, ACTIONS)[0].item()
    assert got - base == pytest.approx(-0.1 * (8 + 0.5 * 4.5 + 0.25 * 8 + 0.125 * 8))
    negative = replace(doubtful, values=lambda s: -torch.stack([s["x"][:, 0], 3 * s["x"][:, 0]]))
    assert score(replace(negative, terms=(ValueDoubt(0.1),)), START, ACTIONS)[0].item() == pytest.approx(got)


def test_value_doubt_has_a_gradient_also_where_critics_agree() -> None:
    """The square root's slope at 0 is infinite; where nothing is in doubt nothing pulls."""
    agreed = replace(COUNT, values=lambda s: torch.stack([s["x"][:, 0]] * 2), terms=(ValueDoubt(1.0),))
    actions = ACTIONS.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(agreed, START, actions).sum(), actions)
    plain = ACTIONS.clone().requires_grad_()
    (expected,) = torch.autograd.grad(score(COUNT, START, plain).sum(), plain)
    assert torch.allclose(gradient, expected)


def test_noise_enters_its_own_step() -> None:
    noise = torch.zeros(3, 2, 1)
    noise[1, 0] = 1.0  # first plan: states 2, 2.5, 3
    assert score(COUNT, START, ACTIONS, noise).tolist() == pytest.approx([4 + 6.25 + 9, 1.0])


def test_imagine_is_time_first() -> None:
    assert imagine(COUNT, START, ACTIONS)["x"][:, 0, 0].tolist() == [2.0, 1.5, 2.0]


@pytest.mark.parametrize("terminal", [False, True])
def test_gradient_of_the_first_action_against_finite_differences(terminal: bool) -> None:
    model = recurrent()
    problem = problem_of(model, Objective(discount=0.9, continues=True, action_cost=0.1, smoothness=0.2))
    if terminal:
        problem = replace(problem, value=model.reward, terms=(*problem.terms, TerminalValue()))
    state, actions = model.initial(2), torch.full((2, 5, 2), 0.3, dtype=torch.float64)
    actions.requires_grad_()
    (gradient,) = torch.autograd.grad(score(problem, state, actions).sum(), actions)
    step = 1e-6
    for a in range(2):
        up, down = actions.detach().clone(), actions.detach().clone()
        up[:, 0, a] += step
        down[:, 0, a] -= step
        slope = (score(problem, state, up) - score(problem, state, down)) / (2 * step)
        assert gradient[:, 0, a].tolist() == pytest.approx(slope.tolist(), rel=1e-6, abs=1e-9)
    assert gradient[:, 0].abs().min() > 1e-4  # otherwise the comparison says nothing


def test_problem_of_refuses_heads_the_model_has_not() -> None:
    with pytest.raises(UserError, match="no value head"):
        problem_of(recurrent(), Objective(terminal_value=True))
    with pytest.raises(UserError, match="no ensemble"):
        problem_of(recurrent(), Objective(disagreement=0.1))
    model = recurrent()
    advice = r"value_doubt=0\.1, but there are no critics; .* type planner\.objective\.value_doubt=0"
    with pytest.raises(UserError, match=advice):
        problem_of(model, Objective(value_doubt=0.1))
    with pytest.raises(UserError, match=r"a single critic, .*agent=dreamer agent\.critic\.members=2"):
        problem_of(model, Objective(value_doubt=0.1), values=lambda s: s["stoch"][:, :1].T)
    two = problem_of(model, Objective(value_doubt=0.1), values=lambda s: s["stoch"][:, :2].T)
    assert two.terms == (ValueDoubt(0.1),)


@pytest.mark.parametrize(
    "wrong",
    [{"discount": 0.0}, {"discount": 1.1}, {"action_cost": -1.0}, {"smoothness": -0.1}, {"value_doubt": -1.0}],
)
def test_objective_refuses_by_field(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=rf"planner\.objective\.{next(iter(wrong))}="):
        Objective(**wrong)


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("part", ["imagine", "reward", "value"])
@pytest.mark.parametrize("planner", [GradMPC, CEMGD])
def test_a_broken_graph_is_named(planner: type, part: str, hidden: bool) -> None:
    """Also where a penalty on the actions still has a gradient; a planner without gradients does not mind."""
    model = recurrent()
    whole = replace(problem_of(model, Objective(action_cost=0.1 * hidden)), value=model.reward)
    if part == "value":
        whole = replace(whole, terms=(*whole.terms, TerminalValue()))

    def detached(*arguments: object) -> object:
        result = getattr(whole, part)(*arguments)
        return {k: v.detach() for k, v in result.items()} if part == "imagine" else result.detach()

    broken, state = replace(whole, **{part: detached}), model.initial(1)
    with torch.inference_mode(), pytest.raises(UserError, match=f"model's {part} has no gradient.*planner=cem"):
        planner().plan(broken, state, None, generators(1))
    assert CEM(CEMConfig(candidates=8, elites=2)).plan(broken, state, None, generators(1))["actions"].isfinite().all()
    planner().plan(whole, state, None, generators(1))


def test_our_adam_is_adam() -> None:
    one = torch.Generator().manual_seed(0)
    ours = torch.randn(4, 3, generator=one, dtype=torch.float64)
    theirs = ours.clone().requires_grad_()
    adam, reference = Adam(ours), torch.optim.Adam([theirs], lr=0.1, maximize=True)
    for _ in range(5):
        gradient = torch.randn(4, 3, generator=one, dtype=torch.float64)
        ours = ours + 0.1 * adam.step(gradient)
        theirs.grad = gradient
        reference.step()
    assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-9)


class Cliff:
    """A point that moves by 0.4 a in a step and earns x in each; beyond x = 1 the episode ends."""

    spaces = Spaces(action=1, observation=1)

    def imagine(self, state: State, action: Tensor, noise: Tensor | None = None) -> State:
        """One step."""
        return {"x": state["x"] + 0.4 * action}

    def reward(self, state: State) -> Tensor:
        """`[M]`."""
        return state["x"][:, 0]

    def continues(self, state: State) -> Tensor:
        """`[M]`, in [0, 1]."""
        return (-40 * (state["x"][:, 0] - 1)).sigmoid()

    def noise(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """None is drawn."""
        return torch.zeros(*shape, 1)


class EndsByTime(Cliff):
    """The same without a prediction of the end."""

    predicts_termination = False

    def continues(self, state: State) -> Tensor:
        """Ones `[M]`."""
        return torch.ones_like(state["x"][:, 0])


@pytest.mark.parametrize(
    "planner",
    [
        CEM(CEMConfig(candidates=200, elites=20)),
        GradMPC(GradMPCConfig(candidates=16, iterations=50, execute="best")),
        MPPI(MPPIConfig(candidates=200, elites=20, temperature=5.0, execute="best")),
    ],
)
def test_a_plan_avoids_the_end_that_the_model_predicts(planner: BasePlanner) -> None:
    """Twelve steps at 0.4 lead to 4.8; with the prediction no state but the last lies beyond the edge.

    Going 0.4, 0.8, and staying at the edge earns about 12 in 12 steps, walking over it 0.4 + 0.8 + 1.2.
    """

    def furthest(problem: Problem) -> float:
        state = {"x": torch.zeros(1, 1, dtype=torch.float64)}
        plan = planner.plan(problem, state, None, generators(1))["actions"]
        return float(imagine(problem, state, plan)["x"][:-1].max())

    assert furthest(problem_of(Cliff(), Objective())) < 1
    assert furthest(problem_of(Cliff(), Objective(continues=True))) < 1
    assert furthest(problem_of(Cliff(), Objective(continues=False))) > 2
    assert furthest(problem_of(EndsByTime(), Objective())) > 2


def test_the_end_is_predicted_by_models_with_a_continue_head() -> None:
    """Without one nothing is weighed, so that such runs plan as ever; the settings overrule both."""
    with_head, without = world(continue_head=True), world(continue_head=False)
    assert problem_of(with_head, Objective()).continues == with_head.continues
    assert problem_of(without, Objective()).continues is None
    assert problem_of(with_head, Objective(continues=False)).continues is None
    assert problem_of(without, Objective(continues=True)).continues == without.continues


def test_the_discount_is_the_agents() -> None:
    """Its value is of that discount; an agent without one sums the horizon's rewards."""
    dreamer = Dreamer(replace(DreamerConfig(), discount=0.997), world())
    for planner in (GradMPC(), PolicyGradMPC(), CEM(CEMConfig(objective=Objective(terminal_value=True)))):
        assert dreamer.actor(planner).problem.discount == 0.997
    assert dreamer.actor(GradMPC(GradMPCConfig(objective=Objective(discount=0.9)))).problem.discount == 0.9
    assert PlaNet(model=world()).actor(GradMPC()).problem.discount == 1.0
    assert load(["recipe=sparse/finger_turn_hard"]).config.agent.discount == 0.99  # what its planner had of its own


def test_the_quickstart_leaves_the_end_out() -> None:
    """Its model has a continue head, and dm_control's episodes end by time alone."""
    config = load(["recipe=quickstart"]).config
    assert config.model.continue_head
    assert config.planner.objective == Objective(continues=False)


def test_planners_that_are_compared_on_a_run_are_judged_alike(trained: Path) -> None:
    """The quickstart's model has a continue head that its own planner leaves out."""
    for planner in ("grad_mpc", "cem", "mppi"):
        assert load_actor(trained, planner=planner).problem.continues is None
    loaded = load_run(trained)
    assert planner_config(loaded, "cem", {"objective": {"continues": True}}).objective.continues is True
    assert planner_config(loaded, "random", {}) == RandomConfig()
    ending = replace(loaded, config=replace(loaded.config, planner=CEMConfig()))
    assert planner_config(ending, "mppi", {}).objective.continues is None
