"""Files are whole or absent, checkpoints are data, and a directory has one owner."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

from lightning_wm.errors import DiskError, UserError
from lightning_wm.runs.checkpoint import AtomicCheckpointIO, load_checkpoint
from lightning_wm.runs.directory import RunDirectory
from lightning_wm.runs.disk import write_atomically
from lightning_wm.runs.files import read_json, write_json
from tests.conftest import ADDED


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, lambda file: file.write(b"old") and None)

    def fail(file: BinaryIO) -> None:
        file.write(b"new")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskError, match="No space left"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_json_round_trip_and_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"x": [1.5, float("nan")]})
    assert read_json(path) == {"x": [1.5, None]}
    path.write_text("{")
    with pytest.raises(UserError, match="damaged"):
        read_json(path)
    with pytest.raises(UserError, match="missing"):
        read_json(tmp_path / "b.json")


def test_a_checkpoint_with_code_in_it_is_refused_and_not_run(tmp_path: Path) -> None:
    witness = tmp_path / "witness"

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(witness),)

    path = tmp_path / "bad.ckpt"
    torch.save({"state_dict": Payload(), "lightning_wm": {}}, path)
    with pytest.raises(UserError, match="damaged or foreign"):
        load_checkpoint(path)
    assert not witness.exists()


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    content = {"state_dict": {"w": torch.arange(3.0)}, "lightning_wm": ADDED}
    AtomicCheckpointIO().save_checkpoint(content, tmp_path / "sub" / "a.ckpt")
    back = load_checkpoint(tmp_path / "sub" / "a.ckpt")
    assert torch.equal(back["state_dict"]["w"], content["state_dict"]["w"])
    with pytest.raises(UserError, match="missing"):
        load_checkpoint(tmp_path / "b.ckpt")


def test_a_lock_names_its_owner_and_dies_with_it(tmp_path: Path) -> None:
    hold = (
        "import sys, time; from lightning_wm.runs.directory import RunDirectory; "
        "run = RunDirectory(sys.argv[1]); run.lock(); print('locked', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match=f"process {other.pid} on"):
            RunDirectory(tmp_path).lock()
        other.send_signal(signal.SIGKILL)
        other.wait()
    mine = RunDirectory(tmp_path)
    mine.lock()
    mine.unlock()
