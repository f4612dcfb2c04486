"""`python -m lightning_wm.evaluate` and `load_actor` on a run that fit has made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import pytest
import torch

from lightning_wm import load_actor
from lightning_wm.envs import rendering_problem
from lightning_wm.errors import UserError
from lightning_wm.evaluate import main as evaluate
from lightning_wm.playing.play import side_by_side


def test_several_planners_share_their_episodes(copy: Callable[[], Path], capsys: pytest.CaptureFixture[str]) -> None:
    run = copy()
    small = ["planner.horizon=3", "planner.candidates=4", "planner.elites=2"]
    assert evaluate([f"run={run}", "planner=grad_mpc,cem", *small, "episodes=2", "seed=7"]) == 0
    printed = capsys.readouterr().out
    assert "grad_mpc" in printed
    assert "to the first" in printed
    found = {path.stem: json.loads(path.read_text()) for path in (run / "evaluations").glob("eval-*.json")}
    assert sorted(found) == ["eval-480-s7-cem", "eval-480-s7-grad_mpc"]
    for content in found.values():
        assert (content["seed"], content["episodes"], content["checkpoint"]) == (7, 2, "last")
        assert content["settings"]["candidates"] == 4
        assert content["ms_per_decision"]["median"] > 0


def test_settings_of_one_planner_are_told_apart(copy: Callable[[], Path], capsys: pytest.CaptureFixture[str]) -> None:
    run = copy()
    typed = ["grad_mpc_adam", "grad_mpc_lbfgs", "grad_mpc_lbfgs", "cem"]
    small = ["planner.horizon=3", "planner.candidates=4", "planner.iterations=1", "planner.elites=2"]
    assert evaluate([f"run={run}", f"planner={','.join(typed)}", *small, "episodes=1", "name=mine"]) == 0
    called = ["grad_mpc_adam", "grad_mpc_lbfgs", "grad_mpc_lbfgs-2", "cem"]
    assert sorted(path.name for path in (run / "evaluations").glob("mine-*")) == sorted(
        f"mine-{n}.json" for n in called
    )
    rows = [text.split()[1] for text in capsys.readouterr().out.splitlines() if text.startswith("│ ")]
    assert [row for row in rows if "_" in row or row == "cem"] == called


def test_an_actor_takes_fields_of_its_planner(trained: Path) -> None:
    plans = load_actor(trained, "cem", fields={"candidates": 7, "elites": 2, "objective": {"discount": 0.5}})
    settings = plans.planner.config
    assert (settings.candidates, settings.objective.discount) == (7, 0.5)
    with pytest.raises(UserError, match=r"planner\.sizes=7: planner 'cem' has no such field"):
        load_actor(trained, "cem", fields={"sizes": 7})


def test_what_a_planner_lacks_is_said_before_another_has_played(
    copy: Callable[[], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy()
    before = sorted((run / "evaluations").iterdir())
    assert evaluate([f"run={run}", "planner=random,policy", "episodes=1"]) == 2
    assert "this run learned none" in capsys.readouterr().err
    assert sorted((run / "evaluations").iterdir()) == before


def test_an_evaluation_repeats_exactly_and_another_seed_does_not(copy: Callable[[], Path]) -> None:
    run = copy()
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        assert evaluate([f"run={run}", "episodes=2", f"seed={seed}", f"name={name}"]) == 0
    a, b, c = (json.loads((run / "evaluations" / f"{n}-grad_mpc.json").read_text())["returns"] for n in "abc")
    assert a == b
    assert a != c


def test_planners_that_no_recipe_names_take_their_defaults(copy: Callable[[], Path]) -> None:
    run = copy()
    assert evaluate([f"run={run}", "planner=random", "episodes=1", "checkpoint=best"]) == 0
    (path,) = (run / "evaluations").glob("eval-*-s20000-random.json")
    content = json.loads(path.read_text())
    assert content["checkpoint"] == "best"
    assert content["model_steps"] == 0


@pytest.mark.parametrize(
    ("environments", "episodes", "wanted"), [(10, 20, 10), (10, 11, 6), (10, 12, 6), (10, 3, 3), (4, 10, 4), (5, 0, 1)]
)
def test_no_more_environments_than_the_rounds_need(environments: int, episodes: int, wanted: int) -> None:
    assert side_by_side(environments, episodes) == wanted


@pytest.mark.skipif(rendering_problem() is not None, reason="this machine cannot render")
def test_a_video_has_a_frame_for_every_decision(copy: Callable[[], Path]) -> None:
    run = copy()
    assert evaluate([f"run={run}", "planner=random", "episodes=1", "video=true"]) == 0
    (path,) = (run / "videos").glob("*.mp4")
    frames = imageio.imread(path)
    assert frames.shape == (20, 256, 256, 3)
    assert frames[0].std() > 5
    assert (frames[0] != frames[-1]).any()


def failed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert evaluate(arguments) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


def test_what_cannot_be_evaluated_is_refused(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = f"run={trained}"
    assert "episodes=0: expected at least 1" in failed([run, "episodes=0"], capsys)
    assert "seed=-1" in failed([run, "seed=-1"], capsys)
    assert "last or best" in failed([run, "checkpoint=first"], capsys)
    assert "did you mean" in failed([run, "episods=3"], capsys).lower()
    assert "grad_mpc" in failed([run, "planner=gradmpc"], capsys)
    assert "candidates" in failed([run, "planner.candidate=3"], capsys)
    assert "horizon" in failed([run, "planner.horizon=0"], capsys)
    assert "elites" in failed([run, "planner=cem", "planner.candidates=3", "planner.elites=5"], capsys)
    assert "config.yaml" in failed([f"run={tmp_path}"], capsys)
    assert "run" in failed([], capsys)


def model_class(run: Path) -> type:
    """The world model's class of a run, to break a part of it."""
    return type(load_actor(run).model)


def test_a_gradient_planner_on_a_model_without_gradients_names_the_part(
    copy: Callable[[], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy()
    cls = model_class(run)
    reward: Any = cls.reward  # type: ignore[attr-defined]
    monkeypatch.setattr(cls, "reward", lambda model, state: reward(model, state).detach())
    for planner in ("grad_mpc", "cem_gd", "collocation"):
        said = failed([f"run={run}", f"planner={planner}", "episodes=1"], capsys)
        assert "the model's reward has no gradient" in said
        assert "planner=cem" in said
    assert evaluate([f"run={run}", "planner=cem", "planner.candidates=4", "planner.elites=2", "episodes=1"]) == 0


def test_a_terminal_value_of_a_model_without_one_is_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = failed([f"run={trained}", "planner=cem", "planner.objective.terminal_value=true"], capsys)
    assert "has no value head" in said
    assert "planner.objective.terminal_value=false" in said


def test_predictions_of_nan_fall_back_are_counted_and_said_once(
    copy: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 decisions of zero actions in each of two episodes, one warning."""
    run = copy()
    cls = model_class(run)
    reward: Any = cls.reward  # type: ignore[attr-defined]
    monkeypatch.setattr(cls, "reward", lambda model, state: reward(model, state) * torch.nan)
    with pytest.warns(RuntimeWarning) as warned:
        assert evaluate([f"run={run}", "planner=grad_mpc", "episodes=2", "environments=1", "name=nan"]) == 0
    assert len([one for one in warned if "no candidate's score is finite" in str(one.message)]) == 1
    content = json.loads((run / "evaluations" / "nan-grad_mpc.json").read_text())
    assert content["fallbacks"] == 40
    assert content["predicted_score"] is None


def test_a_run_of_another_model_is_refused(copy: Callable[[], Path], capsys: pytest.CaptureFixture[str]) -> None:
    run = copy()
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("deter: 16", "deter: 17"))
    assert "does not fit" in failed([f"run={run}"], capsys)


def test_a_runs_own_plugins_are_not_imported_unless_typed(
    copy: Callable[[], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy()
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("plugins: []", "plugins: [antigravity]"))
    assert "plugins=[antigravity]" in failed([f"run={run}"], capsys)


def test_help_lists_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(["--help"]) == 0
    assert "episodes" in capsys.readouterr().out


def test_load_actor_plays_with_any_planner(trained: Path, tmp_path: Path) -> None:
    observation = {"observation": torch.zeros(5)}
    for actor in (load_actor(trained), load_actor(str(trained), planner="random")):
        actor.reset()
        assert actor.act(observation).shape == (1,)
    with pytest.raises(UserError, match=r"config\.yaml"):
        load_actor(tmp_path)
