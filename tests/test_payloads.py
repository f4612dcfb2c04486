"""Nothing in a file is executed, read elsewhere or written elsewhere: every payload ends with exit code 2."""

from __future__ import annotations

import ast
import json
import os
import pickle
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import lightning_wm
from lightning_wm.bench import main as bench
from lightning_wm.config.schema import ObservationConfig, TaskConfig
from lightning_wm.envs import make_env
from lightning_wm.errors import UserError
from lightning_wm.evaluate import main as evaluate
from lightning_wm.export import main as export
from lightning_wm.fit import main as fit
from lightning_wm.runs.checkpoint import Counters, load_checkpoint
from lightning_wm.runs.directory import RunDirectory
from lightning_wm.runs.files import write_tensors
from lightning_wm.runs.loading import load_run
from lightning_wm.runs.weights import no_larger_than
from lightning_wm.training.rollout import Rollout
from tests.conftest import TINY
from tests.payloads import bomb, pickled, rezipped, safetensors_with, torch_saved

FIT = [*TINY, "evaluation.video=false"]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def sentinel(tmp_path: Path) -> Path:
    """What a payload would make."""
    return tmp_path / "executed"


@pytest.fixture
def run(copy: Callable[[], Path]) -> Path:
    """A run that may be changed."""
    return copy()


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "model"
    assert export([f"run={trained}", f"out={folder}"]) == 0
    return folder


@pytest.fixture
def model(exported: Path, tmp_path: Path) -> Path:
    """A model folder that may be changed."""
    return Path(shutil.copytree(exported, tmp_path / "model"))


def refused(code: int, capsys: Capture, sentinel: Path) -> str:
    """What a command said that ended with 2 and executed nothing."""
    captured = capsys.readouterr()
    assert code == 2, captured.err
    assert not sentinel.exists()
    assert "error: " in captured.err
    assert "Traceback" not in captured.err
    return captured.err


def checkpoints(run: Path, content: bytes) -> None:
    """Put something else in place of every checkpoint."""
    for path in (run / "checkpoints").glob("*.ckpt"):
        path.write_bytes(content)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# ---- that the payloads are real


def test_the_payloads_do_what_they_say(sentinel: Path, tmp_path: Path) -> None:
    pickle.loads(pickled(sentinel))
    assert sentinel.read_text() == "executed"
    sentinel.unlink()
    (tmp_path / "a.ckpt").write_bytes(torch_saved(sentinel))
    torch.load(tmp_path / "a.ckpt", weights_only=False)
    assert sentinel.exists()
    sentinel.unlink()
    (tmp_path / "b.ckpt").write_bytes(torch_saved(sentinel, legacy=True))
    torch.load(tmp_path / "b.ckpt", weights_only=False)
    assert sentinel.exists()
    (tmp_path / "c.ckpt").write_bytes(bomb(2_000_000))
    assert (tmp_path / "c.ckpt").stat().st_size < 10_000


# ---- checkpoints


@pytest.mark.parametrize("kind", ["pickle", "torch", "torch and what belongs there", "torch before 1.6", "data.pkl"])
@pytest.mark.parametrize("command", ["fit", "evaluate", "export"])
def test_a_pickle_in_a_checkpoint(kind: str, command: str, run: Path, sentinel: Path, capsys: Capture) -> None:
    real = next((run / "checkpoints").glob("turn-*.ckpt"))
    content = {
        "pickle": lambda: pickled(sentinel),
        "torch": lambda: torch_saved(sentinel),
        "torch and what belongs there": lambda: torch_saved(sentinel, torch.load(real, weights_only=True)),
        "torch before 1.6": lambda: torch_saved(sentinel, legacy=True),
        "data.pkl": lambda: rezipped(real.read_bytes(), {"data.pkl": pickled(sentinel)}),
    }[kind]()
    checkpoints(run, content)
    codes = {
        "fit": lambda: fit([*FIT, f"run={run}"]),
        "evaluate": lambda: evaluate([f"run={run}", "episodes=1"]),
        "export": lambda: export([f"run={run}", f"out={run.parent / 'out'}"]),
    }
    assert ".ckpt" in refused(codes[command](), capsys, sentinel)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.zeros(48, 16, dtype=torch.complex64), "model.gru.weight_hh is no plain tensor"),
        (torch.zeros(48, 17), "model.gru.weight_hh is [48, 17], the model has [48, 16]"),
        (torch.zeros(48, 16, dtype=torch.int64), "int64"),
        (None, "model.gru.weight_hh is missing"),
    ],
)
def test_weights_that_evaluate_refuses_are_not_gone_on_from(
    value: torch.Tensor | None, said: str, run: Path, sentinel: Path, capsys: Capture
) -> None:
    for path in (run / "checkpoints").glob("turn-*.ckpt"):
        content = torch.load(path, weights_only=True)
        del content["state_dict"]["model.gru.weight_hh"]
        if value is not None:
            content["state_dict"]["model.gru.weight_hh"] = value
        write_tensors(path, content)
    assert said in refused(evaluate([f"run={run}", "episodes=1"]), capsys, sentinel)
    assert said in refused(fit([*FIT, f"run={run}", "env_steps=640"]), capsys, sentinel)


def test_what_another_thread_builds_is_not_counted(tmp_path: Path) -> None:
    """Looking at one model's size changes nothing for others."""
    built: list[torch.nn.Module] = []
    with no_larger_than(tmp_path / "a", {"w": torch.zeros(2, 2)}):
        other = threading.Thread(target=lambda: built.append(torch.nn.Linear(2000, 2000)))
        other.start()
        other.join()
        torch.nn.Linear(20, 20)
        with pytest.raises(UserError, match="much larger model"):
            torch.nn.Linear(2000, 2000)
    assert len(built) == 1


def test_memory_is_not_reserved_for_what_is_refused(tmp_path: Path) -> None:
    with no_larger_than(tmp_path / "a", {"w": torch.zeros(2, 2)}), pytest.raises(UserError, match="much larger model"):
        torch.nn.Linear(2**20, 2**20)  # 4 TB


def test_pictures_of_any_size_in_a_configuration(model: Path, sentinel: Path, capsys: Capture) -> None:
    edit(model / "config.yaml", "    size: 64", "    size: 1000000000")
    edit(model / "config.yaml", "kind: state", "kind: pixels")
    assert "observation.render.size" in refused(evaluate([f"run={model}", "episodes=1"]), capsys, sentinel)


def test_a_checkpoint_that_unpacks_to_gigabytes(run: Path, sentinel: Path, capsys: Capture) -> None:
    checkpoints(run, bomb())
    assert "compressed" in refused(evaluate([f"run={run}"]), capsys, sentinel)
    assert "compressed" in refused(fit([*FIT, f"run={run}"]), capsys, sentinel)


def test_weights_that_pretend_to_be_large(run: Path, sentinel: Path, capsys: Capture) -> None:
    """A view of one number as a billion, with a configuration that describes as many."""
    path = run / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    content["state_dict"] = {name: torch.zeros(1).expand(10**9) for name in content["state_dict"]}
    write_tensors(path, content)
    edit(run / "config.yaml", "deter: 16", "deter: 60000")
    assert "does not fit" in refused(evaluate([f"run={run}", "checkpoint=best"]), capsys, sentinel)


# ---- configuration


@pytest.mark.parametrize("folder", ["run", "model"])
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seed: 0", 'seed: !!python/object/apply:os.system ["touch SENTINEL"]', "is not read"),
        ("seed: 0", 'seed: !!python/object/apply:pathlib.Path.write_text ["SENTINEL", "x"]', "is not read"),
        ("seed: 0", "seed: !!python/name:os.system", "is not read"),
        ("name: rssm", "name: rssm\n  _target_: os.system", "_target_"),
        ("name: rssm", "_target_: os.system\n  name: rssm", "_target_"),
        ("name: planet", "name: os.system", "there is no agent"),
        ("name: dmc/cartpole_swingup", "name: gym/wm_evil_plugin:Env-v0", "names a module to import"),
        ("plugins: []", "plugins: [wm_evil_plugin]", "trust=true"),
        ("callbacks: {}", "callbacks: {wm_evil_plugin.Callback: {}}", "there is no callback"),
        ("seed: 0", "seed: ${oc.env:HOME}", "a whole number"),
        ("seed: 0", "seed: &a [1, 2]\nenv_step: [*a, *a]", "aliases"),
        ("deter: 16", "deter: 100000", "much larger model"),
        ("deter: 16", "deter: 1000000000", "does not fit"),
        ("layers: 2", "layers: 1000000000", "much larger model"),
        ("deter: 16", "deter: 99999999999999999", "does not fit"),
        ("seed: 0", "seed: " + "[" * 5000, "nested too deeply"),
        ("seed: 0", "seed: 0 #" + "x" * 600_000, "bytes"),
    ],
)
def test_code_in_a_configuration(
    old: str,
    new: str,
    said: str,
    folder: str,
    sentinel: Path,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "wm_evil_plugin.py").write_text(f"from pathlib import Path\nPath({str(sentinel)!r}).touch()\n")
    path = request.getfixturevalue(folder)
    edit(path / "config.yaml", old, new.replace("SENTINEL", str(sentinel)))
    assert said in refused(evaluate([f"run={path}", "episodes=1"]), capsys, sentinel)


def test_a_runs_configuration_as_a_recipe(
    run: Path, sentinel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "wm_evil_plugin.py").write_text(f"from pathlib import Path\nPath({str(sentinel)!r}).touch()\n")
    recipe = run / "config.yaml"
    edit(recipe, "plugins: []", "plugins: [wm_evil_plugin]")
    assert "trust=true" in refused(fit([f"recipe={recipe}", f"run={tmp_path / 'b'}"]), capsys, sentinel)
    edit(recipe, "plugins: [wm_evil_plugin]", "plugins: []\ntrust: true")
    assert "trust" in refused(fit([f"recipe={recipe}", f"run={tmp_path / 'b'}"]), capsys, sentinel)


# ---- model folders


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (safetensors_with({}, length=2**62), "damaged or foreign"),
        (safetensors_with({}, length=90_000_000), "damaged or foreign"),
        (safetensors_with({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 4]}}, bytes(4)), "damaged"),
        (safetensors_with({"x": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}}), "damaged"),
        (safetensors_with({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 2**50]}}, bytes(4)), "damaged"),
        (
            safetensors_with({name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in "xy"}, bytes(4)),
            "damaged",
        ),
        (safetensors_with({"__metadata__": {"lightning_wm": "9" * 18}}), "reads up to 1"),
        (safetensors_with({"__metadata__": {"lightning_wm": "1", "env_steps": "1e9", "checkpoint": "last"}}), "1e9"),
        (safetensors_with({"__metadata__": {"lightning_wm": "1", "env_steps": "1", "checkpoint": "../x"}}), "../x"),
        (safetensors_with({"__metadata__": {"lightning_wm": "1", "env_steps": "1", "checkpoint": "last"}}), "missing"),
        (b"", "damaged"),
    ],
)
def test_a_header_that_is_not_true(content: bytes, said: str, model: Path, sentinel: Path, capsys: Capture) -> None:
    (model / "model.safetensors").write_bytes(content)
    assert said in refused(evaluate([f"run={model}"]), capsys, sentinel)


@pytest.mark.parametrize("content", [pickled, torch_saved, lambda path: torch_saved(path, legacy=True)])
def test_a_pickle_named_safetensors(
    content: Callable[[Path], bytes], model: Path, sentinel: Path, capsys: Capture
) -> None:
    (model / "model.safetensors").write_bytes(content(sentinel))
    assert "expected safetensors" in refused(evaluate([f"run={model}"]), capsys, sentinel)
    assert "expected safetensors" in refused(bench(["planner", f"run={model}"]), capsys, sentinel)


def test_pickles_beside_the_weights_are_not_looked_at(model: Path, sentinel: Path, capsys: Capture) -> None:
    for name in ("pytorch_model.bin", "model.pt", "optimizer.pt", "training_args.bin", "metadata.pickle"):
        (model / name).write_bytes(torch_saved(sentinel))
    assert load_run(model).env_steps == 480
    (model / "checkpoints").mkdir()
    (model / "checkpoints" / "turn-00001.ckpt").write_bytes(torch_saved(sentinel))
    assert "turn-00001.ckpt" in refused(evaluate([f"run={model}"]), capsys, sentinel)


def test_weights_of_another_shape_and_kind(model: Path, sentinel: Path, capsys: Capture) -> None:
    path = model / "model.safetensors"
    about = {"format": "pt", "lightning_wm": "1", "env_steps": "480", "checkpoint": "last"}
    tensors = safetensors.torch.load_file(path)
    name = "model.gru.weight_hh"
    for changed, said in (
        (torch.zeros(48, 17), "[48, 17], the model has [48, 16]"),
        (torch.zeros(48, 16, dtype=torch.int64), "int64"),
        (torch.zeros(48, 16, dtype=torch.complex64), "no plain tensor"),
    ):
        safetensors.torch.save_file({**tensors, name: changed}, path, about)
        assert said in refused(evaluate([f"run={model}"]), capsys, sentinel)
    safetensors.torch.save_file({**tensors, "../evil": torch.zeros(1)}, path, about)
    assert "'../evil' is not part of the model" in refused(evaluate([f"run={model}"]), capsys, sentinel)


# ---- replay


@pytest.mark.parametrize("name", ["index.json", "commit.json", "observation.bin"])
def test_a_pickle_in_place_of_a_replay_file(name: str, run: Path, sentinel: Path, capsys: Capture) -> None:
    (run / "replay" / "rank0" / name).write_bytes(pickled(sentinel))
    assert name in refused(fit([*FIT, f"run={run}", "env_steps=640"]), capsys, sentinel)


def test_what_other_libraries_would_unpickle_is_not_looked_at(run: Path, sentinel: Path) -> None:
    """TorchRL's and tensordict's readers execute these; the run goes on and is complete."""
    shard = run / "replay" / "rank0"
    for name in ("prefetch.pkl", "other.pickle", "non_tensor.pickle"):
        (shard / name).write_bytes(pickled(sentinel))
    (shard / "meta.json").write_text(json.dumps({"_type": "<class 'tensordict.TensorDict'>", "shape": [1]}))
    (shard / "sampler_metadata.json").write_text("{}")
    assert fit([*FIT, f"run={run}", "env_steps=640"]) == 0
    assert not sentinel.exists()


@pytest.mark.parametrize("key", ["../../../outside", "/tmp/outside", "action/../../outside", "action\0"])
def test_a_name_in_the_index_that_leaves_the_folder(key: str, run: Path, sentinel: Path, capsys: Capture) -> None:
    path = run / "replay" / "rank0" / "index.json"
    content = json.loads(path.read_text())
    content["keys"][key] = content["keys"].pop("action")
    path.write_text(json.dumps(content))
    assert "other settings" in refused(fit([*FIT, f"run={run}", "env_steps=640"]), capsys, sentinel)


@pytest.mark.parametrize(
    "change",
    [
        {"slots": 2**61},
        {"slots": -1},
        {"slots": 1e300},
        {"capacity": 2**61},
        {"format": 99},
        {"keys": {"action": {"dtype": "float32", "shape": [2**40]}}},
        {"keys": {"action": {"dtype": "os.system", "shape": [1]}}},
        {"keys": [[]] * 1000},
    ],
)
def test_sizes_in_the_index_that_are_not_true(
    change: dict[str, object], run: Path, sentinel: Path, capsys: Capture
) -> None:
    path = run / "replay" / "rank0" / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert "replay folder" in refused(fit([*FIT, f"run={run}", "env_steps=640"]), capsys, sentinel)


# ---- links, devices, paths


@pytest.mark.parametrize(
    "name",
    [
        "lock",
        "metrics.jsonl",
        "config.yaml",
        "learning_curve.png",
        "checkpoints/best.ckpt",
        "evaluations/final.json",
        "replay/rank0/action.bin",
        "replay/rank0/commit.json",
        "replay/rank0/index.json",
    ],
)
def test_a_link_to_a_file_of_the_user(name: str, run: Path, sentinel: Path, tmp_path: Path, capsys: Capture) -> None:
    """Going on would lock, cut, write or map it."""
    mine = tmp_path / "mine"
    shutil.copy(run / name, mine)
    before = mine.read_bytes()
    (run / name).unlink()
    (run / name).symlink_to(mine if name != "config.yaml" else os.path.relpath(mine, run))
    assert "leaves its folder" in refused(fit([*FIT, f"run={run}", "env_steps=640"]), capsys, sentinel)
    assert "leaves its folder" in refused(evaluate([f"run={run}"]), capsys, sentinel)
    assert mine.read_bytes() == before


@pytest.mark.parametrize("name", ["evaluations", "videos", "checkpoints", "replay", "replay/rank0", "tensorboard"])
def test_a_link_to_a_folder_of_the_user(name: str, run: Path, sentinel: Path, tmp_path: Path, capsys: Capture) -> None:
    mine = tmp_path / "mine"
    if (run / name).exists():
        shutil.move(run / name, mine)
    else:
        mine.mkdir()
    before = sorted(path.relative_to(mine) for path in mine.rglob("*"))
    (run / name).symlink_to(mine)
    assert "leaves its folder" in refused(fit([*FIT, f"run={run}", "env_steps=640"]), capsys, sentinel)
    assert "leaves its folder" in refused(evaluate([f"run={run}", "episodes=1"]), capsys, sentinel)
    assert sorted(path.relative_to(mine) for path in mine.rglob("*")) == before


def test_a_link_out_of_a_model_folder(model: Path, sentinel: Path, tmp_path: Path, capsys: Capture) -> None:
    (model / "evaluations").symlink_to("..")
    message = refused(evaluate([f"run={model}", "episodes=1"]), capsys, sentinel)
    assert "cp -rL" in message
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize("name", ["config.yaml", "model.safetensors", "evaluations"])
def test_a_pipe_does_not_hang(name: str, model: Path, sentinel: Path, capsys: Capture) -> None:
    if (model / name).exists():
        (model / name).unlink()
    os.mkfifo(model / name)
    refused(evaluate([f"run={model}", "episodes=1"]), capsys, sentinel)


def test_links_within_the_folder_and_of_the_folder_are_fine(run: Path, tmp_path: Path) -> None:
    """And so are those that W&B makes in its own."""
    (run / "newest").symlink_to("checkpoints")
    (run / "wandb").mkdir()
    (run / "wandb" / "debug.log").symlink_to(tmp_path / "elsewhere.log")
    (tmp_path / "link").symlink_to(run)
    assert load_run(tmp_path / "link").env_steps == 480


def test_a_link_to_itself_and_folders_without_end(run: Path, sentinel: Path, capsys: Capture) -> None:
    """Neither ends in a traceback, and what lies deeper than Python's stack is looked at as well."""
    (run / "loop").symlink_to("loop")
    here = os.open(run, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=here)
        above, here = here, os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(above)
    try:
        assert load_run(run).env_steps == 480
        os.symlink("/", "out", dir_fd=here)
        assert "leaves its folder" in refused(evaluate([f"run={run}", "episodes=1"]), capsys, sentinel)
    finally:
        os.close(here)
        subprocess.run(["rm", "-rf", run / "d"], check=True)  # nor can Python's own rmtree go as deep


@pytest.mark.parametrize("name", ["../../evil", "/tmp/evil", "a/b", "..\0"])
def test_a_name_that_leaves_the_folder(name: str, model: Path, sentinel: Path, capsys: Capture) -> None:
    assert "name=" in refused(evaluate([f"run={model}", f"name={name}"]), capsys, sentinel)


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no version": lambda content: content.pop("pytorch-lightning_version"),
    "no loops": lambda content: content.update(loops={}),
    "no weights": lambda content: content["state_dict"].clear(),
    "guard": lambda content: content.update(guard={"skipped": "x"}),
    "seconds": lambda content: content["lightning_wm"]["ranks"][0]["counters"].update(seconds=10**400),
    "restarts": lambda content: content["lightning_wm"]["ranks"][0]["counters"].update(restarts="x"),
    "no turns": lambda content: content["lightning_wm"]["ranks"][0]["counters"].pop("turns"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_checkpoint_that_cannot_be_gone_on_from(change: str, run: Path, sentinel: Path, capsys: Capture) -> None:
    newest = RunDirectory(run).checkpoint()
    content = load_checkpoint(newest)
    CHANGES[change](content)
    for path in (run / "checkpoints").glob("turn-*.ckpt"):
        write_tensors(path, content)
    assert newest.name in refused(fit([*FIT, f"run={run}", "env_steps=640"]), capsys, sentinel)


def test_counters_that_are_none_of_ours_are_left_out() -> None:
    rollout = Rollout(make_env(TaskConfig("dmc/cartpole_swingup"), ObservationConfig("state")))
    rollout.load_state_dict({"turns": 3, "__class__": 1, "state": 2})
    assert (rollout.counters.turns, vars(rollout.counters).keys()) == (3, vars(Counters()).keys())


# ---- what is only read back


@pytest.mark.parametrize("content", ["[" * 100_000, "{}", "[1]", "\x80\x02c", '{"mean": "x"}', "NaN"])
def test_an_evaluation_that_is_none(content: str, run: Path, sentinel: Path, capsys: Capture) -> None:
    (run / "evaluations" / "final.json").write_text(content, encoding="latin-1")
    assert "final.json" in refused(fit([*FIT, f"run={run}"]), capsys, sentinel)
    assert "final.json" in refused(export([f"run={run}", f"out={run.parent / 'out'}"]), capsys, sentinel)


def test_an_evaluation_with_a_number_that_no_float_holds(run: Path, sentinel: Path, capsys: Capture) -> None:
    path = run / "evaluations" / "final.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "mean": 10**400}))
    assert "mean is a int" in refused(fit([*FIT, f"run={run}"]), capsys, sentinel)


@pytest.mark.parametrize("content", ["[1]\n", "null\n", '{"rollout/return": "x"}\n', "[" * 100_000, "\xff\xfe"])
def test_metrics_that_are_none(content: str, run: Path, sentinel: Path) -> None:
    """They only draw a picture; lines that cannot be read are left out of it."""
    (run / "metrics.jsonl").write_text(content, encoding="latin-1")
    assert fit([*FIT, f"run={run}"]) == 0
    assert not sentinel.exists()


# ---- messages, and the package itself


def test_messages_do_not_control_the_terminal(model: Path, sentinel: Path, capsys: Capture) -> None:
    about = {"lightning_wm": "1", "env_steps": "1", "checkpoint": "\x1b[2J\x07\u202e"}
    (model / "model.safetensors").write_bytes(safetensors_with({"__metadata__": about}))
    message = refused(evaluate([f"run={model}"]), capsys, sentinel)
    edit(model / "config.yaml", "name: planet", 'name: "\\e]0;evil\\a"')
    message += refused(evaluate([f"run={model}"]), capsys, sentinel)
    assert "\\x1b]0;evil" in message
    assert all(one.isprintable() or one == "\n" for one in message)


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Every call with the dotted name of what is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            yield ast.unparse(node.func), node


def test_nothing_in_the_package_unpickles() -> None:
    """Every way to execute a file's content that our dependencies offer is left alone."""
    never = ("exec", "load_memmap", "loads", "load_from_checkpoint", "full_load", "unsafe_load")
    found = 0
    for path in Path(lightning_wm.__file__).parent.rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"^\s*(import|from) (pickle|cloudpickle|dill|marshal|shelve)\b", text, re.MULTILINE), path
        for name, call in calls(ast.parse(text)):
            if name == "torch.load":
                found += 1
                assert {one.arg: ast.unparse(one.value) for one in call.keywords}["weights_only"] == "True", path
            elif name == "yaml.load":
                assert ast.unparse(call.keywords[0].value) == "_Loader"
            elif name != "json.loads":
                assert name != "eval", path
                assert name.rpartition(".")[2] not in never, (path, ast.unparse(call))
    assert found >= 1
