"""Files are whole or absent, checkpoints are data, and a directory has one owner."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

from lightning_wm.console.command import exits
from lightning_wm.data import Replay
from lightning_wm.errors import DiskError, UserError
from lightning_wm.evaluate import main as evaluate
from lightning_wm.export import main as export
from lightning_wm.fit import main as fit
from lightning_wm.protocols import Spaces
from lightning_wm.runs import directory
from lightning_wm.runs.checkpoint import AtomicCheckpointIO, load_checkpoint
from lightning_wm.runs.directory import RunDirectory
from lightning_wm.runs.disk import write_atomically
from lightning_wm.runs.files import read_json, write_json
from tests.conftest import ADDED, TINY


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


# ---- what cannot be written


def names(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("place", ["file", "file/inside"])
def test_a_run_where_no_folder_can_be(place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    assert fit([*TINY, f"run={tmp_path / place}"]) == 2
    message = capsys.readouterr().err
    assert re.search(rf"error: {re.escape(str(tmp_path / place))}.* could not be written: ", message)
    assert names(tmp_path) == {"file": b"mine"}
    assert fit([*TINY, f"run={tmp_path / ('n' * 300)}"]) == 2
    assert "File name too long" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["tensorboard", "replay/rank0", "checkpoints"])
def test_a_file_where_a_folder_of_the_run_should_be(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    command = [*TINY, "logging.tensorboard=true", "evaluation.video=false", f"run={tmp_path}"]
    assert fit(command) == 2
    message = capsys.readouterr().err
    assert re.search(rf"error: {tmp_path}/{name}\S* could not be written: (File exists|Not a directory)", message)
    assert "Traceback" not in message


def test_evaluations_that_cannot_be_written(copy: Callable[[], Path], capsys: pytest.CaptureFixture[str]) -> None:
    run = copy()
    shutil.rmtree(run / "evaluations")
    (run / "evaluations").touch()
    assert evaluate([f"run={run}", "episodes=1", "planner=random"]) == 2
    assert "eval-480-s20000-random.json could not be written: " in capsys.readouterr().err


def test_a_read_only_disk(copy: Callable[[], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, mount = copy(), tmp_path / "mount"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(mount)], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        shutil.copytree(run, mount / "run")
        subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
        assert fit([*TINY, f"run={mount / 'run'}"]) == 2
        assert "run/lock could not be written: Read-only file system" in capsys.readouterr().err
        assert export([f"run={run}", f"out={mount / 'model'}"]) == 2
        assert "model could not be written: Read-only file system" in capsys.readouterr().err
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_command_that_lost_its_reader_has_not_done_its_work(tmp_path: Path) -> None:
    """As `fit … 2>&1 | head -1`: what was to come after the line that nobody read is not there."""
    code = (
        "import sys\n"
        "from lightning_wm.console.command import exits\n"
        "def work(argv):\n"
        "    print('x' * 100_000, file=sys.stderr, flush=True)\n"
        "    open(sys.argv[1], 'w')\n"
        "    return 0\n"
        "raise SystemExit(exits(work)([]))\n"
    )
    reader, writer = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "done")], stdout=writer, stderr=writer)
    os.close(writer)
    os.close(reader)
    assert process.wait(60) == 128 + signal.SIGPIPE
    assert not (tmp_path / "done").exists()


def test_a_librarys_error_names_its_file(capsys: pytest.CaptureFixture[str]) -> None:
    @exits
    def main(argv: object = None) -> int:
        Path("/dev/null/picture.png").write_bytes(b"")
        return 0

    assert main([]) == 2
    assert "error: /dev/null/picture.png: Not a directory; expected" in capsys.readouterr().err


# ---- files with two names


def test_a_run_that_shares_its_files_with_another_is_refused(
    copy: Callable[[], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy()
    twin = run.with_name("the twin")
    subprocess.run(["cp", "-al", run, twin], check=True)
    before = names(run)
    command = [*TINY, "evaluation.video=false", "env_steps=640"]
    assert fit([*command, f"run={twin}"]) == 2
    message = capsys.readouterr().err
    assert "hard link" in message
    (typed,) = re.findall(r"type (cp .*) and go on with", message)
    subprocess.run(typed, shell=True, check=True)
    assert fit([*command, f"run={twin}-copy"]) == 0
    assert names(run) == before == names(twin)


@pytest.mark.parametrize("name", ["lock", "metrics.jsonl", "replay/rank0/is_init.bin"])
def test_every_file_that_is_written_in_place_counts(name: str, copy: Callable[[], Path], tmp_path: Path) -> None:
    run = copy()
    os.link(run / name, tmp_path / "elsewhere")
    with pytest.raises(UserError, match=f"{name} is also a file of another folder"):
        RunDirectory(run).lock()


def test_replay_alone_looks_for_itself(tmp_path: Path) -> None:
    Replay.create(tmp_path / "a", Spaces(action=1, observation=2), 10)
    subprocess.run(["cp", "-al", tmp_path / "a", tmp_path / "b"], check=True)
    with pytest.raises(UserError, match="hard link"):
        Replay.create(tmp_path / "b", Spaces(action=1, observation=2), 10)


# ---- how a run begins


def test_a_machine_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    run = RunDirectory(tmp_path / "run")
    run.begin("seed: 0\n", ["a b"], 7)
    content = read_json(run.meta)
    assert list(content) == ["argv", "seed", "versions", "revision", "device", "threads"]
    assert (content["argv"], content["seed"], content["revision"]) == (["a b"], 7, None)


def test_a_run_begins_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory(tmp_path)

    def fail() -> None:
        raise OSError("no versions")

    with monkeypatch.context() as patch:
        patch.setattr(directory, "environment", fail)
        with pytest.raises(OSError, match="no versions"):
            run.begin("seed: 0\n", [], 0)
    assert not run.exists()
    run.begin("seed: 0\n", [], 0)
    assert run.exists()


def test_the_revision_is_this_packages_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def repository(path: Path, name: str) -> str:
        path.mkdir(parents=True)
        (path / "pyproject.toml").write_text(f'[project]\nname = "{name}"\n')
        git = ["git", "-C", str(path), "-c", "user.name=a", "-c", "user.email=a@b"]
        for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", name]):
            subprocess.run([*git, *arguments], check=True)
        return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()

    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    commit = repository(ours, "lightning_wm")
    repository(theirs, "robots")
    assert directory.revision(ours) == commit
    assert directory.revision(theirs) is None
    installed = theirs / "venv" / "site-packages"
    installed.mkdir(parents=True)
    assert directory.revision(installed) is None
    shutil.copy(ours / "pyproject.toml", installed)  # a copy of our files inside of somebody's repository
    assert directory.revision(installed) is None
    monkeypatch.setenv("GIT_DIR", str(theirs / ".git"))  # as in a hook of theirs
    assert directory.revision(ours) == commit
