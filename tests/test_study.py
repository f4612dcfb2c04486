"""The study runner: a grid's cells as real runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lightning_wm.config import load
from lightning_wm.protocols import Spaces
from lightning_wm.registry import build
from lightning_wm.study.__main__ import main
from lightning_wm.study.grid import cells, read_study, study_file
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
    ],
)
def test_faults_of_a_file_end_it_before_anything_starts(text, said, tmp_path, capsys):
    assert main([written(tmp_path, text), f"out={tmp_path / 'out'}"]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["study=learnin"], "learning"),
        (["study=learning", "until=25:00"], "HH:MM"),
        (["study=learning", "jobs=0"], "1"),
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
