"""Films of predictions: what they show is what the model decodes, beside what replay holds."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

from lightning_wm.envs import rendering_problem
from lightning_wm.envs.layout import ObservationLayout, Part
from lightning_wm.errors import UserError
from lightning_wm.fit import main as fit
from lightning_wm.models.pixels import PixelConfig
from lightning_wm.protocols import Spaces
from lightning_wm.report.page import _films
from lightning_wm.runs.directory import RunDirectory
from lightning_wm.training.frames import PREDICTED, SEEN, compared, traced
from lightning_wm.training.open_loop import frames, predict
from tests.conftest import TINY
from tests.worlds import experience, model_of

BOTH = Spaces(action=2, observation=3, pixels=(3, 64, 64))


def test_it_is_the_model_s_own_prediction_from_actions_alone() -> None:
    model, batch = model_of("rssm", BOTH), experience(BOTH, 4, 8)
    batch["is_init"][0, 3] = True  # an episode ends in the first window
    prediction = predict(model, batch, seen=3)
    assert prediction is not None
    torch.testing.assert_close(prediction.truth["observation"], batch["observation"][1:])
    changed = batch.clone()
    changed["observation"][:, 3:], changed["pixels"][:, 3:] = 9.0, 0
    blind = predict(model, changed, seen=3)
    for name, value in prediction.imagined.items():  # it has not looked at what it is compared with
        torch.testing.assert_close(value, blind.imagined[name])
    states, _ = model.observe(batch[1:, :3])
    state = {name: value.unflatten(0, (3, 3))[:, -1] for name, value in states.items()}
    for step in range(3, 8):
        state = model.imagine(state, batch["action"][1:, step])
        torch.testing.assert_close(prediction.imagined["pixels"][:, step], model.decode(state)["pixels"])
    batch["is_init"][:, 2] = True
    assert predict(model, batch, seen=3) is None


@torch.no_grad()  # with gradients the model would learn means and deviations of pixels
def test_without_a_decoder_the_picture_that_fits_best_is_shown() -> None:
    spaces = Spaces(action=2, pixels=(3, 32, 32))
    model = model_of("rssm", spaces, pixels=PixelConfig("patches", "contrast", embedding=16, units=16))
    batch = experience(spaces, 5, 6)
    prediction = predict(model, batch, seen=2, most=2)
    assert prediction is not None
    others = batch[2:].reshape(-1)
    codes = model.encode(model.targets(others))
    states, _ = model.observe(batch[:2, :2])
    state = {name: value.unflatten(0, (2, 2))[:, -1] for name, value in states.items()}
    for step in range(2, 6):
        state = model.imagine(state, batch["action"][:2, step])
        read = model.code_reader(state["deter"])
        for row in range(2):
            fits = torch.nn.functional.cosine_similarity(read[row], codes, dim=-1)
            torch.testing.assert_close(model.likeness(state, others)[row], fits)
            torch.testing.assert_close(prediction.imagined["pixels"][row, step], others["pixels"][fits.argmax()] / 255)
    torch.testing.assert_close(prediction.truth["pixels"], batch["pixels"][:2] / 255)
    assert predict(model, batch[:2], seen=2, most=2) is None  # there are no others


def test_pictures_are_truth_imagined_and_error() -> None:
    truth = np.zeros((2, 2, 3, 64, 64), np.float32)
    imagined = truth.copy()
    imagined[1, 1, 0] = 1.0  # red in the second window's second step
    first, second = compared(truth, imagined, seen=1)
    assert first.shape == (32 + 2 * 144, 3 * 128 + 2 * 16, 3)
    assert (tuple(first[0, 0]), tuple(second[0, 0])) == (SEEN, PREDICTED)
    below = 32 + 144 + 64
    assert second[below, [64, 144 + 64, 288 + 64]].tolist() == [[0, 0, 0], [255, 0, 0], [255, 128, 128]]
    assert first[below, [64, 144 + 64, 288 + 64]].tolist() == [[0, 0, 0], [0, 0, 0], [128, 128, 128]]


def test_curves_grow_from_left_to_right() -> None:
    truth = np.linspace(0, 1, 20, dtype=np.float32)[:, None].repeat(2, 1)
    drawn = traced(truth, 1 - truth, seen=5, names=["a", "b"])
    red = [(frame[..., 0].astype(int) - frame[..., 2] > 100) for frame in drawn]
    right = [int(np.flatnonzero(mask.any(0)).max(initial=0)) for mask in red]
    assert right == sorted(right)
    assert right[-1] > right[10] > right[2] > 0
    assert all(size % 16 == 0 for size in drawn[0].shape[:2])


def test_thirty_numbers_are_the_dozen_that_vary_most() -> None:
    drawn = traced(np.random.default_rng(0).normal(size=(5, 30)).astype(np.float32), np.zeros((5, 30)), 2, ["x"] * 30)
    assert drawn[0].shape[0] > drawn[0].shape[1] * 0.8


def test_a_vector_s_numbers_have_the_task_s_names(monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[list[str]] = []
    monkeypatch.setattr("lightning_wm.training.open_loop.traced", lambda *given: named.append(given[-1]) or [])
    spaces = Spaces(action=1, observation=3)
    prediction = predict(model_of("rssm", spaces), experience(spaces, 1, 6), seen=2)
    frames(prediction, ObservationLayout({"position": Part((2,)), "velocity": Part()}))
    frames(prediction, None)
    assert named == [["position[0]", "position[1]", "velocity[0]"], [f"observation[{n}]" for n in range(3)]]


@pytest.mark.skipif(rendering_problem() is not None, reason="nothing renders here")
def test_a_run_from_pixels_leaves_one_film_an_evaluation(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    line = [*TINY, "observation=pixels", "agent.open_loop_observed=2", f"run={run.path}"]
    assert fit(line) == 0
    films = sorted(path.name for path in run.videos.iterdir())
    assert films == ["final-480.mp4", "open-loop-160.mp4", "open-loop-320.mp4", "open-loop-480.mp4"]
    shown = imageio.imread(run.videos / "open-loop-480.mp4")
    assert shown.shape[0] > 2
    assert [film.path.name for film in _films(run.path)] == ["final-480.mp4", "open-loop-480.mp4"]
    filmed = [(run.videos / "final-480.mp4").stat().st_mtime_ns]
    for seed in ([], ["evaluation.final_seed=77"]):  # the same table; another one
        assert fit([*line, *seed]) == 0
        filmed.append((run.videos / "final-480.mp4").stat().st_mtime_ns)
    assert filmed[0] == filmed[1] < filmed[2]


@pytest.mark.skipif(rendering_problem() is not None, reason="nothing renders here")
def test_what_could_not_be_filmed_once_is_tried_by_who_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, asked = RunDirectory(tmp_path / "run"), []

    def broken(*_: object) -> None:
        asked.append(1)
        raise UserError("no ffmpeg")

    line = [*TINY, "callbacks.video.every=160", "evaluation.video=false", f"run={run.path}"]
    with monkeypatch.context() as patched:
        patched.setattr("lightning_wm.training.video.film", broken)
        assert fit(line) == 0
    assert len(asked) == 1  # and said once
    assert fit([*line, "env_steps=640"]) == 0
    assert [path.name for path in run.videos.iterdir()] == ["640.mp4"]
