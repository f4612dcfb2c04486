"""What TensorBoard, Weights & Biases and trackio are told, read back from their own files; the learning curve."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.utilities import rank_zero_only
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_wm.envs import rendering_problem
from lightning_wm.fit import main as fit
from lightning_wm.runs.checkpoint import Counters
from lightning_wm.training.plots import drawn, read_metrics
from lightning_wm.training.tensorboard import EnvStepTensorBoard
from lightning_wm.training.trackers import kept_id
from tests.conftest import TINY

pytestmark = pytest.mark.filterwarnings("ignore")  # of other people's packages

FILMS = rendering_problem() is None
LINE = [word for word in TINY if word != "logging.tensorboard=false"]


@dataclass(frozen=True)
class Tracked:
    """A run that was stopped at 480 env steps and went on to 960."""

    run: Path
    lines: list[dict[str, Any]]

    def points(self, name: str, over: str = "env_steps") -> list[tuple[int, float]]:
        return [(line[over], pytest.approx(line[name])) for line in self.lines if name in line]


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracked]:
    folder = tmp_path_factory.mktemp("tracked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        patch.setenv("TRACKIO_DIR", str(folder / "trackio"))
        pytest.importorskip("wandb", reason="the extra wandb is not installed")
        pytest.importorskip("trackio", reason="the extra trackio is not installed")
        logging = ["logging.wandb=true", "logging.trackio=true", "logging.tags=[mine]"]
        films = f"evaluation.video={str(FILMS).lower()}"
        for steps in (480, 960):
            assert fit([*LINE, *logging, films, f"run={folder}/run", f"env_steps={steps}"]) == 0
        yield Tracked(folder / "run", read_metrics(folder / "run" / "metrics.jsonl"))


# ---- TensorBoard


def events(folder: Path) -> EventAccumulator:
    accumulated = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    accumulated.Reload()
    return accumulated


def test_tensorboard_hides_what_a_killed_process_wrote_beyond_the_checkpoint(tmp_path: Path) -> None:
    """Saved after 50 updates and 500 env steps, killed after 60 and 600: each is there once, of the later process."""

    def log(logger: EnvStepTensorBoard, updates: range, value: float) -> None:
        for update in updates:
            logger.log_metrics({"train/loss/total": value}, update)
            counters.env_steps = 10 * (update + 1)
            logger.log_metrics({"rollout/return": value}, update)
        logger.finalize("success")

    counters = Counters()
    log(EnvStepTensorBoard(tmp_path, counters), range(60), 1.0)
    counters.env_steps = 500
    later = EnvStepTensorBoard(tmp_path, counters)
    later.resume(50)
    log(later, range(50, 70), 2.0)
    losses, returns = (
        events(tmp_path / "updates").Scalars("train/loss/total"),
        events(tmp_path).Scalars("rollout/return"),
    )
    assert [(e.step, e.value) for e in losses] == [(n, 1.0 if n < 50 else 2.0) for n in range(70)]
    assert [(e.step, e.value) for e in returns] == [(10 * n, 1.0 if n <= 50 else 2.0) for n in range(1, 71)]


def test_only_the_first_rank_makes_up_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert kept_id(tmp_path / "wandb.id") == ""
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    assert kept_id(tmp_path / "wandb.id") == kept_id(tmp_path / "wandb.id") != ""


def test_tensorboard_is_over_env_steps_and_losses_over_updates(tracked: Tracked) -> None:
    """What was written after going on is there, and hides nothing of before."""
    whole, updates = events(tracked.run / "tensorboard"), events(tracked.run / "tensorboard" / "updates")
    for name in ("evaluation/return", "rollout/return", "model/open_loop_error"):
        assert [(e.step, e.value) for e in whole.Scalars(name)] == tracked.points(name), name
    assert [(e.step, e.value) for e in updates.Scalars("train/loss/total")] == tracked.points(
        "train/loss/total", "updates"
    )
    assert not [name for name in whole.Tags()["scalars"] if name.startswith("train/")]
    assert {name.partition("/")[0] for name in updates.Tags()["scalars"]} == {"train"}


def test_tensorboard_shows_settings_results_and_films(tracked: Tracked) -> None:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    whole = events(tracked.run / "tensorboard")
    assert [e.step for e in whole.Scalars("final/return")] == [480, 960]
    start = HParamsPluginData.FromString(whole.SummaryMetadata("_hparams_/session_start_info").plugin_data.content)
    told = start.session_start_info.hparams
    assert told["planner.name"].string_value == "grad_mpc"
    assert told["replay.batch"].number_value == 4
    experiment = HParamsPluginData.FromString(whole.SummaryMetadata("_hparams_/experiment").plugin_data.content)
    assert {info.name.tag for info in experiment.experiment.metric_infos} == {"evaluation/return", "final/return"}
    assert b"cartpole_swingup" in whole.Tensors("config/text_summary")[0].tensor_proto.string_val[0]
    if FILMS:
        films = whole.Images("evaluation/video")
        assert [film.step for film in films] == [480, 960]
        assert {160, 320, 480, 960} <= {film.step for film in whole.Images("model/open_loop")}
        assert films[0].encoded_image_string.startswith(b"GIF89a")


# ---- Weights & Biases


def records(path: Path) -> Iterator[Any]:
    """The records of an offline run: protobuf in LevelDB's log format, whose blocks are of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, parts = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        if kind == 0:
            break
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def history(found: list[Any]) -> list[dict[str, Any]]:
    rows = []
    for record in found:
        if record.HasField("history"):
            items = record.history.item
            rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    return rows


def test_wandb_has_one_run_that_goes_on(tracked: Tracked) -> None:
    files = sorted((tracked.run / "wandb").glob("offline-run-*/run-*.wandb"))
    found = [list(records(path)) for path in files]
    runs = [next(record.run for record in part if record.HasField("run")) for part in found]
    name = (tracked.run / "wandb.id").read_text().strip()
    assert [run.run_id for run in runs] == [name, name]
    for run in runs:
        assert (run.display_name, run.run_group, run.project) == ("run", "quickstart", "lightning_wm")
        assert set(run.tags) == {"dmc/cartpole_swingup", "planet", "grad_mpc", "mine"}
        told = {item.key: json.loads(item.value_json) for item in run.config.update if item.key}
        assert told["planner"]["name"] == "grad_mpc"
        assert told["replay"]["batch"] == 4
    rows = [row for part in found for row in history(part)]
    for shown, over in (("evaluation/return", "env_steps"), ("train/loss/total", "updates")):
        assert [(row[over], row[shown]) for row in rows if shown in row] == tracked.points(shown, over), shown
    metrics = [record.metric for part in found for record in part if record.HasField("metric")]
    axes = {metric.glob_name: metric.step_metric for metric in metrics}
    assert (axes["*"], axes["train/*"]) == ("env_steps", "updates")
    if FILMS:
        films = [row["evaluation/video/_type"] for row in rows if "evaluation/video/_type" in row]
        assert films == ["video-file", "video-file"]


# ---- trackio


def test_trackio_has_one_run_that_goes_on(tracked: Tracked) -> None:
    from trackio.sqlite_storage import SQLiteStorage

    name = f"run-{(tracked.run / 'trackio.id').read_text().strip()}"
    assert SQLiteStorage.get_runs("lightning_wm") == [name]
    rows = SQLiteStorage.get_logs("lightning_wm", name)
    shown = [(row["step"], row["evaluation/return"]) for row in rows if "evaluation/return" in row]
    assert shown == tracked.points("evaluation/return")
    assert [(row["updates"], row["train/loss/total"]) for row in rows if "train/loss/total" in row] == tracked.points(
        "train/loss/total", "updates"
    )
    told = SQLiteStorage.get_run_config("lightning_wm", name)
    assert told["planner.name"] == "grad_mpc"
    assert told["_Group"] == "quickstart"
    if FILMS:
        assert sum("evaluation/video" in row for row in rows) == 2


@pytest.mark.parametrize("package", ["wandb", "trackio"])
def test_a_tracker_that_is_not_installed(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import lightning.pytorch.loggers.wandb as theirs

    monkeypatch.setitem(__import__("sys").modules, package, None)
    monkeypatch.setattr(theirs, "_WANDB_AVAILABLE", False)
    assert fit([*TINY, f"logging.{package}=true", f"run={tmp_path}/run"]) == 2
    assert f'pip install "lightning_wm[{package}]"' in capsys.readouterr().err


# ---- the picture


def spiked(points: int, name: str = "train/loss/kl") -> list[dict[str, Any]]:
    """A loss that begins at 1,000 and then stays between 1 and 2."""
    return [{"env_steps": 0, "updates": 20 * n, name: 1000.0 if n == 0 else 1.0 + n % 2} for n in range(points)]


def test_the_first_spike_does_not_squash_the_losses() -> None:
    """The axis ends just above 2; the returns' axis is theirs."""
    lines = [
        *spiked(100),
        {"env_steps": 1000, "evaluation/return": 10.0},
        {"env_steps": 2000, "evaluation/return": 900.0},
    ]
    returns, losses = drawn(lines, "a run").axes
    low, high = losses.get_ylim()
    assert 0.5 < low < 1
    assert 2 < high < 3
    assert (losses.get_xlabel(), returns.get_xlabel()) == ("updates", "env steps")
    assert returns.get_ylim()[1] > 900
    assert drawn(spiked(10), "a run").axes[0].get_ylim()[1] > 900  # too few points to leave one out


def test_few_points_have_markers_and_nothing_is_empty() -> None:
    (few,) = drawn(spiked(10), "a run").axes
    (many,) = drawn(spiked(100), "a run").axes
    assert [axis.lines[0].get_marker() for axis in (few, many)] == ["o", "None"]
    assert not drawn([], "nothing yet").axes


def test_losses_below_zero_have_a_panel_of_their_own() -> None:
    """A policy's loss on a logarithmic axis would not be seen."""
    lines = [{"env_steps": 0, "updates": n, "train/loss/kl": 2.0, "train/loss/actor": -1.0 - n} for n in range(5)]
    model, behaviour = drawn(lines, "a run").axes
    assert (model.get_yscale(), behaviour.get_yscale()) == ("log", "linear")
    assert [line.get_label() for line in behaviour.lines] == ["actor"]
