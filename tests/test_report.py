"""`python -m lightning_wm.report`: rows of a real run, files that grow, published numbers, the pages' tables."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from lightning_wm.errors import UserError
from lightning_wm.report import store
from lightning_wm.report.__main__ import main
from lightning_wm.report.charts import _grid
from lightning_wm.report.methods import arms, curves, methods
from lightning_wm.report.pages import MARK, Results, filled
from lightning_wm.report.published import published, scores, strongest
from lightning_wm.report.rows import CurveRow, EvaluationRow, Run, compact, curve_rows, evaluation_row
from lightning_wm.report.run import recipe_name, run_settings, typed_settings
from lightning_wm.report.tables import joined, labels, levels, select

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
PAGES = (ROOT / "README.md", ROOT / "docs" / "learning.md")
RUN = Run("mine", "dmc/walker_walk", "state", "planet", 2, run_seed=0, revision="abc1234")


def report(arguments: list[str]) -> int:
    """The command without its page, of which tests/test_page.py is."""
    return main([*arguments, "page=false"])


def row(
    returns: list[float], planner: str = "cem", seed: int = 20_000, run: Run = RUN, **settings: object
) -> EvaluationRow:
    """A row as an evaluation's file gives it."""
    content = {
        "task": run.task, "agent": run.agent, "observation": run.observation, "planner": planner,
        "settings": {"name": planner, **settings}, "env_steps": 100_000, "checkpoint": "last",
        "run_seed": run.run_seed, "seed": seed, "environments": 1, "returns": returns,
        "mean": float(np.mean(returns)), "std": 0.5, "iqm": 2.0, "interval95": [None, None],
        "ms_per_decision": {"median": 1.5, "p95": 2.5}, "predicted_score": None, "model_steps": 12.0,
        "sequential_calls": 3.0, "fallbacks": 1,
    }  # fmt: skip
    return evaluation_row(content, run)


def point(value: float, env_steps: int = 1000, run: Run = RUN, kind: str = "evaluation") -> CurveRow:
    line = {f"{kind}/return": value, "env_steps": env_steps, "updates": 7}
    (row,) = curve_rows([line], run)
    return row


# The command on a real run


def test_a_run_becomes_rows_and_a_second_time_changes_nothing(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [f"runs={trained}", f"out={tmp_path / 'new' / 'results'}"]
    assert report(command) == 0
    printed = capsys.readouterr().out
    assert "quickstart" in printed
    files = [tmp_path / "new" / "results" / name for name in (store.EVALUATIONS, store.CURVES)]
    first = [(path.read_bytes(), path.stat().st_mtime_ns) for path in files]
    assert report(command) == 0
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in files] == first

    (written,) = store.read_evaluations(files[0].parent)
    content = json.loads((trained / "evaluations" / "final.json").read_text())
    assert written.returns == tuple(content["returns"])
    assert written.mean == pytest.approx(content["mean"], abs=6e-4)
    assert (written.recipe, written.run_seed, written.action_repeat) == ("quickstart", 0, 8)
    assert (written.env_steps, written.planner, written.episodes) == (480, "grad_mpc", content["episodes"])
    assert written.run_settings == '{"smoke":"true"}'
    revision = json.loads((trained / "meta.json").read_text())["revision"]
    assert written.revision == (revision or "")[:7]
    assert json.loads(written.settings)["objective.discount"] == content["settings"]["objective"]["discount"]

    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    curve = [(point.env_steps, point.updates, point.value) for point in store.read_curves(files[0].parent)]
    expected = [
        (line["env_steps"], line["updates"], pytest.approx(line[name], abs=6e-4))
        for name in ("evaluation/return", "rollout/return")
        for line in lines
        if name in line
    ]
    assert len(curve) > 3
    assert curve == expected


def test_without_runs_it_shows_what_is_there_beside_the_strongest(capsys: pytest.CaptureFixture[str]) -> None:
    assert report([f"out={RESULTS}"]) == 0
    printed = capsys.readouterr().out
    # Training seeds 799.7 and 723.2; long cells go on in the next line.
    (line,) = [line for line in printed.splitlines() if "state/walker_walk" in line and "761.5" in line]
    assert "policy_grad_mpc 8x5" in line
    assert "967.3, BRO Fast (UTD 2)" in line
    assert "dojeon-ai/SimbaV2" in line
    assert "none at this budget" in printed


def test_a_run_that_is_named_twice_is_added_once(trained: Path, tmp_path: Path) -> None:
    once, twice = tmp_path / "once", tmp_path / "twice"
    assert report([f"runs={trained}", f"out={once}"]) == report([f"runs={trained},{trained}", f"out={twice}"]) == 0
    assert (once / "curves.csv").read_text() == (twice / "curves.csv").read_text()


def test_a_page_that_is_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "bad.md"
    page.write_bytes(b"\xff\xfe")
    assert report([f"out={RESULTS}", f"pages={page}"]) == 2
    assert f"pages={page}: not UTF-8" in capsys.readouterr().err


def test_pages_are_written_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "before\n\n<!-- results: seeds recipe=state/walker_walk planner=policy seed=20000 -->\n| old |\n\nafter\n"
    )
    assert report([f"out={RESULTS}", f"pages={page}"]) == 0
    text = page.read_text()
    assert "| 0 | 963.0 | 951.0 to 975.1 |" in text
    assert "| 1 | 953.5 | 938.3 to 968.7 |" in text
    assert "| old |" not in text
    assert text.startswith("before\n\n<!-- results: seeds")
    assert text.endswith("|\n\nafter\n")
    assert "tables written" in capsys.readouterr().out
    assert report([f"out={RESULTS}", f"pages={page}"]) == 0
    assert "nothing to change" in capsys.readouterr().out


def failed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert report(arguments) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


def test_what_cannot_be_reported_is_refused(
    copy: Callable[[], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = copy(), tmp_path / "out"
    given = [f"runs={run}", f"out={out}"]
    message = failed([f"out={out}"], capsys)
    assert "no results" in message
    assert "type runs=runs/quickstart-s0" in message
    assert "not the folder of a run" in failed([f"runs={tmp_path}", f"out={out}"], capsys)
    assert "did you mean" in failed([f"run={run}"], capsys).lower()

    again = tmp_path / "again"
    shutil.copytree(run, again)
    assert "are the same recipe, settings and seed" in failed([f"runs={run},{again}", f"out={out}"], capsys)

    whole = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(whole[:-20])
    cut = failed(given, capsys)
    assert f"line {len(whole.splitlines())} is damaged or half written" in cut
    assert "continue it" in cut
    (run / "metrics.jsonl").write_text("")
    assert "is empty" in failed(given, capsys)
    (run / "metrics.jsonl").write_text('{"updates": 0, "env_steps": 5}\n')
    assert "no returns yet" in failed(given, capsys)
    (run / "metrics.jsonl").unlink()
    assert "metrics.jsonl is missing" in failed(given, capsys)
    assert not out.exists()

    (run / "metrics.jsonl").write_text(whole)
    file = tmp_path / "file"
    file.write_text("")
    assert "is a file" in failed([f"runs={run}", f"out={file}"], capsys)
    assert "page.md is missing" in failed([*given, f"pages={tmp_path / 'page.md'}"], capsys)


def test_files_that_are_not_ours_are_left_alone(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / store.EVALUATIONS
    theirs.write_text("task,score\nwalker,900\n")
    message = failed([f"runs={trained}", f"out={tmp_path}"], capsys)
    assert "is not ours" in message
    assert "out=<another folder>" in message
    assert theirs.read_text() == "task,score\nwalker,900\n"
    assert not (tmp_path / store.CURVES).exists()

    ours = (RESULTS / store.EVALUATIONS).read_text().splitlines()
    short = next(line for line in ours if ",40000," in line)
    theirs.write_text("\n".join([*ours[:2], short.replace(",40000,", ",many,")]))
    assert "line 3: env_steps is 'many'" in failed([f"out={tmp_path}"], capsys)
    theirs.write_text("\n".join([*ours[:2], "quickstart"]))
    assert "line 3: 1 cells" in failed([f"out={tmp_path}"], capsys)


# Rows and files


def test_settings_are_compact_and_keep_their_defaults() -> None:
    settings = {"name": "cem", "warm_start": False, "noise": 0.0, "elites": None, "objective": {"discount": 0.99}}
    assert compact(settings) == '{"elites":null,"objective.discount":0.99}'


def test_a_command_line_tells_what_it_changed() -> None:
    argv = [
        "recipe=quickstart", "run=runs/x", "seed=3", "planner=cem", "trainer.updates_per_turn=2e2", "--debug",
        "env_steps=9", "evaluation.every=5", "model.continue_head=false", "replay.batch=8", "replay.batch=16",
    ]  # fmt: skip
    config = {
        "planner": {"name": "cem"},
        "trainer": {"updates_per_turn": 200},
        "model": {"continue_head": False},
        "replay": {"batch": 16},
    }
    changed = {"planner": "cem", "trainer.updates_per_turn": 200, "model.continue_head": "false", "replay.batch": 16}
    assert run_settings(typed_settings(argv), config) == changed


def test_names_of_recipes() -> None:
    assert recipe_name("state/walker_walk") == "state/walker_walk"
    assert recipe_name("/home/me/mine.yaml") == "mine"
    assert recipe_name("runs/first-s0/config.yaml") == "first-s0"


def test_a_curve_has_every_evaluation_and_a_hundred_rollouts() -> None:
    lines = [{"rollout/return": float(step), "env_steps": step, "updates": 0} for step in range(1, 299)]
    lines += [{"evaluation/return": 5.0, "env_steps": step, "updates": 1} for step in range(150)]
    lines += [
        {"evaluation/return": None, "env_steps": 1, "updates": 1},
        {"train/kl": 1.0, "env_steps": 1, "updates": 1},
    ]
    rows = curve_rows(lines, RUN)
    assert sum(row.kind == "evaluation" for row in rows) == 150
    # Of 298 every third: 1, 4, ..., 298.
    assert [row.value for row in rows if row.kind == "rollout"] == [1.0 + 3 * place for place in range(100)]


def test_files_give_back_the_rows(tmp_path: Path) -> None:
    awkward = replace(RUN, recipe='a,"b"\u2028', settings='{"planner":"cem"}')
    rows = [row([1.0, 0.1 + 0.2], run=awkward), row([123.456789] * 20_000)]
    store.write_evaluations(tmp_path, rows)
    again = store.read_evaluations(tmp_path)
    rounded = {"mean": 0.0, "lowest": 0.0}
    assert [replace(entry, **rounded) for entry in again] == [replace(entry, **rounded) for entry in rows]
    assert (again[0].mean, again[0].lowest) == (0.65, 0.3)
    points = [point(1.25, run=awkward), point(2.5, kind="rollout")]
    store.write_curves(tmp_path, points)
    assert store.read_curves(tmp_path) == points


def test_the_same_evaluation_is_replaced_and_others_stay() -> None:
    old = [row([1.0]), row([2.0], seed=7), row([3.0], planner="icem"), row([4.0], candidates=5)]
    new = [row([9.0])]
    merged = store.merged_evaluations(old, new)
    assert [entry.returns for entry in merged] == [(4.0,), (2.0,), (9.0,), (3.0,)]
    assert store.merged_evaluations(merged, new) == merged


def test_a_run_that_was_trained_anew_replaces_the_run_before() -> None:
    other_seed = replace(RUN, run_seed=1)
    old = [row([1.0]), row([2.0], planner="icem"), row([3.0], run=other_seed)]
    new = [row([9.0], run=replace(RUN, revision="def5678"))]
    assert [entry.returns for entry in store.merged_evaluations(old, new)] == [(9.0,), (3.0,)]
    curves = [point(1.0, 500), point(2.0, 700), point(3.0, run=other_seed)]
    merged = store.merged_curves(curves, [point(9.0, 600)])
    assert [(entry.run_seed, entry.env_steps, entry.value) for entry in merged] == [(0, 600, 9.0), (1, 1000, 3.0)]


def test_a_model_that_is_gone_leaves_no_perturbed_evaluation_behind() -> None:
    """What an evaluation changes of the physics is no other run."""
    heavy = replace(RUN, settings='{"perturb.mass":1.5}')
    elsewhere = replace(RUN, run_seed=1, settings='{"perturb.mass":1.5}')
    old = [row([1.0]), row([2.0], run=heavy), row([3.0], run=elsewhere)]
    new = row([4.0], run=replace(RUN, revision="def5678"))
    assert {entry.returns for entry in store.merged_evaluations(old, [new])} == {(3.0,), (4.0,)}


# Tables


def test_evaluations_whose_seeds_follow_each_other_are_joined() -> None:
    parts = [row([3.0], seed=12), row([1.0, 2.0], seed=10), row([8.0], seed=20)]
    parts = [replace(part, predicted=float(part.seed)) for part in parts]
    first, apart = joined(parts)
    assert (first.returns, first.row.seed) == ((1.0, 2.0, 3.0), 10)
    assert first.predicted == pytest.approx((2 * 10 + 12) / 3)
    assert apart.returns == (8.0,)
    # mean 2, standard error 1/sqrt(3), t(0.975, 2) = 4.302653
    assert first.interval == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), rel=1e-6)
    # Ten in one go and twenty in fives are two series.
    tens = row([0.0] * 10)
    fives = [row([1.0] * 5, seed=20_000 + 5 * part) for part in range(4)]
    assert sorted(len(series.returns) for series in joined([tens, *fives])) == [10, 20]


def test_labels_name_what_differs() -> None:
    sizes = {"horizon": 12, "iterations": 25, "candidates": 8}
    rows = [
        row([1.0], "grad_mpc", step_size=0.3, **sizes),
        row([1.0], "grad_mpc", step_size=0.3, objective={"terminal_value": True}, **sizes),
        row([1.0], "cem", **sizes),
        row([1.0], "policy", horizon=1),
    ]
    assert labels(rows) == ["grad_mpc 8x25", "grad_mpc 8x25, terminal_value", "cem 12x25x8", "policy"]


def test_arms_that_differ_in_one_s_noise_and_another_s_stay_apart() -> None:
    of = [("curl", '{"rollout.noise":1}'), ("curl", '{"planner.noise":1}'), ("curl", '{"planner.horizon":3}')]
    assert arms(of) == ["curl, rollout.noise=1", "curl, planner.noise=1", "curl, horizon=3"]
    runs = [replace(RUN, settings=settings, run_seed=seed) for seed, (_, settings) in enumerate(of[:2])]
    assert [method.scores.tolist() for method in methods([row([1.0], run=runs[0]), row([9.0], run=runs[1])])] == [
        [9.0],
        [1.0],
    ]


def test_curves_are_drawn_to_the_end_of_the_longest() -> None:
    short, long = replace(RUN, run_seed=0), replace(RUN, run_seed=1)
    points = [point(1.0, step, short) for step in (1000, 2000, 3000)]
    points += [point(2.0, step, long) for step in (2000, 4000, 6000, 8000)]
    assert _grid(curves(points, RUN.task, RUN.observation)) == [1000, 2000, 3000, 4000, 6000, 8000]


def test_only_as_many_episodes_are_paired() -> None:
    pair = [row([1.0, 2.0], "policy"), row([2.0, 3.0, 4.0], "policy_grad_mpc")]
    assert "| - |" in filled("<!-- results: behaviour -->\n", Results(pair, []))


def test_per_cent_of_a_cost_keep_their_sign() -> None:
    worse = [row([-100.0, -200.0], "cem"), row([-150.0, -250.0], "mppi")]
    assert "| -50.0 (-50.0 to -50.0) | -33.3 (" in filled("<!-- results: planners -->\n", Results(worse, []))


def test_levels_are_means_over_training_seeds() -> None:
    seeds = [replace(RUN, run_seed=seed) for seed in (1, 0)]
    (level,) = levels([row([1.0, 3.0], run=seeds[0]), row([5.0, 7.0], run=seeds[1])])
    assert (level.means, level.mean, level.episodes, level.revisions) == ((6.0, 2.0), 4.0, 2, ("abc1234",))


def test_rows_are_chosen_by_columns_and_settings() -> None:
    changed = replace(RUN, settings='{"model":"planet","replay.batch":8}')
    rows = [row([1.0], candidates=5), row([2.0], "icem"), row([3.0], "mppi"), row([4.0], run=changed)]
    assert [entry.returns for entry in select(rows, {"planner": "icem,mppi"})] == [(2.0,), (3.0,)]
    assert [entry.returns for entry in select(rows, {"candidates": "5"})] == [(1.0,)]
    assert [entry.returns for entry in select(rows, {"run_settings": changed.settings})] == [(4.0,)]


def test_a_mark_of_nothing_is_refused() -> None:
    results = Results([row([1.0])], [])
    with pytest.raises(UserError, match="no table 'seds'"):
        filled("<!-- results: seds -->\n", results)
    with pytest.raises(UserError, match="no results for <!-- results: seeds recipe=other -->"):
        filled("<!-- results: seeds recipe=other -->\n", results)


@pytest.mark.parametrize("kind", ["behaviour", "summary"])
def test_two_settings_never_share_a_cell(kind: str) -> None:
    """The last one would win without a word."""
    pair = [row([1.0], "policy"), row([2.0], "policy_grad_mpc", draws=16)]
    both = Results([*pair, row([3.0], "policy_grad_mpc", draws=0)], [])
    with pytest.raises(UserError, match="policy_grad_mpc with different settings"):
        filled(f"<!-- results: {kind} -->\n", both)
    assert "| 2" in filled(f"<!-- results: {kind} -->\n", Results(pair, []))


# What the project says it reached


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tables_of_the_pages_are_what_the_files_say(page: Path) -> None:
    results = Results(store.read_evaluations(RESULTS), store.read_curves(RESULTS))
    text = page.read_text()
    marks = MARK.findall(text)
    assert len(marks) == text.count("<!-- results:") == {"README.md": 1, "learning.md": 8}[page.name]
    assert all(table.count("\n") > 3 for *_, table in marks)
    assert filled(text, results) == text, f"type python -m lightning_wm.report out=docs/results pages={page.name}"
    wrong = re.sub(r"\b(9\d\d|8\d\d)\b", "999", text)
    assert filled(wrong, results) != wrong


def test_the_files_agree_with_themselves() -> None:
    """Means, deviations and intervals against the returns beside them; rows sorted and there once."""
    rows = store.read_evaluations(RESULTS)
    assert len(rows) > 60
    assert [entry.key for entry in rows] == sorted({entry.key for entry in rows})
    for entry in rows:
        returns = np.array(entry.returns)
        assert len(returns) == entry.episodes
        assert entry.mean == pytest.approx(returns.mean(), abs=6e-4)
        assert entry.lowest == pytest.approx(returns.min(), abs=6e-4)
        assert entry.iqm == pytest.approx(stats.trim_mean(returns, 0.25), abs=6e-4)
        if entry.episodes > 1:
            assert entry.std == pytest.approx(returns.std(ddof=1), abs=6e-4)
            half = stats.t.ppf(0.975, len(returns) - 1) * stats.sem(returns)
            assert (entry.low, entry.high) == pytest.approx((returns.mean() - half, returns.mean() + half), abs=6e-4)
    curves = store.read_curves(RESULTS)
    assert {entry.run for entry in rows} == {point.run for point in curves}


# Published numbers


def test_the_strongest_published_numbers() -> None:
    best = {
        "cartpole_swingup": (879.7, "SimbaV2 (UTD 8)", "dojeon-ai/SimbaV2"),
        "ball_in_cup_catch": (981.2, "TD-MPC2", "nicklashansen/tdmpc2"),
        "reacher_easy": (967.1, "SimbaV2 (UTD 2)", "dojeon-ai/SimbaV2"),
        "walker_walk": (967.3, "BRO Fast (UTD 2)", "dojeon-ai/SimbaV2"),
        "cartpole_swingup_sparse": (797.2, "BRO (UTD 10)", "dojeon-ai/SimbaV2"),
    }
    for task, (mean, method, whose) in best.items():
        number = strongest(f"dmc/{task}", "state", 100_000)
        assert number is not None
        assert (number.mean, number.method, number.whose) == (mean, method, whose)
    assert strongest("dmc/walker_walk", "state", 40_000) is None
    assert strongest("gym/Pendulum-v1", "state", 100_000) is None
    assert strongest("dmc/walker_walk", "both", 100_000) is None


def test_whose_runs_of_dreamer_v3_they_are() -> None:
    """Its authors' own score files, and what TD-MPC2's authors got from it, are two sets of numbers."""
    numbers = {
        "danijar/dreamerv3": [527.7, 729.6, 693.4, 475.2, 24.8],
        "nicklashansen/tdmpc2": [676.7, 870.5, 872.1, 630.1, 315.3],
    }
    tasks = ("cartpole_swingup", "ball_in_cup_catch", "reacher_easy", "walker_walk", "cartpole_swingup_sparse")
    for whose, means in numbers.items():
        theirs = [
            number.mean
            for task in tasks
            for number in scores(task, "state", 100_000)
            if number.method.startswith("DreamerV3") and number.whose == whose
        ]
        assert theirs == means


def test_the_shipped_numbers_say_what_they_know() -> None:
    rows = published()
    assert len(rows) > 1800
    assert [number.mean for number in scores("walker_walk", "state", 100_000)] == sorted(
        (r.mean for r in rows if (r.task, r.observation, r.env_steps) == ("walker_walk", "state", 100_000)),
        reverse=True,
    )
    curl = next(r for r in rows if r.source == "CURL (arXiv 2004.04136) Table 1")
    assert (curl.task, curl.method, curl.mean, curl.std, curl.seeds) == ("finger_spin", "CURL", 767.0, 56.0, 10)
    assert (curl.whose, curl.action_repeat) == ("CURL (arXiv 2004.04136)", None)
    assert {r.action_repeat for r in rows if r.source.endswith("(Timestep x action repeat 2)")} == {2}
    own = [r for r in rows if r.method == "BRO (UTD 10, own data, repeat 1)"]
    assert {(r.whose, r.action_repeat) for r in own} == {("naumix/BiggerRegularizedOptimistic", 1)}
    assert {r.std for r in rows if r.method == "EfficientZero-V2"} == {None}
