"""Files that earlier versions wrote: what they hold is still read, and still does what it did."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from lightning_wm import load_actor
from lightning_wm.data.index import Commit, Index
from lightning_wm.data.replay import Replay
from lightning_wm.errors import UserError
from lightning_wm.protocols import Spaces
from lightning_wm.runs.checkpoint import Added, load_checkpoint
from lightning_wm.runs.evaluation_file import read_evaluation
from lightning_wm.runs.files import read_json, write_json
from lightning_wm.runs.loading import load_run
from lightning_wm.runs.model_folder import Header
from lightning_wm.runs.untrusted import FORMAT

GOLDEN = Path(__file__).parent / "golden"
FORMATS = sorted(GOLDEN.glob("format-*"))


@pytest.fixture(params=FORMATS, ids=lambda path: path.name)
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the files of one format."""
    return Path(shutil.copytree(request.param, tmp_path / "golden"))


def expected(written: Path) -> dict[str, Any]:
    return dict(json.loads((written / "expected.json").read_text()))


def test_there_is_one_of_every_format() -> None:
    assert [path.name for path in FORMATS] == [f"format-{number}" for number in range(1, FORMAT + 1)]
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file()) < 200_000


@pytest.mark.parametrize("folder", ["run", "model"])
def test_weights_and_a_decision(written: Path, folder: str) -> None:
    content = expected(written)
    assert load_run(written / folder).env_steps == content["env_steps"]
    actor = load_actor(written / folder)
    actor.reset()
    action = actor.act({"observation": torch.tensor(content["observation"])})
    torch.testing.assert_close(action, torch.tensor(content["action"]), rtol=1e-5, atol=1e-5)


def test_run_and_model_folder_have_the_same_weights(written: Path) -> None:
    first, other = (load_run(written / name).agent.state_dict() for name in ("run", "model"))
    assert first.keys() == other.keys()
    assert all(torch.equal(first[name], other[name]) for name in first)


def test_replay(written: Path) -> None:
    content = expected(written)
    replay = Replay.create(written / "run" / "replay" / "rank0", Spaces(action=1, observation=5), 40)
    assert (replay.transitions, replay.episodes, len(replay)) == (content["transitions"], content["episodes"], 40)
    assert replay.digest() == content["digest"]
    (path,) = (written / "run" / "checkpoints").glob("*.ckpt")
    replay.restore(load_checkpoint(path)["lightning_wm"]["ranks"][0]["replay"])
    assert replay.digest() == content["digest"]


def test_a_changed_byte_is_found(written: Path) -> None:
    (path,) = (written / "run" / "checkpoints").glob("*.ckpt")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="checksum"):
        load_checkpoint(path)


def test_what_is_written_is_what_was_written(written: Path, tmp_path: Path) -> None:
    """Byte for byte, keys in their order: other programs read these files too."""
    again = tmp_path / "again.json"
    path = written / "run" / "evaluations" / "final.json"
    read_evaluation(path).save(again)
    assert again.read_bytes() == path.read_bytes()
    shard = written / "run" / "replay" / "rank0"
    for name, model in (("index.json", Index), ("commit.json", Commit)):
        write_json(again, model.model_validate(read_json(shard / name)).as_json())
        assert again.read_bytes() == (shard / name).read_bytes()
    (path,) = (written / "run" / "checkpoints").glob("*.ckpt")
    added = load_checkpoint(path)["lightning_wm"]
    assert repr(Added.model_validate(added).as_json()) == repr(added)
    with safe_open(written / "model" / "model.safetensors", framework="pt") as file:
        header = file.metadata()
    assert Header.model_validate(header).model_dump() == header
