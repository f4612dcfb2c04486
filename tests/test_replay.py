"""Replay on disk: episodes whole or not at all, exact to restore, nothing in a folder is trusted."""

from __future__ import annotations

import errno
import json
import os
import pickle
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensordict import TensorDict
from torch import Tensor

from lightning_wm.data import Replay
from lightning_wm.data.schema import fields, first_row, next_row
from lightning_wm.errors import DiskError, EnvironmentFailure, NumericsError, UserError
from lightning_wm.protocols import Spaces

STATE = Spaces(action=2, observation=3)
BOTH = Spaces(action=1, observation=2, pixels=(3, 4, 5))


def episode(rows: int, first: int = 0, spaces: Spaces = STATE, terminated: bool = False) -> TensorDict:
    """An episode whose every number follows from its count `first, first+1, …` in replay."""
    count = torch.arange(first, first + rows)
    mark = torch.zeros(rows, 1, dtype=torch.bool)
    mark[0] = True
    data = {
        "action": (count[:, None].float().sin().expand(rows, spaces.action) * ~mark).contiguous(),
        "reward": count[:, None].float() * ~mark,
        "terminated": torch.zeros(rows, 1, dtype=torch.bool),
        "is_init": mark,
    }
    data["terminated"][-1] = terminated
    if spaces.observation is not None:
        data["observation"] = count[:, None].float().expand(rows, spaces.observation).contiguous()
    if spaces.pixels is not None:
        data["pixels"] = (count % 251).to(torch.uint8).view(-1, 1, 1, 1).expand(rows, *spaces.pixels).contiguous()
    return TensorDict(data, [rows])


def fill(replay: Replay, lengths: list[int]) -> None:
    for rows in lengths:
        replay.extend(episode(rows, replay.transitions, replay.spaces))


def counts(replay: Replay) -> Tensor:
    """What can be drawn, oldest first, read straight from the mapped files."""
    first, stored = replay.storage.span()
    return replay.storage.tensors["observation"][torch.arange(first, first + stored) % replay.storage.max_size, 0]


def assert_holds(replay: Replay, first: int, last: int) -> None:
    assert counts(replay).tolist() == list(range(first, last))


def test_rows_are_what_was_put_in() -> None:
    replay = Replay.create(None, BOTH, 50)
    whole = episode(7, 0, BOTH, terminated=True)
    keys = set(whole.keys())
    replay.extend(whole)
    assert set(whole.keys()) == keys  # TorchRL's writer would have added "index"
    assert len(replay) == replay.transitions == 7
    assert replay.episodes == 1
    back = replay.sample(1, 7, torch.Generator())[0]
    assert set(back.keys()) == set(fields(BOTH))
    for name, field in fields(BOTH).items():
        assert back[name].dtype == field.dtype
        assert torch.equal(back[name], whole[name]), name


def test_rows_of_a_batched_environment_make_an_episode() -> None:
    seen = TensorDict({"observation": torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), "other": torch.ones(2)}, [2])
    action = torch.tensor([[0.1, 0.2], [0.3, 0.4]])
    after = TensorDict(
        {
            "observation": torch.tensor([[7.0, 8.0, 9.0], [10.0, 11.0, 12.0]]),
            "reward": torch.tensor([[0.5], [1.5]]),
            "terminated": torch.tensor([[False], [True]]),
            "truncated": torch.tensor([[True], [False]]),
        },
        [2],
    )
    rows = [first_row(seen, 1, 2), next_row(after, 1, action)]
    for tensor in (*seen.values(), *after.values(), action):
        tensor.zero_()  # simulators reuse their memory
    whole = torch.stack(rows)
    assert whole["observation"].tolist() == [[4.0, 5.0, 6.0], [10.0, 11.0, 12.0]]
    assert torch.equal(whole["action"], torch.tensor([[0.0, 0.0], [0.3, 0.4]]))
    assert whole["reward"].tolist() == [[0.0], [1.5]]
    assert whole["terminated"].tolist() == [[False], [True]]
    assert whole["is_init"].tolist() == [[True], [False]]
    Replay.create(None, STATE, 10).extend(whole)  # and it is what replay takes


def test_the_newest_count_and_slack_stays() -> None:
    replay = Replay.create(None, STATE, capacity=20, slack=5)
    fill(replay, [8, 8])
    assert_holds(replay, 0, 16)
    fill(replay, [8])  # 24 of 25 slots used
    assert_holds(replay, 4, 24)
    fill(replay, [8])  # around the ring's end
    assert_holds(replay, 12, 32)
    assert len(replay) == 20
    assert replay.storage.tensors["observation"][:7, 0].tolist() == [25, 26, 27, 28, 29, 30, 31]


def test_files_are_sparse() -> None:
    replay = Replay.create(None, Spaces(action=1, pixels=(3, 64, 64)), 100_000)
    replay.extend(episode(10, 0, replay.spaces))
    found = os.stat(replay.folder / "pixels.bin")
    assert found.st_size == 110_000 * 12288
    assert 10 * 12288 <= found.st_blocks * 512 < 2_000_000


def test_survives_reopening(tmp_path: Path) -> None:
    replay = Replay.create(tmp_path / "a" / "rank0", STATE, 30, slack=12)
    fill(replay, [12, 12, 12])
    digest = replay.digest()
    again = Replay.create(tmp_path / "a" / "rank0", STATE, 30)
    assert (len(again), again.transitions, again.episodes) == (30, 36, 3)
    assert again.digest() == digest
    fill(again, [5])
    assert_holds(again, 11, 41)
    assert again.digest() != digest


def test_a_temporary_folder_goes_with_the_replay() -> None:
    replay = Replay.create(None, STATE, 30)
    folder = replay.folder
    assert folder.is_dir()
    del replay
    assert not folder.exists()


# -- restore ------------------------------------------------------------------------------------------------------


def test_restore_discards_what_came_later(tmp_path: Path) -> None:
    replay = Replay.create(tmp_path, STATE, 30, slack=20)
    fill(replay, [10, 10, 15])
    state, digest = replay.state(), replay.digest()
    assert state == {"transitions": 35, "episodes": 3, "capacity": 30}
    assert all(type(value) is int for value in state.values())
    fill(replay, [10, 10])  # 55 begun: row 5, the oldest of the checkpoint's, is the oldest still there
    replay.restore(state)
    assert replay.digest() == digest
    assert_holds(replay, 5, 35)
    fill(replay, [10])  # and it goes on from there
    assert_holds(replay, 15, 45)

    again = Replay.create(tmp_path, STATE, 30)
    again.restore(state)
    assert (again.digest(), again.episodes) == (digest, 3)


def test_restore_refuses_what_was_overwritten() -> None:
    replay = Replay.create(None, STATE, 30, slack=20)
    fill(replay, [10, 10, 15])
    state = replay.state()
    fill(replay, [10, 11])
    with pytest.raises(UserError, match="has moved on: 21 transitions were added after the checkpoint, 20 may be"):
        replay.restore(state)
    assert replay.transitions == 56


def test_restore_remembers_what_a_discarded_branch_overwrote(tmp_path: Path) -> None:
    replay = Replay.create(tmp_path, STATE, 30, slack=20)
    fill(replay, [10, 10, 10])
    older = replay.state()
    fill(replay, [10, 10])
    newer = replay.state()
    fill(replay, [10, 10])  # 70 begun: rows below 20 are gone
    replay.restore(newer)
    assert_holds(replay, 20, 50)
    again = Replay.create(tmp_path, STATE, 30)
    assert_holds(again, 20, 50)
    with pytest.raises(UserError, match="has moved on"):
        again.restore(older)


def test_restore_refuses_a_foreign_state() -> None:
    replay = Replay.create(None, STATE, 30)
    fill(replay, [10])
    with pytest.raises(UserError, match=r"refers to 11 transitions.* ever had 10"):
        replay.restore({"transitions": 11, "episodes": 1, "capacity": 30})
    with pytest.raises(UserError, match=r"type replay\.capacity=40"):
        replay.restore({"transitions": 10, "episodes": 1, "capacity": 40})
    for broken in ({}, {"transitions": "10", "episodes": 1, "capacity": 30}, {"transitions": -1, "episodes": 1}):
        with pytest.raises(UserError, match="damaged"):
            replay.restore(broken)


# -- whole or not at all ------------------------------------------------------------------------------------------


def in_child(work: Callable[[], None]) -> int:
    """Run in a forked child; its wait status. It never returns into pytest."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


class DiesAfter(dict[str, Tensor]):
    """Tensors of a storage whose process is killed once `left` of them were written to."""

    left = 0

    def items(self) -> Iterator[tuple[str, Tensor]]:  # type: ignore[override]
        for name in self:
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1
            yield name, self[name]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(
    ("lengths", "written"),
    [([10], 0), ([10], 1), ([10], 4), ([10] * 4, 0), ([10] * 4, 3), ([10] * 4, 7)],  # a wrap writes 5 keys twice
)
def test_a_kill_inside_an_extend_changes_nothing(tmp_path: Path, lengths: list[int], written: int) -> None:
    replay = Replay.create(tmp_path, STATE, 25, slack=20)
    fill(replay, lengths)
    state, digest = replay.state(), replay.digest()

    def die() -> None:
        storage = replay.storage
        storage.reserve = lambda rows: None  # it goes through the tensors too
        storage.tensors = DiesAfter(storage.tensors)
        storage.tensors.left = written
        fill(replay, [10])

    assert os.WTERMSIG(in_child(die)) == signal.SIGKILL
    again = Replay.create(tmp_path, STATE, 25)
    assert (again.transitions, again.episodes) == (sum(lengths), len(lengths))
    assert again.digest() == digest
    again.restore(state)
    assert again.digest() == digest


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_kills_at_random_moments_leave_whole_episodes(tmp_path: Path) -> None:
    moments = random.Random(3)
    for kill in range(8):
        replay = Replay.create(tmp_path, STATE, 400, slack=100)
        before = (replay.transitions, replay.episodes)
        child = os.fork()
        if child == 0:
            try:
                while True:
                    fill(replay, [37])
            finally:
                os._exit(1)
        time.sleep(moments.uniform(0.02, 0.15))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        replay = Replay.create(tmp_path, STATE, 400)
        assert replay.transitions == 37 * replay.episodes, kill
        assert replay.episodes >= before[1]
        assert_holds(replay, max(0, replay.transitions - 400), replay.transitions)
    assert replay.transitions > 400


def test_too_little_slack_shrinks_what_counts(tmp_path: Path) -> None:
    """Killed while overwriting rows that still counted: those rows are not drawn again."""
    replay = Replay.create(tmp_path, STATE, 20, slack=4)
    fill(replay, [10, 10])

    def die() -> None:
        replay.storage.reserve = lambda rows: None
        replay.storage.tensors = DiesAfter(replay.storage.tensors)
        replay.storage.tensors.left = 3
        fill(replay, [10])

    in_child(die)
    again = Replay.create(tmp_path, STATE, 20)
    assert again.transitions == 20
    assert_holds(again, 6, 20)  # 30 begun, 24 slots: rows below 6 may be gone
    fill(again, [10])
    assert_holds(again, 10, 30)


def test_a_full_disk_is_an_error_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replay = Replay.create(tmp_path, STATE, 30)
    fill(replay, [10])
    digest, reserve, calls = replay.digest(), os.posix_fallocate, []

    def full(descriptor: int, start: int, length: int) -> None:
        calls.append((start, length))
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        reserve(descriptor, start, length)

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DiskError, match=r"no room for .* No space left on device.*replay\.capacity"):
        fill(replay, [5])
    assert calls[0] == (10 * 12, 5 * 12)  # rows 10 to 15 of three float32
    assert (replay.digest(), replay.transitions, replay.buffer.writer._cursor) == (digest, 10, 10)
    fill(replay, [5])
    assert_holds(replay, 0, 15)


def test_a_commit_that_cannot_be_written_takes_the_episode_back(monkeypatch: pytest.MonkeyPatch) -> None:
    replay = Replay.create(None, STATE, 30)
    fill(replay, [10])

    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(DiskError, match=r"commit\.json"):
            fill(replay, [5])
    assert (replay.transitions, replay.episodes, replay.buffer.writer._cursor) == (10, 1, 10)
    fill(replay, [5])
    assert_holds(replay, 0, 15)


def test_a_small_file_system_runs_full(tmp_path: Path) -> None:
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        replay = Replay.create(tmp_path / "replay", Spaces(action=1, observation=1, pixels=(3, 64, 64)), 1000)
        with pytest.raises(DiskError, match="No space left"):
            fill(replay, [10] * 20)  # 83 fit at most
        stored = replay.transitions
        assert stored >= 50
        assert_holds(replay, 0, stored)
        assert_holds(Replay.create(tmp_path / "replay", replay.spaces, 1000), 0, stored)
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


# -- what is not an episode ---------------------------------------------------------------------------------------


def spoil(name: str, row: int, value: float) -> Callable[[TensorDict], TensorDict]:
    def change(data: TensorDict) -> TensorDict:
        data[name][row] = value
        return data

    return change


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda d: d.exclude("reward"), UserError, r"'reward' is missing \(float32 \[1\]\)"),
        (lambda d: d.set("pixels", torch.zeros(6, 3)), UserError, "'pixels' is not part of it"),
        (lambda d: d.set("reward", d["reward"].double()), UserError, r"'reward' must be float32 \[1\], got float64"),
        (lambda d: d.set("action", torch.zeros(6, 3)), UserError, r"'action' must be float32 \[2\], got float32 \[3\]"),
        (lambda d: d[None], UserError, r"got \[1, 6\]"),
        (lambda d: d[:1], UserError, "at least one decision"),
        (spoil("is_init", 0, False), UserError, "False there"),
        (spoil("is_init", 4, True), UserError, "'is_init' is True again at row 4"),
        (spoil("terminated", 3, True), UserError, "'terminated' is True at row 3"),
        (spoil("action", 0, 0.5), UserError, "'action' must be zero at row 0"),
        (spoil("reward", 0, 0.5), UserError, "'reward' must be zero at row 0"),
        (spoil("reward", 2, float("nan")), EnvironmentFailure, "'reward' is not finite at row 2"),
        (spoil("observation", 5, float("inf")), EnvironmentFailure, "'observation' is not finite at row 5"),
        (spoil("action", 1, float("nan")), NumericsError, "'action' is not finite at row 1"),
    ],
)
def test_anything_but_an_episode_is_refused(
    change: Callable[[TensorDict], TensorDict], error: type[Exception], message: str
) -> None:
    replay = Replay.create(None, STATE, 30)
    fill(replay, [10])
    digest = replay.digest()
    with pytest.raises(error, match=message):
        replay.extend(change(episode(6)))
    assert (replay.digest(), replay.episodes) == (digest, 1)


def test_all_faults_of_an_episode_at_once() -> None:
    replay = Replay.create(None, STATE, 30)
    with pytest.raises(UserError) as caught:
        replay.extend(episode(6).exclude("reward", "action").set("extra", torch.zeros(6)))
    assert all(name in str(caught.value) for name in ("'reward'", "'action'", "'extra'"))


def test_an_episode_longer_than_the_capacity() -> None:
    replay = Replay.create(None, STATE, 30)
    with pytest.raises(UserError, match=r"31 transitions does not fit.*replay\.capacity=31"):
        replay.extend(episode(31))
    replay.extend(episode(30))


def test_no_observation_at_all() -> None:
    with pytest.raises(UserError, match="neither a state vector nor pixels"):
        Replay.create(None, Spaces(action=1), 10)


# -- folders that are not ours, or not any more -------------------------------------------------------------------


def test_other_settings_are_named(tmp_path: Path) -> None:
    Replay.create(tmp_path, STATE, 30)
    with pytest.raises(UserError, match="capacity is 30 there, 40 asked for"):
        Replay.create(tmp_path, STATE, 40)
    with pytest.raises(UserError, match=r"observation is float32 \[3\] there, float32 \[4\] asked for"):
        Replay.create(tmp_path, Spaces(action=2, observation=4), 30)
    with pytest.raises(
        UserError,
        match=r"observation is float32 \[3\] there, absent asked for; pixels is absent there, uint8 \[3, 8, 8\]",
    ):
        Replay.create(tmp_path, Spaces(action=2, pixels=(3, 8, 8)), 30)


@pytest.mark.parametrize("name", ["index.json", "commit.json"])
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"transitions": 5}', b" " * 2_000_000, b"1e999"],
    ids=["empty", "cut", "list", "null", "binary", "deep", "partial", "huge", "number"],
)
def test_damaged_json(tmp_path: Path, name: str, content: bytes) -> None:
    fill(Replay.create(tmp_path, STATE, 30), [10])
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}|made with other settings"):
        Replay.create(tmp_path, STATE, 30)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["index.json", "commit.json"]), data=st.data())
def test_any_json_at_all(tmp_path: Path, name: str, data: st.DataObject) -> None:
    folder = tmp_path / "fuzz"
    if not folder.exists():
        fill(Replay.create(folder, STATE, 30), [10])
    good = (folder / name).read_text()
    leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    anything = st.recursive(
        leaf, lambda s: st.lists(s, max_size=3) | st.dictionaries(st.text(max_size=5), s), max_leaves=5
    )
    content = json.loads(good)
    content[data.draw(st.sampled_from([*content, "other"]))] = data.draw(anything)
    (folder / name).write_text(json.dumps(content if data.draw(st.booleans()) else data.draw(anything)))
    try:
        len(Replay.create(folder, STATE, 30))
    except UserError:
        pass
    finally:
        (folder / name).write_text(good)


def test_a_missing_index_never_empties_a_folder(tmp_path: Path) -> None:
    fill(Replay.create(tmp_path, STATE, 30), [10])
    (tmp_path / "index.json").unlink()
    with pytest.raises(UserError, match=r"index\.json is missing"):
        Replay.create(tmp_path, STATE, 30)


def test_a_half_made_folder_is_made_again(tmp_path: Path) -> None:
    Replay.create(tmp_path, STATE, 30)
    (tmp_path / "index.json").unlink()
    (tmp_path / "reward.bin").unlink()
    fill(Replay.create(tmp_path, STATE, 30), [10])


@pytest.mark.parametrize("name", ["observation.bin", "is_init.bin"])
def test_files_that_are_not_as_they_were(tmp_path: Path, name: str) -> None:
    fill(Replay.create(tmp_path / "r", STATE, 30), [10])
    path = tmp_path / "r" / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])  # mapping it would be a SIGBUS later
    with pytest.raises(UserError, match=f"{name} has .* bytes, expected"):
        Replay.create(tmp_path / "r", STATE, 30)
    path.unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        Replay.create(tmp_path / "r", STATE, 30)
    outside = tmp_path / "outside"
    outside.write_bytes(whole)
    path.symlink_to(outside)
    with pytest.raises(UserError, match=f"{name} is not a plain file"):
        Replay.create(tmp_path / "r", STATE, 30)


def test_a_link_where_a_file_is_to_be_made(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "reward.bin").symlink_to(victim)
    with pytest.raises(UserError, match="is a link"):
        Replay.create(tmp_path / "r", STATE, 30)
    assert victim.read_text() == "precious"


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_planted_pickles_are_not_executed(tmp_path: Path) -> None:
    folder, touched = tmp_path / "r", tmp_path / "touched"
    fill(Replay.create(folder, STATE, 30), [10])
    payload = pickle.dumps(Payload(touched))
    pickle.loads(payload)
    assert touched.exists()  # it would work
    touched.unlink()
    for name in ("prefetch.pkl", "other.pickle", "index.json.pkl", "storage/other.pickle", "_generators.pkl"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(payload)
    for name in ("meta.json", "storage_metadata.json", "storage/meta.json"):
        (folder / name).write_text(json.dumps({"_target_": "os.system", "_type": "pickle", "non_tensor": True}))
    replay = Replay.create(folder, STATE, 30)
    replay.restore(replay.state())
    replay.sample(2, 5, torch.Generator())
    fill(replay, [5])
    assert not touched.exists()
    (folder / "commit.json").write_bytes(payload)
    with pytest.raises(UserError, match="damaged"):
        Replay.create(folder, STATE, 30)
    assert not touched.exists()
