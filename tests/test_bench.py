"""`python -m lightning_wm.bench`: every word, the file it writes, and what it refuses; never how fast anything is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_wm.bench import WORDS, main
from lightning_wm.benchmarks import budget, replay, returns
from lightning_wm.envs import rendering_problem
from lightning_wm.runs.loading import load_run

KEYS = {"what", "peer", "ratio", "settings"}
TIMES = {"ours_ms", "peer_ms"}
EXPECTED = {
    "update": ["update/state", "update/state_b50", "update/pixels"],
    "behaviour": ["update/behaviour", "update/behaviour_64", "update/behaviour_all", "update/recipe_pixels"],
    "sac": ["update/sac"],
    "replay": ["replay/sample"],
    "trainer": ["trainer/overhead"],
    "planners": ["planner/cem", "planner/cem_rollouts", "planner/grad_mpc"],
}
needs_gl = pytest.mark.skipif(rendering_problem() is not None, reason="this machine cannot draw")


def measure(word: str, tmp_path: Path, *more: str) -> dict[str, Any]:
    """The file that a tiny benchmark writes."""
    path = tmp_path / "bench.json"
    assert main([word, "smoke=true", "repeats=1", f"json={path}", *more]) == 0
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def check_rows(rows: list[dict[str, Any]], names: list[str], unit: str = "ms") -> None:
    assert [row["what"] for row in rows] == names
    for row in rows:
        ours, theirs = row[f"ours_{unit}"], row[f"peer_{unit}"]
        assert set(row) == KEYS | {f"ours_{unit}", f"peer_{unit}"}
        assert ours > 0
        assert theirs > 0
        assert row["ratio"] == pytest.approx(ours / theirs)
        assert row["settings"]["threads"] == 1


@pytest.mark.parametrize("word", EXPECTED)
def test_one_benchmark_writes_its_rows(word: str, tmp_path: Path) -> None:
    content = measure(word, tmp_path)
    check_rows(content["rows"], EXPECTED[word])
    assert content["versions"]["torchrl"]
    assert content["machine"]["threads"] == 1


@needs_gl
def test_rendering_and_memory(tmp_path: Path) -> None:
    check_rows(measure("render", tmp_path)["rows"], ["render/step"])
    memory = measure("memory", tmp_path, "env_steps=10")
    check_rows(memory["rows"], ["memory/replay"], "gb")
    assert memory["rows"][0]["settings"]["env_steps"] == 1000  # whole episodes


def test_all_is_every_row_of_a_trained_model_and_leaves_out_what_cannot_be_drawn(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lightning_wm.envs.gl.rendering_problem", lambda: "no OpenGL here")
    content = measure("all", tmp_path, f"run={trained}")
    check_rows(content["rows"], [name for names in EXPECTED.values() for name in names])
    assert list(content["skipped"]) == ["render"]
    assert "render was left out" in (said := capsys.readouterr().out)
    assert "planner/cem_rollouts" in said
    sizes = content["rows"][-3]["settings"]
    assert sizes["action"] == 1


def test_the_number_of_threads_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    seen: list[int] = []
    monkeypatch.setattr(replay, "rows", lambda setting: seen.append(torch.get_num_threads()) or [])
    torch.set_num_threads(2)
    try:
        measure("replay", tmp_path)
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


def test_planners_on_one_model(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "planners.json"
    written = "grad_mpc,cem:candidates=8:elites=2:iterations=2,random"
    assert main(["planner", f"run={trained}", f"planners={written}", "episodes=3", f"json={path}"]) == 0
    rows = json.loads(path.read_text())["rows"]
    assert [row["label"] for row in rows] == written.split(",")
    assert [row["settings"].get("candidates") for row in rows][1:] == [8, None]
    for row in rows:
        assert row["episodes"] == len(row["returns"]) == 3
        assert (row["environments"], row["seed"]) == (1, 20_000)
        assert set(row["split_ms"]) == {"inference", "optimisation", "rest"}
        differences = [own - first for own, first in zip(row["returns"], rows[0]["returns"], strict=True)]
        assert row["difference"]["mean"] == pytest.approx(sum(differences) / 3)
    gradient, sampling, random = (row["split_ms"] for row in rows)
    assert gradient["inference"] > 0 < gradient["optimisation"]
    assert sampling["inference"] > 0 == sampling["optimisation"]
    assert random["inference"] == random["optimisation"] == 0 < random["rest"]
    assert "to the first" in capsys.readouterr().out
    assert not path.with_suffix(".png").exists()


def test_parts_of_a_decision_where_some_environments_play_nothing(trained: Path, tmp_path: Path) -> None:
    """Nine episodes on eight environments: the last plans are for eight as well, and one is played."""
    path, games = tmp_path / "planners.json", ["episodes=9", "environments=8"]
    assert main(["planner", f"run={trained}", "planners=grad_mpc:iterations=2", *games, f"json={path}"]) == 0
    (row,) = json.loads(path.read_text())["rows"]
    assert min(row["split_ms"].values()) > 0


def test_what_was_measured_before_an_interruption_is_kept(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, play = tmp_path / "planners.json", returns._play

    def interrupted(loaded: Any, label: str, *rest: Any) -> Any:
        if label == "cem":
            raise KeyboardInterrupt
        return play(loaded, label, *rest)

    monkeypatch.setattr(returns, "_play", interrupted)
    asked = ["planner", f"run={trained}", "planners=random,cem", "episodes=1", f"json={path}"]
    assert main(asked) == 130
    assert [row["label"] for row in json.loads(path.read_text())["rows"]] == ["random"]


def test_budgets_scale_settings_and_draw_a_picture(copy: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    run = copy()
    written = "cem:candidates=64:elites=8:iterations=2,random"
    asked = [f"planners={written}", "episodes=1", "budgets_ms=0.001,0.002,1e4", "repeats=1"]
    monkeypatch.setattr(budget, "MOST", 2)
    assert main(["planner", f"run={run}", *asked]) == 0
    rows = json.loads((run / "bench" / "planners.json").read_text())["rows"]
    assert [row["budget_ms"] for row in rows] == [0.001, 0.002, 1e4, None]
    assert [row["planner"] for row in rows] == ["cem", "cem", "cem", "random"]
    assert rows[0]["busy_ms"] == rows[1]["busy_ms"] > 0  # the same settings, played once
    least, most = (row["settings"] for row in rows[1:3])
    assert (least["candidates"], least["elites"], least["iterations"]) == (32, 4, 1)  # nothing fits a microsecond
    assert (most["candidates"], most["elites"], most["iterations"]) == (128, 16, 2)  # and all fits ten seconds
    assert len((run / "bench" / "planners.csv").read_text().splitlines()) == 5
    assert (run / "bench" / "planners.png").read_bytes().startswith(b"\x89PNG")


def test_a_number_of_every_planner_is_swept(trained: Path, tmp_path: Path) -> None:
    path, planners = tmp_path / "swept.json", "cem:candidates=8:elites=4:iterations=1,grad_mpc:iterations=1"
    asked = [f"planners={planners}", "sweep.of=candidates", "sweep.values=2,12", "episodes=2"]
    assert main(["planner", f"run={trained}", *asked, f"json={path}"]) == 0
    rows = json.loads(path.read_text())["rows"]
    assert [(row["value"], row["settings"]["candidates"]) for row in rows] == [(2, 2), (2, 2), (12, 12), (12, 12)]
    assert [row["settings"]["elites"] for row in rows[::2]] == [1, 6]  # in proportion
    assert [row.split(",")[2] for row in path.with_suffix(".csv").read_text().splitlines()[1:] if "," in row]
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_the_simulator_is_swept(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "swept.json"
    asked = ["planners=grad_mpc:iterations=1", "sweep.of=perturb.mass", "sweep.values=1,3", "episodes=1"]
    assert main(["planner", f"run={trained}", *asked, f"json={path}"]) == 0
    own, heavy = json.loads(path.read_text())["rows"]
    assert (own["value"], heavy["value"]) == (1, 3)
    assert own["returns"] != heavy["returns"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["sweep.of=candidate", "sweep.values=1"], "did you mean 'candidates'"),
        (["sweep.of=execute", "sweep.values=1"], "planner grad_mpc has no such number"),
        (["sweep.of=zero", "sweep.values=1"], "planner grad_mpc has no such number"),
        (["sweep.of=perturb.mas", "sweep.values=1"], "did you mean 'mass'"),
        (["sweep.of=candidates", "sweep.values=1,0"], "planner.candidates=0: expected at least 1"),
        (["sweep.of=iterations", "sweep.values=2.5"], "sweep.values=2.5"),
        (["sweep.of=candidates", "sweep.values=1", "budgets_ms=10"], "a picture has one axis"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_any_game(
    trained: Path, asked: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["planner", f"run={trained}", "planners=grad_mpc", "episodes=1000", *asked]) == 2
    assert message in capsys.readouterr().err


def test_a_field_inside_a_planners_field_can_be_written(trained: Path) -> None:
    made = returns.planner_of(load_run(trained), "grad_mpc:objective.discount=0.5:iterations=3")
    assert (made.objective.discount, made.iterations) == (0.5, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to measure"),
        (["repeats=3"], "nothing to measure"),
        (["updates"], "did you mean 'update'"),
        (["zzz"], "Known: " + ", ".join(WORDS)),
        (["all", "repeat=3"], "did you mean 'repeats'"),
        (["all", "repeats=0"], "repeats=0: expected one or more"),
        (["memory", "env_steps=-1"], "env_steps=-1"),
        (["planner"], "run is missing"),
        (["planner", "run=nowhere"], "no config.yaml"),
        (["planner", "run=nowhere", "budgets_ms=10,x"], "budgets_ms=10,x: expected a list, each a number"),
        (["planner", "run=nowhere", "budgets_ms=10,-3"], "budgets_ms=10,-3: expected milliseconds above 0"),
        (["planner", "run=nowhere", "sweep.of=candidates"], "sweep.values=[]: expected both or neither"),
        (["planner", "run=nowhere", "planners="], "planners"),
        (["planners", "run=nowhere"], "no config.yaml"),
    ],
)
def test_bad_input(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("grad_mcp", "did you mean 'grad_mpc'"),
        ("cem:candidate=3", "did you mean 'planner.candidates'"),
        ("cem:7", "planners=cem:candidates=100"),
        ("cem:elites=9:candidates=3", "more elites than candidates"),
    ],
)
def test_a_planner_that_cannot_be_built_is_refused_before_any_game(
    trained: Path, written: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["planner", f"run={trained}", f"planners=random,{written}", "episodes=1000"]) == 2
    assert message in capsys.readouterr().err


def test_help_names_every_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(word in said for word in (*WORDS, "budgets_ms"))
