"""`python -m lightning_wm.export`, and what it writes taken like a run."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml

from lightning_wm import __version__, load_actor
from lightning_wm.config import from_tree, read_tree
from lightning_wm.errors import UserError
from lightning_wm.evaluate import main as evaluate
from lightning_wm.export import main as export
from lightning_wm.runs.card import card
from lightning_wm.runs.loading import load_run

FILES = ["README.md", "config.yaml", "evaluation.json", "model.safetensors", "spaces.json"]


@pytest.fixture(scope="module")
def model(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run as a model folder; only to be read."""
    folder = tmp_path_factory.mktemp("exported") / "cartpole"
    assert export([f"run={trained}", f"out={folder}"]) == 0
    return folder


def failed(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    assert export(arguments) == code
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


def test_five_files_and_nothing_else(trained: Path, model: Path) -> None:
    assert sorted(path.name for path in model.iterdir()) == FILES
    assert [path.name for path in model.parent.iterdir()] == ["cartpole"]
    assert read_tree(model / "config.yaml") == read_tree(trained / "config.yaml")
    assert (model / "evaluation.json").read_text() == (trained / "evaluations" / "final.json").read_text()


def test_it_is_the_run(trained: Path, model: Path) -> None:
    run, shared = load_run(trained), load_run(model)
    assert (shared.env_steps, shared.checkpoint, shared.config) == (run.env_steps, "last", run.config)
    for (name, weight), (other, same) in zip(
        run.agent.state_dict().items(), shared.agent.state_dict().items(), strict=True
    ):
        assert name == other
        assert torch.equal(weight, same)
    observation = {"observation": torch.tensor([0.5, -1.0, 0.25, 0.0, 2.0])}
    actions = []
    for actor in (load_actor(trained), load_actor(str(model))):
        actor.reset()
        actions.append(actor.act(observation))
    assert torch.equal(*actions)


def test_evaluate_takes_it_and_writes_beside(copy: Callable[[], Path], tmp_path: Path) -> None:
    run, folder = copy(), tmp_path / "model"
    assert export([f"run={run}", f"out={folder}"]) == 0
    for path in (run, folder):
        assert evaluate([f"run={path}", "planner=cem", "planner.candidates=4", "planner.elites=2", "episodes=2"]) == 0
    name = "eval-480-s20000-cem.json"
    assert [path.name for path in (folder / "evaluations").iterdir()] == [name]
    mine, theirs = (json.loads((path / "evaluations" / name).read_text()) for path in (folder, run))
    assert mine["returns"] == theirs["returns"]
    assert mine["checkpoint"] == "last"


def test_the_best_checkpoint(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "best"
    assert export([f"run={trained}", f"out={folder}", "checkpoint=best"]) == 0
    stored = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    found = safetensors.torch.load_file(folder / "model.safetensors")
    assert found.keys() == stored.keys()
    assert all(torch.equal(found[name], stored[name]) for name in stored)
    assert not (folder / "evaluation.json").exists()  # the final table judges the last one
    assert "Not evaluated yet" in (folder / "README.md").read_text()
    assert load_run(folder).checkpoint == load_run(folder, "best").checkpoint == "best"
    assert evaluate([f"run={folder}", "episodes=1", "planner=random"]) == 0
    (written,) = (folder / "evaluations").iterdir()
    assert json.loads(written.read_text())["checkpoint"] == "best"


def test_what_was_judged_is_what_is_exported(copy: Callable[[], Path], tmp_path: Path) -> None:
    """The newest evaluation of the same weights, where there is no final one."""
    run = copy()
    final = run / "evaluations" / "final.json"
    content = json.loads(final.read_text())
    final.unlink()
    written: dict[str, dict[str, Any]] = {"a": {"mean": 1.5}, "b": {"mean": 2.5}}
    written |= {"c": {"env_steps": 1}, "d": {"checkpoint": "best"}}
    for name, changes in written.items():
        path = run / "evaluations" / f"{name}.json"
        path.write_text(json.dumps({**content, **changes}))
        os.utime(path, (0, ord(name)))
    assert export([f"run={run}", f"out={tmp_path / 'model'}"]) == 0
    assert json.loads((tmp_path / "model" / "evaluation.json").read_text())["mean"] == 2.5


def test_another_physics_is_not_what_the_model_earns(copy: Callable[[], Path], tmp_path: Path) -> None:
    run = copy()
    final = run / "evaluations" / "final.json"
    content = json.loads(final.read_text())
    final.unlink()
    heavy = {**content, "mean": 9.5, "perturb": {"mass": 3.0}}
    (run / "evaluations" / "heavy.json").write_text(json.dumps(heavy))
    assert export([f"run={run}", f"out={tmp_path / 'model'}"]) == 0
    assert not (tmp_path / "model" / "evaluation.json").exists()


def test_what_a_stranger_plays_does_not_replace_what_came_with_a_model(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, again = tmp_path / "model", tmp_path / "again"
    assert export([f"run={trained}", f"out={model}"]) == 0
    assert evaluate([f"run={model}", "episodes=1", "planner=random"]) == 0
    assert export([f"run={model}", f"out={again}"]) == 0
    assert (again / "evaluation.json").read_text() == (model / "evaluation.json").read_text()


def test_a_size_of_the_weights_cannot_be_left_out(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = failed([f"run={trained}", f"out={tmp_path / 'm'}", "leave_out=[model.deter]"], capsys)
    assert "leave_out=[model.deter]: with the defaults instead the weights do not fit" in said
    assert not (tmp_path / "m").exists()


def test_nothing_is_overwritten(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent")
    for name in ("taken", "file", "nowhere"):
        message = failed([f"run={trained}", f"out={tmp_path / name}"], capsys)
        assert "is there already" in message
        assert "out=<a new folder>" in message
    assert list(taken.iterdir()) == []
    assert (tmp_path / "file").read_text() == "mine"


@pytest.fixture
def _small_files() -> Iterator[None]:
    """No file may have more than 10 kB, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("_small_files")
def test_whole_or_not_at_all(trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert export([f"run={trained}", f"out={tmp_path / 'model'}"]) == 5
    assert "could not be written" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported(
    trained: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = f"out={tmp_path / 'out'}"
    assert "out: missing" in failed([f"run={trained}"], capsys)
    assert "last or best" in failed([f"run={trained}", out, "checkpoint=first"], capsys)
    assert "no config.yaml" in failed([f"run={tmp_path}", out], capsys)
    assert "did you mean 'checkpoint'" in failed([f"run={trained}", out, "checkpoint_=last"], capsys)
    assert "exported with checkpoint=last" in failed([f"run={model}", out, "checkpoint=best"], capsys)
    assert list(tmp_path.iterdir()) == []
    assert export(["--help"]) == 0


def test_it_does_not_say_where_it_was_made(
    trained: Path, model: Path, copy: Callable[[], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    meta = (trained / "meta.json").read_text()
    assert str(trained) in meta  # which is why it stays behind
    for path in model.iterdir():
        content = path.read_bytes()
        for place in (trained, trained.parent, Path.cwd(), Path(__file__).parent, Path.home()):
            assert len(str(place)) < 3 or str(place).encode() + b"/" not in content, (path.name, place)
        if path.suffix == ".safetensors":  # numbers spell a short name by chance: what is said is in the header
            content = content[: 8 + int.from_bytes(content[:8], "little")]
        assert socket.gethostname().encode() not in content
    run = copy()
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("strategy: auto", "strategy: /home/me/strategy"))
    message = failed([f"run={run}", f"out={tmp_path / 'out'}"], capsys)
    assert "trainer.strategy=/home/me/strategy is a path of this machine" in message
    (typed,) = re.findall(r"type '(leave_out=\S+)'", message)
    assert export([f"run={run}", f"out={tmp_path / 'out'}", typed]) == 0
    assert "strategy" not in read_tree(tmp_path / "out" / "config.yaml")["trainer"]
    assert load_run(tmp_path / "out").config.trainer.strategy == "auto"
    message = failed([f"run={run}", f"out={tmp_path / 'other'}", "leave_out=[trainer.x, seed.y, nothing]"], capsys)
    assert [line.partition(":")[0] for line in message.removeprefix("error: ").splitlines()] == [
        "leave_out=trainer.x",
        "leave_out=seed.y",
        "leave_out=nothing",
    ]


def test_the_card_says_what_it_is(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (model / "README.md").read_text()
    _, header, body = text.split("---\n", 2)
    assert yaml.safe_load(header)["library_name"] == "lightning_wm"
    assert "`dmc/cartpole_swingup`, 8 env steps per action" in body
    assert f"`lightning_wm` {__version__}" in body
    assert "480 env steps, seed 0, checkpoint `last`" in body
    weights = safetensors.torch.load_file(model / "model.safetensors")
    assert f"| parameters | {sum(value.numel() for value in weights.values()):,} |" in body
    monkeypatch.chdir(model.parent)
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    scope: dict[str, Any] = {"observation": {"observation": torch.zeros(5)}}
    exec(compile(code, "README.md", "exec"), scope)
    assert scope["action"].abs().max() <= 1
    (command,) = re.findall(r"^python -m (.+)$", text, re.MULTILINE)
    assert command == "lightning_wm.evaluate run=cartpole episodes=10"


def test_printed_commands_are_those_to_type(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my models" / "it's mine"
    assert export([f"run={trained}", f"out={folder}"]) == 0
    printed = capsys.readouterr().out
    assert shlex.split(printed.partition("try it: ")[2])[2:] == ["lightning_wm.evaluate", f"run={folder}"]
    text = (folder / "README.md").read_text()
    (command,) = re.findall(r"^python -m (.+)$", text, re.MULTILINE)
    assert shlex.split(command) == ["lightning_wm.evaluate", "run=it's mine", "episodes=10"]
    monkeypatch.chdir(folder.parent)
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {"observation": {"observation": torch.zeros(5)}})


def test_what_a_stranger_evaluated_is_text_in_the_card(copy: Callable[[], Path], tmp_path: Path) -> None:
    run = copy()
    path = run / "evaluations" / "final.json"
    name = "<img src=x onerror=alert(1)> ` | [a](http://evil)\n# Title\x1b[2J"
    path.write_text(json.dumps({**json.loads(path.read_text()), "planner": name}))
    assert export([f"run={run}", f"out={tmp_path / 'model'}"]) == 0
    text = (tmp_path / "model" / "README.md").read_text()
    assert "<img" not in text
    assert "\x1b" not in text
    assert "\n# Title" not in text
    (row,) = [line for line in text.splitlines() if "onerror" in line]
    assert row.startswith("| `&lt;img src=x onerror=alert(1)&gt; ' \\| \\[a](http://evil)")
    assert len(re.findall(r"(?<!\\)\|", row)) == 7  # six cells


def test_an_evaluation_nested_without_end(
    copy: Callable[[], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy()
    path = run / "evaluations" / "final.json"
    content = json.loads(path.read_text())
    for _ in range(400):
        content["settings"] = {"inside": content["settings"]}
    path.write_text(json.dumps(content))
    message = failed([f"run={run}", f"out={tmp_path / 'model'}"], capsys)
    assert "final.json is damaged or foreign (settings are nested too deeply)" in message


def test_the_card_has_returns_with_their_interval(model: Path) -> None:
    config = from_tree(read_tree(model / "config.yaml"))
    judged = {"planner": "cem", "episodes": 10, "seed": 20_000, "mean": 812.34, "iqm": 815.0}
    text = card(config, "m", 50_000, "best", 7, True, {**judged, "interval95": [801.06, 823.6]})
    assert "| `cem` | 10 | 20000 to 20009 | 812.3 | 801.1 to 823.6 | 815.0 |" in text
    assert "50,000 env steps, seed 0, checkpoint `best`" in text
    assert "| model, agent | `rssm`, `planet` |" in text
    alone = card(config, "m", 1, "last", 7, False, {**judged, "interval95": [None, None]})
    assert "| - |" in alone
    assert "| agent | `planet` |" in alone
    assert "without a world model" in alone
    assert "[reinforcement-learning]" in alone
    little = card(config, "m", 1, "last", 7, True, {**judged, "mean": 0.034, "iqm": 0.0, "interval95": [0.012, 0.056]})
    assert "| `cem` | 10 | 20000 to 20009 | 0.034 | 0.012 to 0.056 | 0.0 |" in little
    assert 'value: "0.034 +/- 0.022"' in little


def test_plugins_are_named_and_still_asked_for(
    copy: Callable[[], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that needs the user's own package says so, and loads when the package is typed."""
    run, folder = copy(), tmp_path / "model"
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "wm_test_empty_plugin.py").write_text("")
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("plugins: []", "plugins: [wm_test_empty_plugin]"))
    assert "plugins=[wm_test_empty_plugin]" in failed([f"run={run}", f"out={folder}"], capsys)
    assert export([f"run={run}", f"out={folder}", "plugins=[wm_test_empty_plugin]"]) == 0
    card_text = (folder / "README.md").read_text()
    assert "It needs the Python packages wm_test_empty_plugin" in card_text
    assert "plugins=['wm_test_empty_plugin'])" in card_text
    with pytest.raises(UserError, match="trust=true"):
        load_actor(folder)
    assert load_actor(folder, trust=True) is not None


def test_a_newer_format_says_so(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "newer"
    shutil.copytree(model, folder)
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    about = {"format": "pt", "lightning_wm": "2", "env_steps": "480", "checkpoint": "last"}
    safetensors.torch.save_file(tensors, path, about)
    with pytest.raises(UserError, match=r"has format 2, this version of lightning_wm reads up to 1"):
        load_run(folder)
