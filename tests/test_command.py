"""`lightning_wm COMMAND`: one command for all, what it says of the machine and of the tasks, and completion."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_wm import __version__
from lightning_wm.__main__ import COMMANDS, main
from lightning_wm.console.completion import candidates
from lightning_wm.console.completion import main as completion
from lightning_wm.console.info import main as info
from lightning_wm.console.tasks import main as tasks


def test_every_command_says_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        assert main([name, "--help"]) == 0
        assert len(capsys.readouterr().out) > 40, name
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert all(f"  {name} " in listed for name in COMMANDS)


def test_the_command_and_its_module_are_one(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code and the words of a fault come through, and so do flags."""
    from lightning_wm.evaluate import main as evaluate

    command = [f"run={trained}", "episods=3"]
    said = [(main(["evaluate", *command]), capsys.readouterr()), (evaluate(command), capsys.readouterr())]
    assert said[0] == said[1]
    assert said[0][0] == 2
    assert main(["fit", "recipe=quickstart", "--print"]) == 0
    assert "cartpole_swingup" in capsys.readouterr().out


@pytest.mark.parametrize(("typed", "code", "said"), [(["evalute"], 2, "did you mean 'evaluate'"), ([], 2, "evaluate")])
def test_no_such_command(typed: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(typed) == code
    output = capsys.readouterr()
    assert said in output.out + output.err


def test_python_m_and_the_version() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lightning_wm", "--version"], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == f"lightning_wm {__version__}\n"


def test_info_has_what_a_bug_report_needs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert info([]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["torch"] == torch.__version__
    assert lines["lightning_wm"].startswith(__version__)
    assert {"python", "mujoco", "drawing", "processor", "GPUs", "variables", "ray"} <= lines.keys()
    assert f"{len(os.sched_getaffinity(0))} cores" in lines["processor"]
    assert "CUDA_VISIBLE_DEVICES=3" in lines["variables"]
    assert not any(str(Path.home()) in value for value in lines.values())


def test_tasks_have_the_sizes_that_their_papers_name(capsys: pytest.CaptureFixture[str]) -> None:
    """dm_control's walker (arXiv:2006.12983, table 1): 6 actions, 24 numbers, 1000 steps."""
    assert tasks(["walker"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    shown = {name: numbers for name, *numbers in rows}
    assert shown["dmc/walker_walk"] == shown["dmc/walker_run"] == ["6", "24", "1000"]
    assert all("walker" in name.lower() for name in shown)
    pytest.importorskip("gymnasium", reason="the extra gym is not installed")
    assert tasks(["gym/pendulum-"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["gym/Pendulum-v1", "1", "3", "200"]
    assert tasks(["cartpole-v1"]) == 2  # its actions are Discrete
    assert "continuous" in capsys.readouterr().err
    assert tasks(["cartpole_swingupp"]) == 2
    assert "did you mean 'cartpole_swingup'" in capsys.readouterr().err


# ---- completion


@pytest.mark.parametrize(
    ("command", "before", "prefix", "some"),
    [
        ("fit", [], "reci", {"recipe="}),
        ("fit", [], "recipe=state/w", {"recipe=state/walker_walk"}),
        ("fit", [], "planner=c", {"planner=cem", "planner=cem_gd", "planner=collocation"}),
        ("fit", ["planner=cem"], "planner.eli", {"planner.elites="}),
        ("fit", ["planner=grad_mpc"], "planner.step", {"planner.step_size="}),
        (
            "fit",
            [],
            "observation.kind=",
            {"observation.kind=both", "observation.kind=pixels", "observation.kind=state"},
        ),
        ("fit", [], "smoke=", {"smoke=false", "smoke=true"}),
        ("evaluate", [], "checkpoint=", {"checkpoint=best", "checkpoint=last"}),
        ("evaluate", [], "run=zoo:cartpole_swingup_s", {"run=zoo:cartpole_swingup_sac"}),
        ("evaluate", [], "planner=cem,ic", {"planner=cem,icem"}),
        ("bench", [], "planners=cem,ic", {"planners=cem,icem"}),
        ("study", [], "stu", {"study="}),
        ("study", [], "launcher=s", {"launcher=slurm"}),
        ("bench", [], "planner", {"planner", "planners", "planners="}),
    ],
)
def test_words_complete(command: str, before: list[str], prefix: str, some: set[str]) -> None:
    assert set(candidates(command, before, prefix)) == some


def test_paths_complete(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert candidates("evaluate", [], f"run={tmp_path}/m") == [f"run={tmp_path}/mine/"]


def test_the_shell_gets_its_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As bash asks, whose words end at '=', so that only what follows it is to be inserted."""
    line, answer = "lightning_wm fit recipe=quickst", tmp_path / "answer"
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_COMP_WORDBREAKS": " =:",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    subprocess.run([sys.executable, "-m", "lightning_wm"], env={**os.environ, **asked}, check=True, timeout=60)
    assert answer.read_text().split() == ["quickstart"]
    assert completion([]) == 0
    assert "lightning_wm" in capsys.readouterr().out
