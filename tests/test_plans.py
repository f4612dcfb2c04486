"""Plans over time: what was expected is what the model imagines, and the film shows it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
import torch

from lightning_wm.evaluate import main as evaluate
from lightning_wm.inspection.plans import Expected, expectations, frames
from lightning_wm.planners.grad_mpc import GradMPC, GradMPCConfig
from lightning_wm.runs.loading import load_run


def test_what_is_expected_is_what_the_model_imagines(trained: Path) -> None:
    loaded = load_run(trained)
    actor = loaded.agent.actor(GradMPC(GradMPCConfig(horizon=3, candidates=4, iterations=1)))
    model = loaded.agent.model
    with closing(loaded.environments(1)) as env:
        first, second = expectations(env, actor, model, 31_000, 2)
    assert first.candidates.shape == (4, 3, 6)
    assert first.executed.shape == (3, 6)
    assert np.isnan(first.seen[0])
    assert 0 <= second.seen[0] <= 8  # rewards of eight env steps
    actor.reset()
    actor.episode = 0
    with closing(loaded.environments(1)) as env, torch.no_grad():
        seen = env.reset(seeds=[31_000])
        np.testing.assert_array_equal(first.seen[1:], seen["observation"][0])
        actor.act(seen)
        assert actor.plan is not None
        best = int(actor.plan["candidates", "score"][0].argmax())
        state = model.filter(model.initial(1), torch.zeros(1, 1), seen)
        for step, action in enumerate(actor.plan["candidates", "action"][0, best]):
            state = model.imagine(state, action[None])
            assert first.candidates[0, step, 0] == pytest.approx(float(model.reward(state)), abs=1e-5)
            np.testing.assert_allclose(first.candidates[0, step, 1:], model.decode(state)["observation"][0], atol=1e-4)


def test_a_frame_shows_the_past_the_candidates_and_what_was_executed() -> None:
    line = np.linspace(0, 1, 3, dtype=np.float32)[:, None].repeat(2, 1)
    played = [Expected(np.array([np.nan, step], np.float32), line[None] + step, line + step) for step in range(3)]
    drawn = list(frames(played, None))
    assert len(drawn) == 3
    assert all(size % 16 == 0 for size in drawn[0].shape[:2])
    colours = drawn[-1].reshape(-1, 3).astype(int)
    assert (np.abs(colours - (31, 119, 180)).sum(1) < 30).any()  # tab:blue
    assert (colours.sum(1) < 60).sum() > (drawn[0].reshape(-1, 3).astype(int).sum(1) < 60).sum()  # the past grows


def test_what_cannot_be_filmed_is_refused_before_anything_is_played(
    copy: Callable[[], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy()
    assert evaluate([f"run={run}", "planner=grad_mpc", "planner.replan=3", "episodes=1", "name=mine", "plans=5"]) == 2
    assert "error: planner.replan=3: decision 1 follows the plan of 0" in capsys.readouterr().err
    assert not list((run / "evaluations").glob("mine-*"))


def test_evaluate_films_them(copy: Callable[[], Path], capsys: pytest.CaptureFixture[str]) -> None:
    run = copy()
    few = ["planner=grad_mpc", "planner.candidates=4", "planner.iterations=1", "episodes=1", "name=mine"]
    assert evaluate([f"run={run}", *few, "plans=3"]) == 0
    film = run / "videos" / "mine-grad_mpc-plans.mp4"
    assert str(film) in capsys.readouterr().out
    with imageio.get_reader(film) as reader:
        assert sum(1 for _ in reader.iter_data()) == 3
