"""Random and damaged input: what comes out of a reader is a value or a UserError, nothing else."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from lightning_wm import config as configuration
from lightning_wm.config.keys import dotted
from lightning_wm.config.store import parse, plain, stored
from lightning_wm.data import index
from lightning_wm.data.replay import Replay
from lightning_wm.errors import UserError
from lightning_wm.export import main as export
from lightning_wm.playing.results import table
from lightning_wm.protocols import Spaces
from lightning_wm.runs.card import _table
from lightning_wm.runs.checkpoint import load_checkpoint
from lightning_wm.runs.checksum import COMMENT, EMPTY, TAIL
from lightning_wm.runs.evaluation_file import read_evaluation
from lightning_wm.runs.files import write_tensors
from lightning_wm.runs.identity import run_directory
from lightning_wm.runs.loading import LoadedRun, load_run
from lightning_wm.runs.model_folder import read_weights
from lightning_wm.runs.weights import put_weights
from lightning_wm.training.plots import read_metrics, series
from tests.mutations import damaged, mutated, values

T = TypeVar("T")
FUZZ = {
    "derandomize": True,
    "deadline": None,
    "database": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
}


def fuzz(examples: int) -> Any:
    """The same examples every time, with no clock; FUZZ=20 in the environment tries twenty times as many."""
    return settings(max_examples=max(1, int(examples * float(os.environ.get("FUZZ", "1")))), **FUZZ)


def outcome(read: Callable[[], T]) -> T | None:
    """What a reader gives; None where it refused with a message. Anything else that it raises is a failure."""
    try:
        return read()
    except UserError as error:
        if not 10 < len(str(error)) < 10_000:
            raise
        return None


@pytest.fixture(scope="module")
def loaded(trained: Path) -> LoadedRun:
    return load_run(trained)


# ---- configuration

PARTS = ["planner.candidates", "planner.name", "model.deter", "agent.clip", "callbacks.video.every"]
KEYS = [*PARTS, *(key for key in dotted(configuration.Config) if key not in ("plugins", "run"))]
"""What is typed; not `plugins`, since a plugin that is typed is meant to be imported."""
yamls = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["{", "[1, 2", "!!python/name:os.system", "*a", "&a 1", "${seed}", "${${", "???", "1e999", "1e99"]),
    values.map(lambda value: json.dumps(value, default=str)),
)
tokens = st.one_of(
    st.text(max_size=20),
    st.tuples(st.sampled_from(KEYS), yamls).map("=".join),
    st.tuples(st.sampled_from(KEYS), st.sampled_from([".", "x", ".x", "=", "-"]), yamls).map("".join),
    st.sampled_from(["planner=cem", "agent=planet", "observation=pixels", "smoke=true", "task.name=dmc/ball_in_cup"]),
    st.tuples(st.just("recipe="), st.text(max_size=8) | st.sampled_from(["/", ".", "~x", "/dev/null"])).map("".join),
)


@fuzz(150)
@given(st.booleans(), st.lists(tokens, max_size=4))
def test_command_lines(real: bool, argv: list[str]) -> None:
    """What is accepted is what its own config.yaml says."""
    found = outcome(lambda: configuration.load([*(["recipe=quickstart"] if real else []), *argv]))
    if found is not None:
        text = configuration.to_yaml(found.tree)
        again = configuration.from_tree(parse(text))
        assert repr(stored(plain(again))) == repr(stored(plain(found.config)))
        outcome(lambda: run_directory(found))


@fuzz(150)
@given(st.data())
def test_configurations_of_runs(loaded: LoadedRun, tmp_path: Path, data: st.DataObject) -> None:
    """Through the file or without it, it is the same configuration or none."""
    tree = mutated(data.draw, loaded.tree)
    tree.pop("plugins", None)
    config = outcome(lambda: configuration.from_tree(tree))
    path = tmp_path / "config.yaml"
    path.write_text(configuration.to_yaml(tree))
    again = outcome(lambda: configuration.from_tree(configuration.read_tree(path)))
    if config is not None:
        assert again is not None
        assert stored(plain(again)) == stored(plain(config))


@fuzz(150)
@given(st.data())
def test_yaml_files(trained: Path, tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "config.yaml"
    real = (trained / "config.yaml").read_bytes()
    path.write_bytes(data.draw(st.binary(max_size=200)) if data.draw(st.booleans()) else damaged(data.draw, real))
    tree = outcome(lambda: configuration.read_tree(path))
    if tree is not None and not tree.get("plugins"):
        outcome(lambda: configuration.from_tree(tree))


# ---- checkpoints


def resealed(content: bytes) -> bytes:
    """A torch archive with a checksum that is right, whatever else is wrong."""
    return content[:-2] + TAIL + hashlib.sha256(content).hexdigest().encode()


@fuzz(120)
@given(st.data())
def test_damaged_checkpoints(trained: Path, tmp_path: Path, data: st.DataObject) -> None:
    """With its checksum, any damage is found; with a new one, whatever is read is no error of the reader's."""
    real = (trained / "checkpoints" / "best.ckpt").read_bytes()
    path = tmp_path / "a.ckpt"
    path.write_bytes(real)
    assert outcome(lambda: load_checkpoint(path)) is not None
    sealed = damaged(data.draw, real)
    path.write_bytes(sealed)
    assert sealed == real or outcome(lambda: load_checkpoint(path)) is None
    bare = real[: -COMMENT - 2] + EMPTY
    # Half of the damage where it hurts: the pickled structure at the beginning, zip's directory at the end.
    cut = data.draw(st.sampled_from([0, 8_000, len(bare) - 6_000]))
    part = slice(cut, min(len(bare), cut + 8_000)) if cut != 8_000 else slice(0, len(bare))
    path.write_bytes(resealed(bare[: part.start] + damaged(data.draw, bare[part]) + bare[part.stop :]))
    outcome(lambda: load_checkpoint(path))


tensors = st.sampled_from(
    [
        torch.zeros(0),
        torch.zeros(3, dtype=torch.int64),
        torch.zeros(1).expand(10**12),
        torch.zeros(2, 2, dtype=torch.complex64),
        torch.zeros(2, 2).to_sparse(),
        torch.zeros(2, device="meta"),
        torch.full((48, 16), float("nan")),
    ]
)


@fuzz(80)
@given(st.data())
def test_checkpoints_with_other_content(loaded: LoadedRun, tmp_path: Path, data: st.DataObject) -> None:
    content = load_checkpoint(loaded.run.checkpoint("best"))
    path = tmp_path / "a.ckpt"
    write_tensors(path, mutated(data.draw, content, values | tensors))

    def read() -> Any:
        saved = load_checkpoint(path)
        put_weights(loaded.agent, saved["state_dict"], path)
        return saved["lightning_wm"]

    added = outcome(read)
    if added is not None:
        assert added["ranks"][0]["counters"]["env_steps"] >= 0


# ---- model folders


@pytest.fixture(scope="module")
def model(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "model"
    assert export([f"run={trained}", f"out={folder}"]) == 0
    return folder


def safetensors_parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and data."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


@fuzz(150)
@given(st.data())
def test_model_folders(model: Path, loaded: LoadedRun, tmp_path: Path, data: st.DataObject) -> None:
    real = (model / "model.safetensors").read_bytes()
    header, rest = safetensors_parts(real)
    if data.draw(st.booleans()):
        text = json.dumps(mutated(data.draw, header), default=str).encode()
        content = struct.pack("<Q", len(text)) + text + rest
    else:
        cut = data.draw(st.sampled_from([100, 6_000, len(real)]))
        content = damaged(data.draw, real[:cut]) + real[cut:]
    (tmp_path / "model.safetensors").write_bytes(content)
    found = outcome(lambda: read_weights(tmp_path))
    if found is not None:
        assert found.env_steps >= 0
        outcome(lambda: put_weights(loaded.agent, found.tensors, tmp_path))


# ---- replay

SPACES = Spaces(action=1, observation=5)


@fuzz(150)
@given(st.data())
def test_replay_folders(trained: Path, tmp_path: Path, data: st.DataObject) -> None:
    """What opens can be drawn from, and refuses or takes any state of a checkpoint."""
    shard = tmp_path / "rank0"
    shutil.rmtree(shard, ignore_errors=True)
    shutil.copytree(trained / "replay" / "rank0", shard)
    name = data.draw(st.sampled_from(["index.json", "commit.json", "action.bin"]))
    path = shard / name
    if name != "action.bin" and data.draw(st.booleans()):
        path.write_text(json.dumps(mutated(data.draw, json.loads(path.read_text())), default=str))
    else:
        path.write_bytes(damaged(data.draw, path.read_bytes()))
    replay = outcome(lambda: Replay.create(shard, SPACES, 1000))
    if replay is None:
        return
    assert replay.digest()
    state = mutated(data.draw, replay.state())
    outcome(lambda: replay.restore(state))
    if len(replay) >= 8:
        assert replay.sample(2, 8, torch.Generator().manual_seed(0)).shape == (2, 8)
    assert 0 <= index.read_commit(shard).transitions <= index.read_commit(shard).begun


# ---- what is read back for tables and pictures


@fuzz(100)
@given(st.data())
def test_evaluations(trained: Path, tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "final.json"
    real = trained / "evaluations" / "final.json"
    if data.draw(st.booleans()):
        path.write_text(json.dumps(mutated(data.draw, json.loads(real.read_text())), default=str))
    else:
        path.write_bytes(damaged(data.draw, real.read_bytes()))
    found = outcome(lambda: read_evaluation(path))
    if found is not None:
        Console(file=io.StringIO(), width=200).print(table([found.as_json()]))
        assert _table(found.as_json())


@fuzz(60)
@given(st.data())
def test_metrics(trained: Path, tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(damaged(data.draw, (trained / "metrics.jsonl").read_bytes()))
    steps, returns = series(read_metrics(path), "rollout/return")
    assert len(steps) == len(returns)
