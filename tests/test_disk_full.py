"""A full disk: the last checkpoint stays good, nothing is deleted, and the exit code is 5."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch

from lightning_wm.console.command import exits
from lightning_wm.errors import DiskError, UserError
from lightning_wm.fit import main as fit
from lightning_wm.runs.checkpoint import AtomicCheckpointIO, Counters, load_checkpoint
from lightning_wm.runs.directory import RunDirectory
from lightning_wm.runs.disk import append
from lightning_wm.training.loggers import JSONLinesLogger
from lightning_wm.training.plots import read_metrics
from lightning_wm.training.tensorboard import EnvStepTensorBoard
from lightning_wm.training.video import write_film
from tests.conftest import ADDED, TINY

MEGABYTE = 2**20


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: Path, leave: int) -> None:
    """Make a file that leaves so many bytes free."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(path.parent).free - leave)


# ---- parts


def test_a_line_is_appended_whole_or_not_at_all(small: Path) -> None:
    path = small / "lines"
    append(path, "first\n")
    fill(small / "filler", 0)
    with pytest.raises(DiskError, match="lines could not be written: No space left on device; free some space"):
        append(path, "x" * 10_000)  # what is left of the first line's page is not enough
    assert path.read_text() == "first\n"


def test_metrics_on_a_full_device() -> None:
    with pytest.raises(DiskError, match="/dev/full could not be written: No space left"):
        JSONLinesLogger(Path("/dev/full"), Counters()).log_metrics({"a": 1.0}, 1)


def test_a_checkpoint_that_does_not_fit_leaves_the_old_one_and_no_rest(small: Path) -> None:
    path, io = small / "checkpoints" / "a.ckpt", AtomicCheckpointIO()
    content = {"state_dict": {"w": torch.arange(3.0)}, "lightning_wm": ADDED}
    io.save_checkpoint(content, path)
    large = {**content, "state_dict": {"w": torch.zeros(1_500_000)}}  # 6 MB
    film = small / "videos" / "film.mp4"
    fill(film, 3 * MEGABYTE)
    with pytest.raises(DiskError, match=r"a\.ckpt could not be written: No space left"):
        io.save_checkpoint(large, path)
    assert film.exists()
    assert torch.load(path, weights_only=True)["state_dict"]["w"].numel() == 3
    assert [file.name for file in path.parent.iterdir()] == ["a.ckpt"]
    film.unlink()
    io.save_checkpoint(large, path)
    assert torch.load(path, weights_only=True)["state_dict"]["w"].numel() == 1_500_000


def write_much(logger: EnvStepTensorBoard) -> None:
    """A few pages, as TensorBoard's thread does it: what it meets is raised by the next write."""
    for _ in range(50):
        logger.log_metrics({"a-long-name" * 20: 1.0})
        with suppress(OSError):
            logger.experiment.flush()


def test_tensorboard_on_a_full_disk(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = EnvStepTensorBoard(small / "tensorboard", Counters())
    logger.log_metrics({"a": 1.0})
    fill(small / "videos" / "film.mp4", 0)
    with pytest.raises(DiskError, match="tensorboard could not be written: No space left"):
        write_much(logger)
    logger.finalize("failed")
    assert (small / "videos" / "film.mp4").exists()
    assert "Traceback" not in capsys.readouterr().err


def test_a_film_that_does_not_fit_leaves_nothing(small: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 256, 256, 3)).astype(np.uint8)
    fill(small / "filler", 64 * 1024)
    with pytest.raises(DiskError, match=r"film\.mp4 could not be written: .*; free some space"):
        write_film(small / "film.mp4", list(noise))
    assert [path.name for path in small.iterdir()] == ["filler"]


def test_a_film_without_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is optional: who films is told what to install."""

    def missing() -> str:
        raise RuntimeError("No ffmpeg exe could be found.\nInstall ffmpeg on your system.")

    monkeypatch.setattr(imageio_ffmpeg._io, "get_ffmpeg_exe", missing)
    with pytest.raises(UserError, match=r"film\.mp4: No ffmpeg exe could be found\. Install .*type pip install"):
        write_film(tmp_path / "film.mp4", [np.zeros((64, 64, 3), np.uint8)])
    (tmp_path / "videos").touch()
    with pytest.raises(UserError, match=r"film\.mp4 could not be written: "):
        write_film(tmp_path / "videos" / "film.mp4", [np.zeros((64, 64, 3), np.uint8)])


def test_a_librarys_own_error_is_exit_5_too(capsys: pytest.CaptureFixture[str]) -> None:
    @exits
    def main(argv: object = None) -> int:
        with open("/dev/full", "w") as file:
            file.write("x")
        return 0

    assert main([]) == 5
    assert "could not be written: No space left on device; free some space" in capsys.readouterr().err


# ---- whole runs

RUN = [*TINY, "evaluation.every=0", "evaluation.video=false", "logging.tensorboard=true"]


def steps(run: Path) -> int:
    loaded = load_checkpoint(RunDirectory(run).checkpoint("last"))
    return int(loaded["lightning_wm"]["ranks"][0]["counters"]["env_steps"])


@pytest.mark.parametrize(("left", "what"), [(0, "tensorboard"), (4096, "replay"), (32768, r"turn-00004\.ckpt")])
def test_a_run_on_a_full_disk_ends_with_5_and_goes_on_when_there_is_room(
    small: Path, capsys: pytest.CaptureFixture[str], left: int, what: str
) -> None:
    run = small / "run"
    assert fit([*RUN, f"run={run}"]) == 0
    before = steps(run)
    fill(small / "filler", left)
    assert fit([*RUN, f"run={run}", "env_steps=6400"]) == 5
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert re.search(f"error: .*{what}.* could not be written: No space left on device; free some space", error)
    reached = steps(run)  # the checkpoint loads
    assert before <= reached < 6400
    (small / "filler").unlink()
    assert fit([*RUN, f"run={run}", f"env_steps={reached + 320}"]) == 0
    assert read_metrics(run / "metrics.jsonl")[-1]["env_steps"] >= reached + 320


def test_nothing_is_deleted_for_the_user(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Films could be made again; whether they may go is not ours to say."""
    run = small / "run"
    assert fit([*RUN, f"run={run}"]) == 0
    fill(run / "videos" / "1.mp4", 0)
    kept = {path: path.stat().st_size for path in run.rglob("*") if path.is_file()}
    assert fit([*RUN, f"run={run}", "env_steps=640"]) == 5
    assert "free some space" in capsys.readouterr().err
    assert all(path.stat().st_size >= size for path, size in kept.items())
    (run / "videos" / "1.mp4").unlink()
    assert fit([*RUN, f"run={run}", "env_steps=640"]) == 0
    assert steps(run) >= 640
