"""Damaged checkpoints are noticed, and the one before is used; a run never begins anew in silence."""

from __future__ import annotations

import os
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.fabric.plugins.io.torch_io as fabric_io
import pytest
import torch

from lightning_wm.errors import UserError
from lightning_wm.evaluate import main as evaluate
from lightning_wm.fit import main as fit
from lightning_wm.runs import checkpoint
from lightning_wm.runs import checksum as seal
from lightning_wm.runs.checkpoint import load_checkpoint, newest_first
from lightning_wm.runs.directory import RunDirectory
from lightning_wm.runs.disk import clear_temporaries, write_atomically
from lightning_wm.training.experiment import _slack
from tests.conftest import TINY
from tests.test_fit import measured, weights


def flipped(path: Path, position: int) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(bytes(content))


def damage(path: Path, how: str) -> None:
    """Make a checkpoint one that the disk has not kept."""
    size = path.stat().st_size
    if how == "one bit":
        flipped(path, size // 2)
    elif how == "half":
        path.write_bytes(path.read_bytes()[: size // 2])
    elif how == "no checksum":
        path.write_bytes(path.read_bytes()[: -seal.COMMENT - 2] + b"\0\0")
    else:
        path.write_bytes(b"")


@pytest.mark.parametrize("how", ["one bit", "half", "no checksum", "empty"])
def test_a_damaged_newest_checkpoint_is_passed_over_once_and_by_name(
    how: str, trained: Path, copy: Callable[[], Path]
) -> None:
    run = copy()
    newest, before, *_ = RunDirectory(run).turns()
    damage(newest, how)
    command = [*TINY, f"run={run}", "evaluation.video=false"]
    with pytest.warns(UserWarning, match=f"{newest.name}.* is damaged .*one before, .*{before.name}") as warned:
        assert fit(command) == 0
    assert len(warned) == 1
    assert newest.with_name(f"{newest.name}.damaged").exists()
    ours, theirs = weights(run), weights(trained)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert measured(run) == measured(trained)
    assert fit(command) == 0  # without a word: a warning would be an error


def test_evaluate_passes_it_over_as_well_and_changes_nothing(copy: Callable[[], Path]) -> None:
    run = copy()
    newest, before, *_ = RunDirectory(run).turns()
    flipped(newest, 1000)
    command = [f"run={run}", "episodes=1", "name=one"]
    with pytest.warns(UserWarning, match=f"{newest.name}.*{before.name}"):
        assert evaluate(command) == 0
    assert newest.exists()
    assert '"env_steps": 320' in (run / "evaluations" / "one-grad_mpc.json").read_text()


def test_a_run_whose_checkpoints_are_all_damaged_is_left_alone(
    copy: Callable[[], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy()
    for path in RunDirectory(run).turns():
        flipped(path, 1000)
    flipped(run / "checkpoints" / "best.ckpt", 1000)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "lock"}
    for arguments in ([*TINY, f"run={run}"], [*TINY, f"run={run}", "env_steps=9999"]):
        assert fit(arguments) == 2
    assert evaluate([f"run={run}"]) == 2
    assert evaluate([f"run={run}", "checkpoint=best"]) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    assert "no checkpoint in" in message
    assert "best.ckpt is damaged" in message
    assert all(path.read_bytes() == content for path, content in before.items())


def test_a_run_that_has_lost_its_checkpoints_does_not_begin_anew(
    copy: Callable[[], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy()
    for path in RunDirectory(run).turns():
        path.unlink()
    assert fit([*TINY, f"run={run}"]) == 2
    assert "best.ckpt but no turn-NNNNN.ckpt" in capsys.readouterr().err


def test_a_run_that_was_killed_in_its_first_save_begins_anew(copy: Callable[[], Path]) -> None:
    run = RunDirectory(copy())
    for path in run.checkpoints.iterdir():
        path.unlink()
    half = run.checkpoints / ".turn-00001.ckpt.4711"
    half.write_bytes(b"half of it")
    assert fit([*TINY, "evaluation.video=false", f"run={run.path}"]) == 0
    assert run.turns()
    assert not half.exists()


def test_a_checkpoint_is_read_once_to_go_on(copy: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """And compared with its checksum once: neither by `fit` and again by Lightning."""
    run = copy()
    newest, *_ = RunDirectory(run).turns()
    reads: dict[str, list[Path]] = {"load": [], "sealed": []}

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *args: Any, **kwargs: Any) -> Any:
            if not hasattr(path, "read"):
                reads[name].append(Path(path))
            return function(path, *args, **kwargs)

        return call

    monkeypatch.setattr(torch, "load", counted("load", torch.load))
    monkeypatch.setattr(checkpoint, "sealed", counted("sealed", checkpoint.sealed))
    monkeypatch.setattr(fabric_io, "pl_load", counted("load", fabric_io.pl_load))
    assert fit([*TINY, f"run={run}", "env_steps=640", "evaluation.video=false"]) == 0
    assert reads["load"].count(newest) == reads["sealed"].count(newest) == 1


def test_every_bit_counts(trained: Path, tmp_path: Path) -> None:
    path = RunDirectory(trained).checkpoint()
    size, drawn = path.stat().st_size, random.Random(0)
    edges = [0, 1, size - 1, size - 64, size - seal.COMMENT - 3, size - seal.COMMENT - 2, size - seal.COMMENT]
    for position in [*edges, *(drawn.randrange(size) for _ in range(100))]:
        changed = Path(shutil.copy(path, tmp_path / "changed.ckpt"))
        flipped(changed, position)
        with pytest.raises(UserError, match="damaged"):
            load_checkpoint(changed)


def test_whatever_reads_torch_s_files_reads_a_sealed_one(trained: Path, tmp_path: Path) -> None:
    path = RunDirectory(trained).checkpoint()
    assert seal.sealed(path)
    assert set(torch.load(path, weights_only=True)) >= {"state_dict", "optimizer_states", "lightning_wm"}
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"lightning_wm sha256=")
    content = torch.load(path, weights_only=True)
    content["lightning_wm"].pop("sealed")
    torch.save(content, tmp_path / "older.ckpt")  # as fit wrote them before there were checksums
    assert not seal.sealed(tmp_path / "older.ckpt")
    assert load_checkpoint(tmp_path / "older.ckpt")["lightning_wm"] == content["lightning_wm"]


def test_mid_turn_checkpoints_lie_between_those_of_turns(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    names = ["turn-00003.ckpt", "turn-00003_00002.ckpt", "turn-00003_00010.ckpt", "turn-00004.ckpt"]
    for name in reversed(names):
        write_atomically(run.checkpoints / name, lambda file: None)
    assert [path.name for path in run.turns()] == names[::-1]


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    gone, own, alive = 2**22 + 1, os.getpid(), os.getppid()  # Linux has no larger number than 2**22
    half = [f".turn-00001.ckpt.{process}" for process in (gone, own, alive)]
    for name in (*half, "turn-00001.ckpt", ".hidden", ".commit.json.4x"):
        (tmp_path / name).touch()
    clear_temporaries(tmp_path)
    left = [".commit.json.4x", ".hidden", "turn-00001.ckpt", half[2]]  # an evaluation may be writing
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(left)


def test_replay_keeps_three_turns_beyond_its_capacity() -> None:
    from lightning_wm.config import load

    def slack(*more: str) -> int:
        return _slack(load(["recipe=quickstart", *more]).config)

    assert slack() == 10_000
    # 20,000 decisions of a turn and, at most, 4 episodes of 126 rows that begin just before its end
    assert slack("rollout.env_steps=160000", "rollout.environments=4") == 3 * (20_000 + 4 * 126)
    assert slack("rollout.env_steps=160000", "task.max_decisions=9") == 3 * (20_000 + 10)


def test_the_newest_turn_is_the_one_with_the_largest_number(tmp_path: Path) -> None:
    """As text turn 100,000 comes before 99,999."""
    names = [
        "turn-99998.ckpt",
        "turn-99999.ckpt",
        "turn-99999_00002.ckpt",
        "turn-100000.ckpt",
        "turn-100000_100000.ckpt",
    ]
    for name in [*names, "best.ckpt"]:
        (tmp_path / name).touch()
    assert [path.name for path in newest_first(tmp_path)] == names[::-1]
