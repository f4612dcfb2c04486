"""What a person sees while a run trains: the first lines, the bar, and how long it takes."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from lightning_wm.config import load
from lightning_wm.console.banner import expected
from lightning_wm.console.clock import clock
from lightning_wm.console.estimate import estimate
from lightning_wm.console.meter import Meter
from lightning_wm.console.pace import Pace
from lightning_wm.envs import rendering_problem
from lightning_wm.fit import main as fit
from lightning_wm.runs.checkpoint import Counters
from lightning_wm.runs.directory import RunDirectory
from lightning_wm.training.experiment import build_experiment
from lightning_wm.training.progress import RunProgress
from lightning_wm.training.state import RunState
from tests.conftest import TINY

SHOWN = [word for word in TINY if word != "logging.progress=false"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (65.4, "1:05"),
        (3599.6, "1:00:00"),
        (-3, "0:00"),
        (90061, "1 day 1:01:01"),
        (180e3, "2 days 2:00:00"),
    ],
)
def test_durations_as_people_read_them(seconds: float, text: str) -> None:
    assert clock(seconds) == text


# ---- the time left


def test_the_time_left_is_that_of_the_last_turns() -> None:
    """Ten seconds a turn of 1,000 env steps, then two of 30 s: with the last two turns 30 ms a step."""
    pace = Pace(turns=2)
    pace.add(50.0, 5000)  # the seed episodes took 50 s, which say nothing of turns
    assert pace.left(50.0, 40_000) is None
    for turn in range(1, 4):
        pace.add(50.0 + 10 * turn, 5000 + 1000 * turn)
    assert pace.left(80.0, 40_000) == pytest.approx(32 * 10)
    assert pace.left(84.0, 40_000) == pytest.approx(32 * 10 - 4)
    for turn in range(1, 3):
        pace.add(80.0 + 30 * turn, 8000 + 1000 * turn)
    assert pace.left(140.0, 40_000) == pytest.approx(30 * 30)
    assert pace.left(10_000.0, 40_000) == 0


def test_pretraining_is_no_turn() -> None:
    pace = Pace()
    for seconds, steps in [(0.0, 5000), (100.0, 5000), (200.0, 5000), (210.0, 6000)]:
        pace.add(seconds, steps)
    assert pace.left(210.0, 10_000) == pytest.approx(4 * 10)


def test_a_run_that_goes_on_knows_its_time_left_at_once(tmp_path: Path) -> None:
    """20 s for 1,000 env steps before it was stopped at 6,000, of which 1,000 are owed updates: 5,000 to go."""
    metrics = tmp_path / "metrics.jsonl"
    rows = [{"seconds": 20.0 * turn, "env_steps": 1000 * turn, "time/update": 5.0} for turn in range(3, 7)]
    metrics.write_text("".join(f"{json.dumps(row)}\n" for row in [*rows, {"seconds": 121.0, "env_steps": 6000}]))
    state = RunState(10_000, counters=Counters(env_steps=6000, owed=1000, seconds=120.0))
    progress = RunProgress(state, metrics=metrics, console=Console(file=io.StringIO()))
    progress.on_train_start()
    assert "| 1:40 left" in progress.text()


# ---- the bar


def busy(width: int) -> tuple[RunProgress, io.StringIO, RunState]:
    """A bar of a run that has everything to show, on a terminal so wide."""
    state = RunState(100_000, counters=Counters(env_steps=12_000, seconds=900.0), last_return=712.34, milliseconds=26.4)
    output = io.StringIO()
    progress = RunProgress(state, console=Console(file=output, width=width, force_terminal=True, legacy_windows=False))
    progress._agent = torch.nn.Module()  # type: ignore[assignment]
    progress._agent.global_step = 1260  # type: ignore[union-attr,misc]
    progress._agent.last = {"train/loss/total": torch.tensor(3.25), "train/loss/kl": torch.tensor(0.5)}  # type: ignore
    progress.pace.add(0.0, 0)
    progress.pace.add(900.0, 12_000)
    return progress, output, state


ALWAYS = "12,000/100,000 env steps | 1:50:00 left"


@pytest.mark.parametrize(
    ("width", "rest"),
    [
        (200, " | return 712.3 | 1,260 updates | 26 ms/decision | loss 3.25 | kl 0.50"),
        (len(ALWAYS) + 62, " | return 712.3 | 1,260 updates | 26 ms/decision | loss 3.25"),
        (len(ALWAYS) + 50, " | return 712.3 | 1,260 updates | 26 ms/decision"),
        (len(ALWAYS) + 47, " | return 712.3 | 1,260 updates"),
        (len(ALWAYS) + 15, " | return 712.3"),
        (30, ""),
    ],
)
def test_losses_are_left_out_first_and_the_time_left_never(width: int, rest: str) -> None:
    progress, _, _ = busy(80)
    assert progress.text(width) == ALWAYS + rest


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_bar_is_one_line_with_the_time_left(width: int) -> None:
    progress, output, state = busy(width)
    state.phase, state.decisions, state.evaluation_decisions = "evaluating", 5, 20
    progress.setup(_Trainer(), progress._agent, "fit")  # type: ignore[arg-type]
    try:
        progress.refresh()
        progress.print("a callback's", 2, "words [1]", sep=" ")
    finally:
        progress.teardown(_Trainer(), progress._agent, "fit")  # type: ignore[arg-type]
    plain = [as_seen(line) for line in output.getvalue().replace("\r", "\n").splitlines()]
    bars = [line for line in plain if "evaluating 25%" in line]
    assert bars
    assert all("1:50:00 left" in line and "return 712.3" in line and len(line) <= width for line in bars)
    assert any(line == "a callback's 2 words [1]" for line in plain)
    assert progress.is_enabled
    assert not progress.is_disabled


def as_seen(line: str) -> str:
    """A line without the terminal's escape sequences."""
    from rich.text import Text

    return Text.from_ansi(line).plain.rstrip()


class _Trainer:
    is_global_zero = True
    num_training_batches = 100


def test_the_bar_moves_within_an_episode() -> None:
    """Four environments with actions of 8 env steps: 32 env steps a decision, and no more than the budget."""
    state = RunState(2000, decision_steps=32)
    progress = RunProgress(state, console=Console(file=io.StringIO()))
    state.phase = "collecting"
    for _ in range(7):
        state.decided()
    assert progress.text().startswith("224/2,000 env steps | -:-- left | ")
    state.decisions = 1000
    assert state.steps_now == 2000
    state.phase = "learning"
    assert progress.text().startswith("0/2,000 env steps | ")


# ---- the first lines


def test_the_first_lines_come_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from lightning_wm.config import load\n"
        "from lightning_wm.console.banner import Banner\n"
        "banner = Banner()\n"
        "def early(loaded):\n"
        "    banner.begin(loaded)\n"
        "    print('torch' in sys.modules, loaded.config.env_steps)\n"
        f"loaded = load(['recipe=quickstart', 'run={tmp_path}/x', 'smoke=true'], early)\n"
        "print(loaded.config.env_steps, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.split() == ["False", "480", "480", "True"]
    first, second = done.stderr.splitlines()[:2]
    assert first.split() == ["run", f"{tmp_path}/x"]
    assert "quickstart" in second


def test_a_run_begins_with_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    command = [*SHOWN, f"run={run}", "evaluation.video=false"]
    assert fit(command) == 0
    said = capsys.readouterr().err
    lines = dict(line.split(maxsplit=1) for line in said.splitlines()[:7])
    assert lines["run"] == str(run)
    assert lines["task"].startswith("dmc/cartpole_swingup from state vectors, an action every 8 env steps")
    assert lines["agent"] == "planet with rssm, collects with grad_mpc"
    assert lines["budget"] == "480 env steps, seed 0"
    saved = torch.load(next((run / "checkpoints").glob("turn-*.ckpt")), weights_only=True)["optimizer_states"][0]
    learned = sum(state["exp_avg"].numel() for state in saved["state"].values())
    assert lines["model"].startswith(f"{learned:,} parameters, CPU, ")
    about = r"about (\d+:\d\d), from one decision and one update; better known when the first turn has ended"
    assert re.fullmatch(about, lines["expected"])
    assert fit([*command, "env_steps=960"]) == 0
    assert " more\n" in capsys.readouterr().err


def test_the_expected_duration_is_that_of_another_seed(tmp_path: Path) -> None:
    """Another seed took 20 s for 1,000 env steps; one of other settings does not count."""
    for name, seconds in (("mine-s1", 20.0), ("mine-s1-0123abcd", 5.0)):
        (tmp_path / name).mkdir()
        rows = [{"seconds": seconds * turn, "env_steps": 1000 * turn, "time/update": 1.0} for turn in range(1, 11)]
        (tmp_path / name / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert expected(tmp_path / "mine-s0", 30_000) == f"10:00, at the pace of {tmp_path / 'mine-s1'}"
    assert expected(tmp_path / "mine-s0-0123abcd", 30_000) == f"2:30, at the pace of {tmp_path / 'mine-s1-0123abcd'}"
    assert expected(tmp_path / "other-s0", 30_000) is None


@pytest.mark.parametrize(
    "line", [[], ["observation=pixels"], ["agent=sac", "planner=policy", "replay.batch=8"]], ids=str
)
def test_a_first_run_is_tried_out_and_left_as_it_was(line: list[str], tmp_path: Path) -> None:
    """What is estimated costs it nothing: weights, buffers, gradients and torch's random state stay."""
    if "observation=pixels" in line and rendering_problem() is not None:
        pytest.skip("nothing renders here")
    config = load([*SHOWN, *line, "trainer.accelerator=cpu", "evaluation.video=false"]).config
    experiment = build_experiment(config, RunDirectory(tmp_path / "run"))
    before = {name: value.clone() for name, value in experiment.agent.state_dict().items()}
    drawn = torch.get_rng_state()
    seconds = estimate(experiment)
    assert seconds is not None
    assert seconds > 0
    assert torch.equal(torch.get_rng_state(), drawn)
    after = experiment.agent.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(weight.grad is None for weight in experiment.agent.parameters())
    longer = replace(config, env_steps=10 * config.env_steps)
    assert estimate(replace(experiment, config=longer)) > seconds
    unknown = replace(config, trainer=replace(config.trainer, compile=True))
    assert estimate(replace(experiment, config=unknown)) is None
    experiment.rollout.env.close()


# ---- what others print


def test_a_callback_prints_through_the_bar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`pl_module.print` and `trainer.progress_bar_callback.print`, which ended a run."""
    import lightning.pytorch as pl

    class Prints(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            pl_module.print(f"{trainer.global_step} updates")
            assert trainer.progress_bar_callback is not None
            trainer.progress_bar_callback.print("one", "two", sep="-")

    loaded = load([*SHOWN, f"run={tmp_path}"])
    experiment = build_experiment(loaded.config, RunDirectory(tmp_path))
    experiment.trainer.callbacks.append(Prints())
    experiment.trainer.fit(experiment.agent, experiment.data)
    experiment.rollout.env.close()
    printed = capsys.readouterr().out
    assert "2 updates\none-two\n4 updates\n" in printed


# ---- evaluate's meter


@pytest.mark.parametrize("terminal", [True, False])
def test_a_meter_keeps_what_is_done(terminal: bool) -> None:
    output = io.StringIO()
    with Meter(Console(file=output, width=80, force_terminal=terminal), every=0.0) as meter:
        meter.begin("cem (1 of 2)", 20, 50)
        for _ in range(25):
            meter.decided()
        meter.played(10)
        meter.say("cem: return 5.0")
    plain = [as_seen(line) for line in output.getvalue().replace("\r", "\n").splitlines()]
    assert "cem: return 5.0" in plain
    assert all(len(line) <= 80 for line in plain)
    shown = [line for line in plain if "cem (1 of 2)" in line]
    assert any("/20 episodes" in line for line in shown)


def test_planners_that_have_played_are_kept_when_it_is_interrupted(
    copy: Callable[[], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C in the second planner's third decision: the first one's row, table and file are there."""
    from lightning_wm.evaluate import main as evaluate
    from lightning_wm.planners.random import Random

    plan, calls = Random.plan, []

    def interrupted(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plan(self, *args, **kwargs)

    run = copy()
    monkeypatch.setattr(Random, "plan", interrupted)
    assert evaluate([f"run={run}", "planner=grad_mpc,random", "episodes=1", "name=cut"]) == 130
    output = capsys.readouterr()
    assert "grad_mpc: return" in output.err
    assert "ms alone" in output.out
    assert [path.name for path in (run / "evaluations").glob("cut-*")] == ["cut-grad_mpc.json"]


def test_the_latency_is_of_one_environment_alone(copy: Callable[[], Path]) -> None:
    """Planning for ten at once is cheaper for each: what a loop waits for is more than a tenth of the call."""
    from lightning_wm.evaluate import main as evaluate

    run = copy()
    assert evaluate([f"run={run}", "episodes=10", "planner.replan=2", "name=ten"]) == 0
    content = json.loads((run / "evaluations" / "ten-grad_mpc.json").read_text())
    assert content["environments"] == 10
    assert content["latency_ms"]["median"] > content["ms_per_decision"]["median"] > 0
    assert content["latency_ms"]["p95"] >= content["latency_ms"]["median"]
