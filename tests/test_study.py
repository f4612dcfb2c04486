"""The study runner: a grid's cells as real runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path

import pytest

from lightning_wm.config import load
from lightning_wm.errors import Interrupted
from lightning_wm.fit import main as fit
from lightning_wm.protocols import Spaces
from lightning_wm.registry import build
from lightning_wm.runs.checkpoint import load_checkpoint
from lightning_wm.runs.directory import RunDirectory
from lightning_wm.study.__main__ import main
from lightning_wm.study.grid import Cell, cells, read_study, study_file
from lightning_wm.study.jobs import Jobs
from lightning_wm.study.launch import deadline
from lightning_wm.study.progress import overview, seconds_left, state
from lightning_wm.study.seeds import seed_cells, split
from lightning_wm.training.experiment import build_agent

TEXT = """\
arms:
  plain: {recipe: quickstart}
seeds: [0]
overrides: [smoke=true]
"""


def written(folder: Path, text: str) -> str:
    path = folder / "grid.yaml"
    path.write_text(text, "utf-8")
    return f"study={path}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("arms: {a: {recipe: quickstart, seed: 1}}\nseeds: [0]\n", "seed"),
        ("arms: {a: {recipe: quickstart, overrides: [planner.candidats=3]}}\nseeds: [0]\n", "planner.candidates"),
        ("arms: {a: {recipe: quickstart}}\nseeds: [0, 0]\n", "there twice"),
        ("arms: {a: {seed: 1}}\nseeds: [0]\n", "seed"),
        ("arms: {a: {recipe: quickstart, overrides: [seed=5]}}\nseeds: [0]\n", "type seeds: [0, 1] in the file"),
        ("arms: {a: {recipe: quickstart, overrides: [run=b]}}\nseeds: [0]\n", "type out=<a folder>"),
        ('bench: {a: "planner run=\'zoo:x"}\n', "No closing quotation; close the quotes"),
        ("arms: {a: {overrides: [smoke=true]}}\nseeds: [0]\n", "expected one of them"),
        ("arms: {a: {recipes: [dens]}}\nrecipes: {dense: [quickstart]}\nseeds: [0]\n", "no such list in recipes"),
        (
            "arms: {a: {recipes: [all]}, quickstart_a: {recipe: quickstart}}\n"
            "recipes: {all: [quickstart]}\nseeds: [0]\n",
            "the name of another arm",
        ),
    ],
)
def test_faults_of_a_file_end_it_before_anything_starts(text, said, tmp_path, capsys):
    assert main([written(tmp_path, text), f"out={tmp_path / 'out'}"]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["study=learnin"], "did you mean 'learning'"),
        ([], "study: missing; type e.g. study=learning\n"),
        (["status", "learning"], "learning: expected key=value, for example"),
        (["study=learning", "until=25:00"], "HH:MM"),
        (["study=learning", "jobs=0"], "jobs=0: expected at least 1"),
        (["study=learning", "launcher=slurm", "until=18:30"], "sbatch=[--time="),
        (["study=learning", "sbatch=[--time=1]"], "launcher=slurm"),
    ],
)
def test_faults_of_the_command_line(typed, said, capsys):
    assert main(typed) == 2
    assert said in capsys.readouterr().err


def test_a_stopped_study_goes_on_and_a_finished_one_starts_nothing(tmp_path, capsys):
    given = [written(tmp_path, TEXT), f"out={tmp_path / 'out'}"]
    process = subprocess.Popen([sys.executable, "-m", "lightning_wm.study", *given], env=dict(os.environ))
    while not (tmp_path / "out/plain/seed0/config.yaml").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) in (130, 0)
    assert main(given) == 0
    log = tmp_path / "out/plain/seed0.log"
    size = log.stat().st_size
    assert main(given) == 0
    assert log.stat().st_size == size
    capsys.readouterr()
    assert main(["status", *given]) == 0
    assert "plain/seed0" in (line := capsys.readouterr().out)
    assert "finished" in line
    assert "1 of 1 runs finished" in line


def test_an_arm_of_several_recipes_is_one_for_each(tmp_path):
    text = """\
recipes: {dense: [state/walker_walk, state/cheetah_run], sparse: [sparse/hopper_hop]}
arms: {sac: {recipes: [dense, sparse], overrides: [agent=sac]}, other: {recipe: quickstart}}
seeds: [3]
"""
    study = read_study(Path(written(tmp_path, text).removeprefix("study=")), "full")
    made = {cell.arm: cell.arguments for cell in cells(study, tmp_path / "out")}
    assert list(made) == ["walker_walk_sac", "cheetah_run_sac", "hopper_hop_sac", "other"]
    run = tmp_path / "out/hopper_hop_sac/seed3"
    assert made["hopper_hop_sac"] == ("recipe=sparse/hopper_hop", "agent=sac", "seed=3", f"run={run}")


@pytest.mark.parametrize("size", ["small", "full"])
def test_every_arm_of_the_papers_comparison_can_be_built(size, tmp_path):
    made = cells(read_study(study_file("paper"), size), tmp_path)
    assert {cell.seed for cell in made} == set(range({"small": 2, "full": 5}[size]))
    agents = set()
    for cell in made:
        if cell.seed == 0:
            typed = [token for token in cell.arguments if not token.startswith("run=")]
            config = load([*typed, "smoke=true", "trainer.accelerator=cpu"]).config
            side, kind = config.observation.render.size, config.observation.kind
            seen = {"observation": 4} if kind == "state" else {"pixels": (3, side, side)}
            agent = build_agent(config, Spaces(action=2, **seen))
            agent.actor(build("planner", config.planner))
            agents.add((kind, config.agent.name, config.planner.name))
    kinds = {kind for kind, *_ in agents}
    assert kinds == ({"state", "pixels"} if size == "small" else {"pixels"})
    assert {name for _, name, _ in agents} == {"planet", "dreamer", "curl", "sac" if size == "small" else "drq"}
    assert {name for *_, name in agents} == {"grad_mpc", "cem", "policy", "policy_grad_mpc"}


def test_a_deadline_is_the_next_time_of_day_that_it_names():
    now = datetime(2030, 1, 2, 18, 30)
    assert deadline("18:31", now) == datetime(2030, 1, 2, 18, 31).timestamp()
    assert deadline("18:30", now) == datetime(2030, 1, 3, 18, 30).timestamp()
    assert deadline("7:05", now) == datetime(2030, 1, 3, 7, 5).timestamp()


def test_the_deadline_stops_a_run_with_a_checkpoint_and_is_no_failure(tmp_path, capsys):
    text = TEXT.replace("smoke=true", "smoke=true, env_steps=80000, evaluation.every=0")
    study = read_study(Path(written(tmp_path, text).removeprefix("study=")), "full")
    (cell, never) = cells(study.__class__(study.arms, [0, 1], study.overrides), tmp_path / "out")
    jobs = Jobs(1)

    def name_the_hour():
        while not list(cell.run.glob("checkpoints/turn-*.ckpt")):
            time.sleep(0.05)
        jobs.deadline = time.time()

    watch = threading.Thread(target=name_the_hour)
    watch.start()
    jobs.run([cell, never])
    watch.join()
    assert jobs.close() == 0
    assert "stopped at the time" in capsys.readouterr().err
    assert (state(cell), state(never)) == ("stopped", "waiting")
    newest = sorted(cell.run.glob("checkpoints/turn-*.ckpt"))[-1]
    counters = load_checkpoint(newest)["lightning_wm"]["ranks"][0]["counters"]
    assert 0 < counters["env_steps"] < 80000


def test_several_seeds_of_a_recipe_and_one_that_fails(tmp_path, capsys):
    """The other goes on, the failed one is named with its error, and a second call runs it alone."""
    command = ["recipe=quickstart", "smoke=true", f"run={tmp_path}", "seed=0,1", "jobs=2"]
    (tmp_path / "seed1").write_text("a file where the run should be")
    assert fit(command) == 1
    said = capsys.readouterr().err
    assert "failed: quickstart/seed1: error: " in said
    assert str(tmp_path / "seed1.log") in said
    assert (tmp_path / "seed0" / "evaluations" / "final.json").is_file()
    assert (tmp_path / "seed1.failed").read_text() == "2\n"
    (tmp_path / "seed1").unlink()
    size = (tmp_path / "seed0.log").stat().st_size
    assert fit(command) == 0
    assert (tmp_path / "seed0.log").stat().st_size == size
    seed = json.loads((tmp_path / "seed1" / "meta.json").read_text())["seed"]
    assert (seed, (tmp_path / "seed1.failed").exists()) == (1, False)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["recipe=quickstart", "seed=0,x"], "'x' is no whole number"),
        (["recipe=quickstart", "seed=1,1"], "there twice"),
        (["recipe=quickstrt", "seed=0,1"], "did you mean"),
        (["recipe=quickstart", "seed=0,1", "job=2"], "no such key"),
    ],
)
def test_faults_of_several_seeds(typed, said, capsys):
    assert fit(typed) == 2
    assert said in capsys.readouterr().err


def test_the_last_folder_that_was_typed_is_that_of_several_seeds(tmp_path):
    halves = split(["recipe=quickstart", "seed=0,1", f"run={tmp_path / 'a'}", f"run={tmp_path / 'b'}"])
    assert [cell.run for cell in seed_cells(halves)] == [tmp_path / "b" / "seed0", tmp_path / "b" / "seed1"]


def test_several_seeds_are_printed_as_the_first(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert fit(["recipe=quickstart", "seed=3,4", "jobs=2", "--print"]) == 0
    assert "\nseed: 3  # command line\n" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


# ---- how long it takes


def measured(folder: Path, name: str, *points: tuple[float, int]) -> Cell:
    """A cell of 1,000 env steps whose run has come through (seconds, env steps)."""
    cell = Cell(name[0], int(name[1]), folder / name, (), 1000)
    cell.run.mkdir()
    rows = [{"seconds": seconds, "env_steps": steps, "updates": 0, "time/update": 1.0} for seconds, steps in points]
    (cell.run / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return cell


def test_the_time_left_is_that_of_the_busiest_job(tmp_path):
    """a0 has 600 env steps to go at 0.2 s; a1 goes at its arm's pace, 200 s; b0 at the mean of both arms', 0.4 s."""
    slow, fast = measured(tmp_path, "c0", (0, 0), (60, 100)), measured(tmp_path, "a0", (10, 100), (70, 400))
    waiting = measured(tmp_path, "a1")
    other = measured(tmp_path, "b0")
    assert seconds_left([waiting, other], 1) is None
    assert seconds_left([fast, waiting], 1) == pytest.approx(120 + 200)
    # c0 takes 0.6 * 900 = 540 s; meanwhile a0 (120), a1 (200) and b0 (400) follow each other on the second job.
    assert seconds_left([slow, fast, waiting, other], 2) == pytest.approx(720)
    assert overview([fast, waiting], 1) == "0 of 2 runs finished | 5:20 left"


class Ending:
    """A job that has begun a run and ends at once."""

    def __init__(self, cell: Cell, code: int) -> None:
        cell.run.mkdir()
        (cell.run / "config.yaml").touch()
        self.code = code

    def poll(self) -> int:
        return self.code

    def send_signal(self, number: int) -> None:
        pass


def test_a_run_that_was_taken_away_is_not_finished_by_its_mark(tmp_path):
    """Its mark lies beside it and stays; the run that takes its place has come nowhere yet."""
    cell = Cell("a", 0, tmp_path / "a0", (), 1000)
    cell.beside("finished").write_text("1000\n")
    assert state(cell) == "waiting"
    Jobs(1, start=lambda cell: Ending(cell, 4)).run([cell])
    assert state(cell) == "exit 4"


def test_a_run_that_comes_to_its_end_after_the_deadline_is_finished(tmp_path):
    cell = Cell("a", 0, tmp_path / "a0", (), 1000)

    class Late(Ending):
        def poll(self) -> int | None:
            return self.code if jobs.late else None

    jobs = Jobs(1, deadline=time.time(), start=lambda cell: Late(cell, 0))
    jobs.run([cell])
    assert jobs.late
    assert state(cell) == "finished"


def test_a_terminal_that_is_closed_stops_the_runs_too(tmp_path):
    cell, sent = Cell("a", 0, tmp_path / "a0", (), 1000), []

    class Running(Ending):
        def poll(self) -> int | None:
            if not sent:
                os.kill(os.getpid(), signal.SIGHUP)
            return 143 if sent else None

        def send_signal(self, number: int) -> None:
            sent.append(number)

    jobs = Jobs(1, start=lambda cell: Running(cell, 143))
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup, which may have started these tests, ignores it
    try:
        jobs.run([cell])
    finally:
        signal.signal(signal.SIGHUP, before)
    assert sent == [signal.SIGTERM]
    assert state(cell) == "stopped"
    with pytest.raises(Interrupted):
        jobs.close()


# ---- elsewhere


def test_slurm_gets_an_array_of_what_is_not_finished(tmp_path, monkeypatch, capsys):
    """`sbatch` here runs its script's tasks on the spot, `srun` its arguments: the script itself is the real one."""
    tools = tmp_path / "tools"
    tools.mkdir()
    sbatch = '#!/bin/bash\necho "$@" > {0}/words\nfor task in 0; do SLURM_ARRAY_TASK_ID=$task bash "${{@: -1}}"; done\n'
    (tools / "sbatch").write_text(sbatch.format(tmp_path) + "echo '42;cluster'\n")
    (tools / "srun").write_text('#!/bin/bash\nexec "$@"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    out = tmp_path / "out"
    given = [written(tmp_path, TEXT.replace("[0]", "[0, 1]")), f"out={out}", "jobs=3"]
    (out / "plain" / "seed0").mkdir(parents=True)
    study = read_study(tmp_path / "grid.yaml", "full")
    first = cells(study, out)[0]
    (first.run / "config.yaml").touch()
    first.beside("finished").write_text(str(first.env_steps))
    monkeypatch.setattr("lightning_wm.study.grid.foreign", lambda run, tree: [])
    assert main([*given, "launcher=slurm", "sbatch=[--partition=short]"]) == 0
    assert "submitted as job 42" in capsys.readouterr().out
    assert (tmp_path / "words").read_text().split() == ["--parsable", "--partition=short", str(out / "array.sh")]
    script = (out / "array.sh").read_text()
    assert "#SBATCH --array=0-0%3\n" in script
    assert "seed=0" not in script
    assert (out / "plain/seed1/evaluations/final.json").is_file()
    assert main([*given, "status"]) == 0
    assert "2 of 2 runs finished" in capsys.readouterr().out
    assert main([*given, "launcher=slurm"]) == 0
    assert "nothing was submitted" in capsys.readouterr().out


def test_a_machine_without_slurm_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([written(tmp_path, TEXT), f"out={tmp_path / 'out'}", "launcher=slurm"]) == 2
    assert "launcher=local" in capsys.readouterr().err


def test_ray_runs_cells_on_its_workers(tmp_path, capsys):
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        given = [written(tmp_path, TEXT.replace("[0]", "[0, 1]")), f"out={tmp_path / 'out'}", "launcher=ray"]
        assert main(given) == 0
    finally:
        ray.shutdown()
    assert all((tmp_path / f"out/plain/seed{seed}/evaluations/final.json").is_file() for seed in (0, 1))
    begun = [(tmp_path / f"out/plain/seed{seed}/config.yaml").stat().st_mtime for seed in (0, 1)]
    ended = [(tmp_path / f"out/plain/seed{seed}/evaluations/final.json").stat().st_mtime for seed in (0, 1)]
    assert max(begun) < min(ended)  # side by side
    capsys.readouterr()
    assert main(["status", *given]) == 0
    assert "2 of 2 runs finished" in capsys.readouterr().out


def test_a_stop_reaches_ray_s_workers(tmp_path, capsys):
    """The run on the worker has ended with a checkpoint when the command returns, and nothing is finished."""
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    run = RunDirectory(tmp_path / "out" / "plain" / "seed0")

    def stop() -> None:
        while not run.turns():
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    stopper = threading.Thread(target=stop, daemon=True)
    try:
        long = TEXT.replace("smoke=true", "smoke=true, env_steps=96000")
        stopper.start()
        assert main([written(tmp_path, long), f"out={tmp_path / 'out'}", "launcher=ray"]) == 143
    finally:
        ray.shutdown()
    run.lock()  # nobody owns it any more
    run.unlock()
    _, saved = run.load("last")
    assert 0 < saved["lightning_wm"]["ranks"][0]["counters"]["env_steps"] < 96_000
    assert not (run.evaluations / "final.json").exists()
    assert "failed" not in capsys.readouterr().err
