"""The report's page: what several runs say together, and the files that show it."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lightning_wm.report.__main__ import main as report
from lightning_wm.report.methods import arm, curves, methods, shared
from lightning_wm.report.statistics import difference, improvement, iqm, profile, stratified
from tests.browser import CHROMIUM, browser
from tests.browser import Page as Browsed
from tests.test_report import RUN, point, row

pytest.importorskip("altair")
pytest.importorskip("vl_convert")

# Runs down, tasks across.
A = np.array([
    [0.6521, 0.4751, 0.7705, 0.7029], [0.6138, 0.8227, 0.887, 0.8476], [0.6885, 0.5393, 0.3744, 0.5476],
    [0.8177, 0.9039, 0.9103, 0.4274], [0.5374, 0.7806, 0.8833, 0.7129],
])  # fmt: skip
B = np.array([
    [0.7352, 0.752, 0.6087, 0.5864], [0.316, 0.4352, 0.8539, 0.5112], [0.4742, 0.5701, 0.6086, 0.4588],
    [0.3788, 0.3908, 0.1863, 0.5786], [0.4134, 0.6759, 0.5334, 0.3376],
])  # fmt: skip


def test_the_numbers_are_rliables() -> None:
    """What rliable 1.2 says of the same scores, its intervals from 50,000 resamples."""
    first, other = list(A.T), list(B.T)
    assert iqm(first) == pytest.approx(0.71093, abs=1e-6)
    assert iqm(other) == pytest.approx(0.51699, abs=1e-6)
    assert improvement(first, other) == pytest.approx(0.79, abs=1e-6)
    shares = profile(first, np.linspace(0, 1, 6))
    np.testing.assert_allclose(shares, [1.0, 1.0, 0.95, 0.7, 0.35, 0.0], atol=1e-6)
    for scores, low, high in ((first, 0.61112, 0.79183), (other, 0.44364, 0.59046)):
        over = stratified(iqm, scores)
        assert (over.low, over.high) == (pytest.approx(low, abs=0.01), pytest.approx(high, abs=0.01))


def test_one_training_seed_has_no_interval() -> None:
    over = stratified(iqm, [np.array([0.5]), np.array([0.4, 0.6])])
    assert (over.low, over.high) == (None, None)


def test_a_verdict_may_be_that_it_cannot_tell() -> None:
    assert difference([1.0, 2.0, 3.0], [3.0, 4.1, 5.0]).verdict == "better"
    assert difference([3.0, 4.1, 5.0], [1.0, 2.0, 3.0]).verdict == "worse"
    assert difference([1.0, 2.0], [1.0, 2.0]).verdict == "equal"
    assert difference([1.0], [2.0]).verdict == "cannot tell from one episode"
    # Differences 1, -1, 1, -1, 2: mean 0.4, half width 1.666, so (1.666 / 0.4)^2 times 5 episodes: 87.
    unclear = difference([0.0] * 5, [1.0, -1.0, 1.0, -1.0, 2.0])
    assert unclear.verdict == "cannot tell; about 82 more episodes would"


def test_methods_are_arms_and_planners_over_seeds() -> None:
    other = replace(RUN, run_seed=1)
    rows = [row([1.0, 3.0]), row([5.0, 7.0], run=other), row([2.0, 2.0], planner="mppi"), row([9.0], seed=7)]
    best, second = methods(rows)
    assert best.name == "planet: cem"
    assert best.scores.tolist() == [2.0, 6.0]  # the evaluation with most episodes counts
    assert second.scores.tolist() == [2.0]
    assert arm("sac", '{"agent":"sac","trainer.updates_per_turn":240}') == "sac, updates_per_turn=240"


def test_two_recipes_of_a_task_are_two_methods() -> None:
    """One row of a method's scores is a training seed of one recipe."""
    mine = replace(RUN, recipe="mine/walker_walk")
    best, second = methods([row([100.0]), row([900.0], run=mine)])
    assert (best.name, best.scores.tolist()) == ("mine/walker_walk planet: cem", [900.0])
    assert (second.name, second.scores.tolist()) == ("mine planet: cem", [100.0])
    drawn = curves([point(1.0, 1000), point(9.0, 1000, run=mine)], "dmc/walker_walk", "state")
    assert [(curve.name, len(curve.runs)) for curve in drawn] == [("mine planet", 1), ("mine/walker_walk planet", 1)]


def test_only_methods_of_all_tasks_are_put_together() -> None:
    elsewhere = replace(RUN, task="dmc/cheetah_run")
    rows = [row([500.0]), row([100.0], run=elsewhere), row([900.0], planner="mppi")]
    assert {name: [list(each) for each in of] for name, of in shared(methods(rows)).items()} == {
        "planet: cem": [[0.1], [0.5]]
    }


def test_curves_take_evaluations_where_there_are_some() -> None:
    judged = [point(float(step), step) for step in (1000, 2000, 3000)]
    (curve,) = curves([*judged, point(7.0, 1500, kind="rollout")], "dmc/walker_walk", "state")
    assert [p.env_steps for p in curve.runs[0]] == [1000, 2000, 3000]
    (few,) = curves([judged[0], point(7.0, 1500, kind="rollout")], "dmc/walker_walk", "state")
    assert [p.env_steps for p in few.runs[0]] == [1500]


@pytest.fixture(scope="module")
def page(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    run = tmp_path_factory.mktemp("runs") / "mine"
    shutil.copytree(trained, run)
    (run / "videos").mkdir(exist_ok=True)
    shutil.copyfile(_film(tmp_path_factory.mktemp("film")), run / "videos" / "final.mp4")
    assert report([f"runs={run}", f"out={out}"]) == 0
    return out


def _film(folder: Path) -> Path:
    import imageio

    path = folder / "film.mp4"
    frames = [np.full((64, 64, 3), 10 * index, np.uint8) for index in range(10)]
    imageio.mimwrite(path, frames, fps=10)
    return path


def test_one_file_that_needs_no_network(page: Path) -> None:
    text = (page / "index.html").read_text()
    outside = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"(src|href)=\"(?!data:)", outside)
    assert 'src="data:video/mp4;base64,' in text
    assert "cartpole_swingup, state" in text
    assert len(text) < 5_000_000
    assert "![learning-dmc-cartpole_swingup-state-480](figures/learning" in (page / "report.md").read_text()
    for kind in ("png", "svg"):
        assert (page / "figures" / f"learning-dmc-cartpole_swingup-state-480.{kind}").stat().st_size > 1000


def test_what_a_stranger_named_his_recipe_is_text(tmp_path: Path) -> None:
    from lightning_wm.report import store

    evil = replace(RUN, recipe="</script><script>alert(1)", task="dmc/<img src=x>")
    store.write_evaluations(tmp_path, [row([1.0, 2.0], run=evil)])
    store.write_curves(tmp_path, [point(1.0, step, run=evil) for step in (1, 2, 3)])
    assert report([f"out={tmp_path}"]) == 0
    text = (tmp_path / "index.html").read_text()
    assert "<script>alert(1)" not in text
    assert "<img src=x>" not in text


def test_page_false_writes_rows_alone(trained: Path, tmp_path: Path) -> None:
    assert report([f"runs={trained}", f"out={tmp_path}", "page=false"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.csv", "evaluations.csv"]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_in_a_browser_it_draws_answers_and_plays(page: Path, tmp_path: Path) -> None:
    """On a phone: charts are drawn, a tooltip answers the mouse, a video plays, nothing complains or sticks out."""
    with browser(tmp_path / "profile") as shown:
        shown.open((page / "index.html").as_uri())
        charts = shown.ask("document.querySelectorAll('.chart').length")
        assert charts >= 1
        shown.until(f"document.querySelectorAll('.chart svg.marks').length >= {charts}")
        assert shown.ask("document.documentElement.scrollWidth") <= 390
        assert "mean" in _tooltip(shown)
        shown.ask("document.querySelector('video').play()")
        assert shown.until("document.querySelector('video').currentTime") > 0
        assert shown.errors == []


MARK = "document.querySelector('.chart .mark-symbol path')"
TOOLTIP = "document.querySelector('#vg-tooltip-element.visible')?.innerText"


def _tooltip(shown: Browsed) -> str:
    """What appears where the mouse meets a mark of the first chart that has any."""
    shown.ask(f"{MARK}.scrollIntoView({{block: 'center'}})")
    shown.point(1, 1)
    centre = "(b => [b.left + b.width / 2, b.top + b.height / 2])"
    shown.point(*shown.ask(f"{centre}({MARK}.getBoundingClientRect())"))
    return str(shown.until(TOOLTIP))
