"""Studies that train nothing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_wm.study import benches, grid
from lightning_wm.study.__main__ import main
from lightning_wm.study.grid import sized, study_file

SHIPPED = ("action_dimensions", "candidates", "planning_time", "policy_gradient_balance", "robustness")


def written(folder: Path, text: str) -> str:
    path = folder / "benches.yaml"
    path.write_text(text, "utf-8")
    return f"study={path}"


def test_its_lines_are_played_once_and_a_failing_one_is_listed(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"planner run={trained} planners=random,grad_mpc:iterations=1 episodes=1"
    out = tmp_path / "out"
    given = [written(tmp_path, f"bench:\n  good: {line}\n  bad: planner run=nowhere\n"), f"out={out}"]
    assert main(given) == 1
    assert "failed: bad" in capsys.readouterr().out
    assert [row["label"] for row in json.loads((out / "good.json").read_text())["rows"]] == line.split()[2][9:].split(
        ","
    )
    before = (out / "good.json").stat().st_mtime_ns
    assert main(given) == 1
    assert (out / "good.json").stat().st_mtime_ns == before
    capsys.readouterr()
    assert main(["status", *given]) == 0
    assert [row.split(",")[0] for row in capsys.readouterr().out.splitlines()] == ["good: finished", "bad: to do"]


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("size", ["small", "full"])
def test_every_shipped_one_is_lines_of_bench(name: str, size: str, tmp_path: Path) -> None:
    from lightning_wm import config
    from lightning_wm.bench import WORDS, BenchOptions
    from lightning_wm.benchmarks import returns, sweep
    from lightning_wm.runs.loading import load_run

    for bench in benches.benches(sized(study_file(name), size), study_file(name), tmp_path):
        word, *rest = bench.words
        options = config.options(rest, BenchOptions)
        assert word in WORDS
        if options.run is not None:
            loaded = load_run(options.run)
            planners = returns.entries(loaded, options.planners)
            assert planners
            if options.sweep.of is not None:
                points = sweep.points(loaded, options.planners, options.sweep.of, options.sweep.values)
                assert len(points) == len(options.sweep.values) > 1


def test_lines_beside_arms_are_played_on_their_runs(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = "grad_mpc:iterations=1:candidates=2:horizon=2"
    text = f"""\
arms: {{one: {{recipe: quickstart}}}}
seeds: [0, 1]
bench: {{gradient: gradient planners={few} episodes=1}}
"""
    out = tmp_path / "out"
    given = [written(tmp_path, text), f"out={out}"]
    tree = grid.sized(tmp_path / "benches.yaml", "full")
    cells = grid.cells(grid.read_study(tmp_path / "benches.yaml", "full"), out)
    (line,) = benches.benches(tree, tmp_path / "benches.yaml", out, cells)
    assert line.words[-1] == f"runs={out}/one/seed0,{out}/one/seed1"
    assert main(["status", *given]) == 0
    assert "gradient: to do" in capsys.readouterr().out

    for cell in cells:  # as if each had been trained to its end here
        shutil.copytree(trained, cell.run)
    assert benches.run([line]) == 0
    measured = json.loads(line.file.read_text())["rows"]
    assert [row["run"] for row in measured] == ["one/seed0"] * 2 + ["one/seed1"] * 2
    assert line.file.with_suffix(".png").is_file()
    assert line.finished
    for others in (cells[:1], [replace(cell, env_steps=cell.env_steps + 1) for cell in cells]):
        (other,) = benches.benches(tree, tmp_path / "benches.yaml", out, others)
        assert not other.finished
    line.file.unlink()
    assert not line.finished


@pytest.mark.parametrize("code", [130, 143, 5])
def test_what_stops_one_line_stops_them_all(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that came while it was played, or a full disk."""
    played = []
    monkeypatch.setattr("lightning_wm.bench.main", lambda words: played.append(words[0]) or code)
    assert main([written(tmp_path, "bench: {a: one, b: two}"), f"out={tmp_path / 'out'}"]) == code
    assert played == ["one"]


@pytest.mark.parametrize(
    ("text", "more", "said"),
    [
        ("bench: 3", [], "expected names"),
        ("bench: {a: 3}", [], "bench.a=3"),
        ("bench: {a/b: all}", [], "bench.a/b=all"),
        ("bench: {a: all}\nseeds: [0]", [], "seeds: a study with bench and without arms trains nothing"),
        (
            "arms: {b: {recipe: quickstart}}\nseeds: [0]\nbench: {a: planner}",
            [],
            "bench.a=planner: beside arms expected a line that compares runs",
        ),
        ("bench: {a: all}", ["jobs=2"], "jobs=2: this study trains nothing"),
        ("bench: {a: all}", ["until=18:30"], "until=18:30: this study trains nothing"),
    ],
)
def test_bad_input(text: str, more: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([written(tmp_path, text), *more]) == 2
    assert said in capsys.readouterr().err
