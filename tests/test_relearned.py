"""Behaviour learned anew: the model and its replay stand still, the policy does not, and settings make a difference."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightning_wm.bench import main as bench
from lightning_wm.benchmarks.relearned import Relearned, relearn
from lightning_wm.benchmarks.returns import Games
from lightning_wm.console.meter import Meter
from lightning_wm.data.replay import Replay
from lightning_wm.fit import main as fit
from lightning_wm.runs.loading import load_run
from tests.conftest import TINY

ONE = Games(episodes=1, seed=31_000, environments=1)


@pytest.fixture(scope="module")
def imagined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished smoke run that has learned in imagination; only to be read."""
    run = tmp_path_factory.mktemp("imagined") / "run"
    assert fit([*TINY, "agent=dreamer", f"run={run}", "evaluation.video=false"]) == 0
    return run


def test_model_and_replay_stand_still(imagined: Path) -> None:
    loaded = load_run(imagined)
    capacity, spaces = loaded.config.replay.capacity, loaded.interface.spaces
    before = {name: value.clone() for name, value in loaded.agent.state_dict().items()}
    stored = Replay.create(loaded.run.replay(0), spaces, capacity).digest()

    def learned() -> list[Relearned]:
        found: list[Relearned] = []
        relearn(loaded, ["dreamer", "dreamer:gradient=reinforce"], [2, 4], ONE, Meter(), found.append)
        return found

    first, again = learned(), learned()
    assert [(each.agent, each.updates) for each in first] == [
        ("dreamer", 2), ("dreamer", 4), ("dreamer:gradient=reinforce", 2), ("dreamer:gradient=reinforce", 4),
    ]  # fmt: skip
    assert [each.imagined for each in first] == [each.imagined for each in again]
    assert len({each.imagined for each in first}) == 4  # the policy moves, and not as the other one does
    assert [each.evaluation.returns for each in first] == [each.evaluation.returns for each in again]
    assert all((value == before[name]).all() for name, value in loaded.agent.state_dict().items())
    assert Replay.create(loaded.run.replay(0), spaces, capacity).digest() == stored


def test_the_command(imagined: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "policies.json"
    command = ["policy", f"run={imagined}", "agents=dreamer:entropy=0.1", "updates=1", "episodes=1", f"json={path}"]
    assert bench(command) == 0
    (row,) = json.loads(path.read_text())["rows"]
    assert (row["agent"], row["updates"], row["seed"], len(row["returns"])) == ("dreamer:entropy=0.1", 1, 20_000, 1)
    assert "imagined" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["agents=dreamer:gradien=reinforce"], "did you mean 'agent.gradient'"),
        (["agents=dreamer:reinforce"], "'reinforce' is no field=value"),
        (["agents=sac"], "the run's agent is dreamer; type agents=dreamer:field=value"),
        (["agents=[]"], "type agents=dreamer updates=1000,2000"),
        (["updates=0"], "expected one or more updates"),
    ],
)
def test_what_cannot_be_learned_is_refused(
    imagined: Path, typed: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(["policy", f"run={imagined}", *typed]) == 2
    assert expected in capsys.readouterr().err


def test_runs_without_a_policy_or_replay_are_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(["policy", f"run={trained}"]) == 2
    assert "learns no policy in imagination; type run=<a run of agent=dreamer>" in capsys.readouterr().err
    assert bench(["policy", "run=zoo:walker_walk"]) == 2
    assert "has no replay to imagine from" in capsys.readouterr().err
    assert bench(["policy"]) == 2
    assert "type run=" in capsys.readouterr().err
