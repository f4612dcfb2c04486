"""Looking at one decision: what `evaluate inspect=` writes, against what is known about the plan."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lightning_wm import load_actor, registry
from lightning_wm.config.schema import ObservationConfig, TaskConfig
from lightning_wm.envs import make_env
from lightning_wm.errors import UserError
from lightning_wm.evaluate import main as evaluate
from lightning_wm.inspection import inspect
from lightning_wm.inspection.decision import Decision, decisions
from lightning_wm.inspection.future import Future
from lightning_wm.inspection.landscape import POINTS, gradients, hessian, orthogonal, survey
from lightning_wm.inspection.picture import _frames, draw
from lightning_wm.planning import problem_of
from lightning_wm.planning.objective import score
from lightning_wm.planning.search import Search
from lightning_wm.planning.trace import Trace
from tests.problems import generators, linear_quadratic, recurrent
from tests.test_planner_contract import SMALL, build

TASK = TaskConfig("dmc/cartpole_swingup", action_repeat=8, max_decisions=20)


@pytest.mark.parametrize("name", registry.names("planner"))
def test_looking_on_changes_nothing_and_sees_every_model_step(name: str) -> None:
    """The plan and its cost are the same; what was scored adds up to the steps; a later search is not seen."""
    model = recurrent()
    problem, state, planner = problem_of(model), model.initial(2), build(name, **SMALL)
    if planner.needs_policy:
        problem = replace(problem, policy=lambda s: torch.distributions.Normal(s["stoch"][:, :2] * 0, 1.0))
    unseen = planner.plan(problem, state, None, generators(2))
    planner.trace = trace = Trace()
    seen = planner.plan(problem, state, None, generators(2))
    planner.trace = None
    planner.plan(problem, state, None, generators(2, 1))
    assert torch.equal(unseen["actions"], seen["actions"])
    assert torch.equal(unseen["stats", "model_steps"], seen["stats", "model_steps"])
    steps = sum(one.actions.shape[1] * one.actions.shape[2] for one in trace.scored)
    counted = int(seen["stats", "model_steps"][0])
    assert steps == counted if problem.policy is None and name != "collocation" else steps <= counted
    for one in trace.scored:
        assert one.score.shape == one.actions.shape[:2]
        search = Search(problem, state, generators(2), one.actions.shape[2])
        again = search.score(one.actions)
        if one.noise is not None:
            rows, _ = search.rows(one.actions.shape[1])
            again = score(problem, rows, one.actions.flatten(0, 1), one.noise).view(one.score.shape)
        assert torch.allclose(again, one.score)


def decision_on(lq: Any, plan: Tensor) -> Decision:
    """A decision for one environment that nothing was searched for."""
    search = Search(lq.problem, lq.state, generators(1), plan.shape[0])
    return Decision(0, 0, lq.state, plan, float(lq.value(plan[None])), [], search)  # type: ignore[arg-type]


def test_gradient_and_curvature_of_a_known_score() -> None:
    """The score of a linear-quadratic problem has no gradient at its optimum and one Hessian everywhere."""
    lq = linear_quadratic(2, environments=1)
    optimum = lq.optimum(4)[0]
    search = decision_on(lq, optimum).search
    exact = torch.autograd.functional.hessian(lambda flat: lq.value(flat.view(1, 4, 2))[0], torch.zeros(8).double())
    known = torch.linalg.eigvalsh(exact)
    values, vectors = hessian(search, optimum + 0.3)
    assert torch.allclose(values, known[known.abs().argsort(descending=True)], rtol=1e-8)
    assert torch.allclose(exact @ vectors[0].flatten(), values[0] * vectors[0].flatten())
    assert gradients(search, optimum[None]).abs().max() < 1e-9
    step = torch.zeros_like(optimum)
    step[1, 0] = 1e-6
    slope = (lq.value((optimum + 0.3 + step)[None]) - lq.value((optimum + 0.3 - step)[None])) / 2e-6
    assert gradients(search, optimum[None] + 0.3)[0, 1, 0].item() == pytest.approx(slope.item(), rel=1e-6)


def test_cuts_are_scores_of_clamped_actions() -> None:
    """The middle is the plan; a corner is the plan moved by both directions, inside the bounds."""
    lq = linear_quadratic(2, environments=1)
    plan = lq.optimum(3)[0]
    seen = survey(decision_on(lq, plan), torch.Generator().manual_seed(0))
    for cut in (seen.random, seen.leading):
        first, second = cut.directions
        assert (first * second).sum().abs() < 1e-9
        assert (first.abs().max().item(), second.abs().max().item()) == pytest.approx((1, 1))
        middle = POINTS // 2
        assert cut.axis[middle] == 0
        assert cut.scores[middle, middle].item() == pytest.approx(lq.value(plan[None]).item())
        assert cut.scores.max() == cut.scores[middle, middle]  # nothing is better than the optimum
        moved = (plan + first - second).clamp(-1, 1)
        assert cut.scores[0, -1].item() == pytest.approx(lq.value(moved[None]).item())
    assert seen.curvature is not None
    assert seen.gradient_end is not None
    assert seen.gradient_end.abs().max() < 1e-9


def test_directions_of_one_action() -> None:
    """In one dimension there is no second direction."""
    assert orthogonal(torch.tensor([2.0, 3.0]).view(2, 1, 1)).flatten().tolist() == [1.0, 0.0]
    assert orthogonal(torch.tensor([-2.0]).view(1, 1, 1)).flatten().tolist() == [1.0, 0.0]
    by_hand = orthogonal(torch.tensor([[0.0, -2.0], [1.0, 1.0]]).view(2, 2, 1))
    assert by_hand.flatten().tolist() == [0.0, 1.0, 1.0, 0.0]


def test_evaluate_writes_a_picture_and_the_numbers(
    copy: Callable[[], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy()
    fields = ["planner.horizon=4", "planner.iterations=2", "planner.candidates=5", "planner.elites=2"]
    fields.append("planner.execute=mean")
    assert evaluate([f"run={run}", "planner=grad_mpc,cem,cem", *fields, "seed=7", "inspect=3"]) == 0
    names = [f"eval-480-s7-{one}-step3" for one in ("grad_mpc", "cem", "cem-2")]
    written = [run / "inspect" / f"{name}.{ending}" for name in names for ending in ("png", "json")]
    assert capsys.readouterr().out.split() == [str(path) for path in written]
    assert sorted((run / "inspect").iterdir()) == sorted(written)
    assert not list((run / "evaluations").glob("eval-*"))
    for path, scorings in zip(written[1::2], ([5, 5, 5, 1], [5, 5, 1], [5, 5, 1]), strict=True):
        assert imageio.imread(path.with_suffix(".png")).shape[2] == 4
        seen = json.loads(path.read_text())
        assert (seen["task"], seen["seed"], seen["decision"]) == ("dmc/cartpole_swingup", 7, 3)
        assert [len(one) for one in seen["scores"]] == scorings
        assert seen["climbed"] == ([True, True, False, False] if path.stem.endswith("grad_mpc-step3") else [False] * 3)
        assert not any(seen["drawn"])  # nobody asked what the plan is worth under other latents
        assert seen["score"] == pytest.approx(seen["scores"][-1][0])  # both execute a mean, which is scored last
        assert seen["settings"]["horizon"] == len(seen["plan"]) == len(seen["gradient_norm"]["end"]) == 4
        assert len(seen["gradient_norm"]["start"]) == len(seen["curvature"]) == 4
        middle = POINTS // 2
        for cut in seen["slices"].values():
            assert len(cut["scores"]) == len(cut["scores"][0]) == POINTS
            assert cut["scores"][middle][middle] == pytest.approx(seen["score"], rel=1e-4)
        assert seen["reward"]["predicted_sum"] == pytest.approx(seen["score"], rel=1e-4)
        assert len(seen["observation"]["imagined"]) == len(seen["observation"]["real"]) == 5
        assert [len(error) for error in seen["observation_error"].values()] == [5]
        check_what_happened(run, seen)


def check_what_happened(run: Path, seen: dict[str, Any]) -> None:
    """The same episode, played by hand: the planner's decisions, then the plan without looking."""
    env = make_env(TASK, ObservationConfig(), 1)
    settings = seen["settings"]
    actor = load_actor(run, planner=seen["planner"], seed=7)
    actor.planner.config = replace(
        actor.planner.config,
        **{key: settings[key] for key in ("horizon", "iterations", "candidates", "elites", "execute")},
    )
    td = env.reset(seeds=[7])
    actor.reset()
    for _ in range(3):
        td["action"] = actor.act(td)
        td = env.step(td)["next"].exclude("reward")
    assert seen["observation"]["real"][0] == pytest.approx(td["observation"][0].tolist())
    rewards = []
    for action in seen["plan"]:
        td["action"] = torch.tensor([action])
        after = env.step(td)["next"]
        rewards.append(float(after["reward"]))
        td = after.exclude("reward")
    assert seen["reward"]["real"] == pytest.approx(rewards)
    assert seen["observation"]["real"][-1] == pytest.approx(td["observation"][0].tolist())
    env.close()


def test_with_replan_the_plan_in_force_is_looked_at(copy: Callable[[], Path]) -> None:
    """Decision 18 made the plan that decision 19 executes; the episode ends after two of its steps."""
    run = copy()
    assert evaluate([f"run={run}", "planner.replan=3", "name=mine", "inspect=19"]) == 0
    seen = json.loads((run / "inspect" / "mine-grad_mpc-step19.json").read_text())
    assert seen["decision"] == 18
    drawn = [len(scores) for scores, drawn in zip(seen["scores"], seen["drawn"], strict=True) if drawn]
    assert drawn == [8]  # the vote's doubt
    assert (len(seen["reward"]["real"]), len(seen["observation"]["real"])) == (2, 3)
    assert len(seen["reward"]["predicted"]) == len(seen["plan"])


@pytest.mark.parametrize("planner", ["random", "random_shooting"])
def test_planners_that_climb_nothing(planner: str, copy: Callable[[], Path]) -> None:
    run = copy()
    assert evaluate([f"run={run}", f"planner={planner}", "inspect=0"]) == 0
    assert len(list((run / "inspect").iterdir())) == 2


def test_a_decision_that_is_not_there(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate([f"run={trained}", "inspect=-1"]) == 2
    assert "inspect=-1: expected the number of a decision" in capsys.readouterr().err
    assert evaluate([f"run={trained}", "inspect=20"]) == 2
    said = capsys.readouterr().err
    assert "ends after 20 decisions; expected 0 to 19" in said
    assert not (trained / "inspect").exists()


def test_decisions_without_a_search_are_refused(trained: Path) -> None:
    actor = load_actor(trained, planner="cem")
    actor.planner.config = replace(actor.planner.config, replan=2)
    env = make_env(TASK, ObservationConfig(), 1)
    assert [seen.number for seen in decisions(env, actor, 0, [0, 2])] == [0, 2]
    with pytest.raises(UserError, match=r"planner.replan=2: decision 3 follows the plan of 2.*type planner.replan=1"):
        next(decisions(env, actor, 0, [2, 3]))
    env.close()


def test_nothing_to_see_without_a_planner() -> None:
    env = make_env(TASK, ObservationConfig(), 1)
    with pytest.raises(UserError, match="no planner of lightning_wm"):
        inspect(env, object(), None, 0, 0)
    env.close()


@pytest.mark.parametrize("broken", ["gradient", "hidden gradient", "numbers"])
def test_a_broken_model_can_be_looked_at(broken: str, trained: Path, tmp_path: Path) -> None:
    """Without gradients the candidates' spread leads; with nothing but NaN there are gaps."""
    actor = load_actor(trained, planner="cem")
    actor.planner.config = replace(actor.planner.config, iterations=2, candidates=40, elites=5)
    reward = actor.problem.reward
    if broken == "hidden gradient":  # behind that of the predicted end
        actor.problem = replace(actor.problem, continues=actor.model.continues)
    if broken != "numbers":
        actor.problem = replace(actor.problem, reward=lambda state: reward(state).detach())
    else:
        actor.problem = replace(actor.problem, reward=lambda state: reward(state) * torch.nan)
    env = make_env(TASK, ObservationConfig(), 1)
    if broken == "numbers":
        with pytest.warns(RuntimeWarning, match="no candidate's score is finite"):
            seen = inspect(env, actor, actor.model, 7, 0)
        assert seen.as_json()["score"] is None
        assert set(seen.as_json()["scores"][0]) == {None}
    else:
        seen = inspect(env, actor, actor.model, 7, 0)
        assert seen.as_json()["leading"] == "spread of the candidates"
        assert seen.as_json()["gradient_norm"] == {"start": None, "end": None}
    draw(seen, tmp_path / "seen.png", "broken")
    assert (tmp_path / "seen.png").stat().st_size > 10_000
    env.close()


def test_a_model_without_a_decoder_says_so() -> None:
    pixels = torch.rand(3, 3, 16, 16)
    for imagined, rows, said in (({}, 1, "has no decoder"), ({"pixels": pixels}, 2, "imagined from the decision on")):
        (part,) = Figure().subfigures(1, 1, squeeze=False).ravel()
        _frames(part, Future(imagined, {"pixels": pixels}, torch.zeros(2), torch.zeros(2)))
        assert len(part.axes) == rows * 3
        assert said in part.get_suptitle()
