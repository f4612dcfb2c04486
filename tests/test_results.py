"""Statistics against values worked out by hand, and the documented file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from lightning_wm.playing.episode import Episode, measures
from lightning_wm.playing.results import Evaluation, decimal, paired, show, summarise

ABOUT: dict[str, Any] = {
    "task": "dmc/cartpole_swingup",
    "agent": "planet",
    "observation": "state",
    "settings": {},
    "env_steps": 1000,
    "checkpoint": "last",
    "run_seed": 0,
    "seed": 20_000,
    "environments": 1,
}


def evaluation(returns: list[float], planner: str = "cem", **fields: Any) -> Evaluation:
    return Evaluation(planner=planner, returns=returns, **ABOUT, **fields)


def test_interval_by_hand() -> None:
    # mean 2, standard error 1/sqrt(3), t(0.975, 2) = 4.302653
    low, high = evaluation([1.0, 2.0, 3.0]).interval95
    assert (low, high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), rel=1e-6)


def test_iqm_leaves_out_a_quarter_on_each_side() -> None:
    assert evaluation([-100.0, 1.0, 3.0, 100.0]).iqm == 2.0


def test_paired_differences_are_by_episode() -> None:
    # differences 1, 1, 4: mean 2, standard error 1
    first, other = [10.0, 20.0, 30.0], [11.0, 21.0, 34.0]
    assert paired(first, other) == pytest.approx((2.0, 2 - 4.302653, 2 + 4.302653), rel=1e-6)
    assert paired(first, first) == (0.0, 0.0, 0.0)


def test_one_episode_has_no_interval(tmp_path: Path) -> None:
    one = evaluation([5.0])
    one.save(tmp_path / "one.json")
    content = json.loads((tmp_path / "one.json").read_text())
    assert content["interval95"] == [None, None]
    assert content["std"] == 0.0
    show([one.as_json()])


def test_scores_that_are_logged_are_of_plans_and_not_of_fallbacks() -> None:
    scores = [(1.0, 2.0), (1.0, -math.inf), (3.0, 4.0)]
    logged = measures([Episode(0, None, milliseconds=[1.0] * 3, scores=scores, fallbacks=1)])
    assert (logged["plan/score_first"], logged["plan/score_best"], logged["plan/fallbacks"]) == (2.0, 3.0, 1.0)
    none = measures([Episode(0, None, milliseconds=[1.0], scores=scores[1:2], fallbacks=1)])
    assert "plan/score_best" not in none


def test_the_file_has_the_documented_keys(tmp_path: Path) -> None:
    episodes = [
        Episode(seed, None, total=float(seed), milliseconds=[1.0, 3.0], scores=[(1.0, 2.0)], by_policy=seed)
        for seed in range(4)
    ]
    assert measures(episodes)["plan/by_policy"] == 6 / 8
    summarise(episodes, planner="cem", **ABOUT).save(tmp_path / "x.json")
    content = json.loads((tmp_path / "x.json").read_text())
    documented = {
        "task", "agent", "observation", "planner", "settings", "env_steps", "checkpoint", "run_seed", "seed",
        "environments", "episodes", "returns", "mean", "std", "iqm", "interval95", "ms_per_decision", "model_steps",
        "sequential_calls", "fallbacks", "by_policy",
    }  # fmt: skip
    assert documented <= set(content)
    assert content["by_policy"] == 6
    assert content["returns"] == [0.0, 1.0, 2.0, 3.0]
    assert content["ms_per_decision"]["median"] == 2.0


def test_the_table_pairs_what_it_compares(capsys: pytest.CaptureFixture[str]) -> None:
    both = [evaluation([10.0, 20.0, 30.0], "grad_mpc"), evaluation([11.0, 21.0, 34.0], "cem")]
    show([one.as_json() for one in both])
    printed = capsys.readouterr().out
    assert "+2.0 (-2.3 to +6.3)" in printed
    assert "lowest" in printed
    assert " 11.0 " in printed


def test_small_returns_are_not_printed_as_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["831.9", "1.0", "0.034", "-0.0012", "0.0"]
    assert [decimal(value) for value in (831.94, 1.0, 0.034, -0.0012, 0.0)] == texts
    show([evaluation([0.02, 0.04], "grad_mpc").as_json()])
    assert "0.03" in capsys.readouterr().out
