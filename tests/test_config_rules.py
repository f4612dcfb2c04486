"""What is said twice, what is text, what is refused: each rule of docs/configuration.md, and what is answered early."""

from __future__ import annotations

import io
import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lightning_wm import bench, evaluate, export, fit, registry
from lightning_wm.config import compose, from_tree, help_text, load, options
from lightning_wm.config.keys import dotted
from lightning_wm.config.store import NOT_STORED, parse, plain
from lightning_wm.console.command import exits
from lightning_wm.errors import ConfigError, UserError
from lightning_wm.runs.identity import differences, run_directory

BODY = "task: {name: dmc/reacher_easy}\n"
RECIPE = "recipe=quickstart"
PLUGINS = Path(__file__).parent / "plugins_example"


def recipe(folder: Path, text: str, name: str = "mine.yaml") -> str:
    """A user's recipe as a token."""
    (folder / name).write_text(text + BODY)
    return f"recipe={folder / name}"


def orders(*lines: str) -> list[str]:
    """The lines in every order."""
    return ["".join(f"{line}\n" for line in order) for order in itertools.permutations(lines)]


# ---- what is said twice


@pytest.mark.parametrize(
    "text",
    [
        *orders("planner: cem", "planner.candidates: 500"),
        *orders("planner: {name: cem}", "planner.candidates: 500"),
        *orders("planner.name: cem", "planner: {candidates: 500}"),
    ],
)
def test_a_part_and_its_fields_in_one_file(text: str, tmp_path: Path) -> None:
    planner = load([recipe(tmp_path, text)]).config.planner
    assert (planner.name, planner.candidates) == ("cem", 500)


@pytest.mark.parametrize(
    "argv", list(itertools.permutations(["replay={length: 9}", "replay.batch=4", "trainer=gpu", "trainer.devices=3"]))
)
def test_the_order_of_tokens_does_not_matter(argv: tuple[str, ...]) -> None:
    tree = load([RECIPE, *argv]).tree
    assert (tree["replay"]["length"], tree["replay"]["batch"]) == (9, 4)
    assert (tree["trainer"]["accelerator"], tree["trainer"]["devices"]) == ("gpu", 3)


@pytest.mark.parametrize("text", orders("replay: {batch: 4}", "replay.batch: 5"))
def test_a_key_that_is_nested_and_dotted_is_a_fault_with_both_places(text: str, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"replay\.batch \(in .*mine\.yaml\): there twice, in line 2 .* and in line 1 "
    ):
        load([recipe(tmp_path, text)])


@pytest.mark.parametrize("text", orders("planner: cem", "planner.name: icem"))
def test_two_names_of_one_part_are_a_fault(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"planner\.name \(in .*mine\.yaml\): there twice"):
        load([recipe(tmp_path, text)])


@pytest.mark.parametrize("text", orders("replay: 5", "replay.batch: 4"))
def test_a_value_beside_keys_below_it_is_a_fault(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load([recipe(tmp_path, text)])
    (fault,) = caught.value.faults
    assert "replay=5 (in " in fault
    assert "mine.yaml): expected keys and values" in fault
    assert "(replay.batch)" in fault


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["replay=5", "replay.batch=4"], "replay=5: expected keys and values ({key: value}), as in replay.batch=4"),
        (["replay={batch: 5}", "replay.batch=4"], "in replay.batch=4 and in replay={batch: 5}"),
        (["planner=cem", "planner.name=icem"], "in planner=cem and in planner.name=icem"),
        (["planner={name: cem}", "planner.name=icem"], "planner.name: there twice"),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_conflicts_of_a_command_line_name_both_tokens(argv: list[str], words: str, turned: bool) -> None:
    with pytest.raises(ConfigError) as caught:
        load([RECIPE, *(reversed(argv) if turned else argv)])
    (fault,) = caught.value.faults
    assert all(token in fault for token in argv)
    assert turned or words in fault


def test_a_file_that_several_name_is_read_once_and_laid_where_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty levels of two files that each name both files below: two to the fortieth ways down."""
    reads: list[Path] = []
    plain = compose.read_tree
    monkeypatch.setattr(compose, "read_tree", lambda path, *rest: (reads.append(path), plain(path, *rest))[1])
    for side in "ab":
        recipe(tmp_path, f"seed: 1\nplanner: {{name: cem, horizon: {3 if side == 'a' else 4}}}\n", f"{side}0.yaml")
    for level, side in itertools.product(range(1, 41), "ab"):
        recipe(tmp_path, f"defaults: [a{level - 1}.yaml, b{level - 1}.yaml]\n", f"{side}{level}.yaml")
    token = recipe(tmp_path, "defaults: [a40.yaml, b40.yaml, a0.yaml]\n")
    assert load([token]).config.planner.horizon == 3
    assert len(reads) == len(set(reads)) == 83
    assert load([recipe(tmp_path, "defaults: [a40.yaml, b40.yaml]\n")]).config.planner.horizon == 4


@pytest.mark.parametrize(("below", "candidates"), [("cem", 600), ("icem", 1000)])
def test_a_file_means_the_same_part_over_different_ones(below: str, candidates: int, tmp_path: Path) -> None:
    """Named over a planner of its own name it keeps that one's fields, over another it does not."""
    recipe(tmp_path, "planner: {name: cem, horizon: 7}\n", "top.yaml")
    recipe(tmp_path, "planner: {name: random}\ndefaults: [top.yaml]\n", "other.yaml")
    recipe(tmp_path, f"planner: {{name: {below}, candidates: 600}}\n", "below.yaml")
    planner = load([recipe(tmp_path, "defaults: [other.yaml, below.yaml, top.yaml]\n")]).config.planner
    assert (planner.name, planner.horizon, planner.candidates) == ("cem", 7, candidates)


# ---- text as typed


@pytest.mark.parametrize(
    "text", ["runs/try #2", "#2", "&x", "*x", "1e3", "on", "a: b", "[a", "'q'", "!x", "%", "@a", "x "]
)
def test_text_fields_take_the_text_as_typed(text: str) -> None:
    assert load([RECIPE, f"run={text}"]).config.run == text
    assert run_directory(load([RECIPE, f"run={text}"])) == Path(text)
    assert options([f"run={text}"], evaluate.EvaluateOptions).run == text
    assert options(["run=x", f"out={text}"], export.ExportOptions).out == text


@pytest.mark.parametrize("text", ["", "null"])
def test_null_is_no_text(text: str) -> None:
    assert load([RECIPE, f"run={text}"]).config.run is None


def test_a_recipes_path_is_text(tmp_path: Path) -> None:
    folder = tmp_path / "rc #1"
    folder.mkdir()
    assert load([recipe(folder, "seed: 4\n")]).config.seed == 4


def test_a_home_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run_directory(load([RECIPE, "run=~/x"])) == tmp_path / "x"
    assert options(["run=~/x", "out=~/y"], export.ExportOptions).out == str(tmp_path / "y")
    assert options(["run=~/x"], evaluate.EvaluateOptions).run == str(tmp_path / "x")
    with pytest.raises(UserError, match="run=~nobody_here/x: no path"):
        run_directory(load([RECIPE, "run=~nobody_here/x"]))
    with pytest.raises(ConfigError, match="out=~nobody_here/x: no path"):
        options(["run=x", "out=~nobody_here/x"], export.ExportOptions)


# ---- what is refused


@pytest.mark.parametrize("key", ["seed", "run", "planner.horizon", "planner.execute", "replay.batch"])
def test_the_mark_of_what_is_missing_is_no_value(key: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{key}: missing"):
        load([RECIPE, f"{key}=???"])
    with pytest.raises(ConfigError, match=f"{key}: missing"):
        load([recipe(tmp_path, f"{key}: '???'\n")])


@pytest.mark.parametrize(
    "value", ["${oc.create:1}", "${oc.select:seed}", "${oc.dict.keys:task}", "${oc.env:X,${mine:}}", "${mine:}"]
)
def test_only_keys_and_the_environment_are_looked_up(value: str, tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    OmegaConf.register_resolver("mine", lambda: pytest.fail("it was called"), replace=True)
    try:
        with pytest.raises(ConfigError, match=r"is not looked up, only a key, oc\.env: and oc\.decode:"):
            load([recipe(tmp_path, f"run: 'x{value}'\n")])
    finally:
        OmegaConf.clear_resolver("mine")


def test_an_escaped_reference_is_text(tmp_path: Path) -> None:
    assert load([recipe(tmp_path, "run: 'a\\${oc.create:1}'\n")]).config.run == "a${oc.create:1}"


@pytest.mark.parametrize("key", ["replay", "observation.render"])
def test_a_group_left_empty_is_answered_in_yaml(key: str, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=rf"{key}=null \(in .*mine\.yaml\): expected keys and .*; write {key}: {{"
    ) as caught:
        load([recipe(tmp_path, f"{key}:\n")])
    assert "Config(" not in str(caught.value)


def test_a_plugin_that_ends_the_process_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugin_that_exits.py").write_text("import sys\nsys.exit(3)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=r"plugins: 'plugin_that_exits' cannot be imported \(SystemExit: 3\)"):
        load([RECIPE, "plugins=plugin_that_exits"])


def test_off_is_not_trust(tmp_path: Path) -> None:
    token = recipe(tmp_path, "plugins: [nothing_here]\n", "config.yaml")
    with pytest.raises(UserError, match="trust=true"):
        load([token, "trust=off"])


def test_a_misspelled_strategy_is_answered_with_the_right_one() -> None:
    with pytest.raises(ConfigError, match=r"trainer\.strategy=dpp: expected one of auto, .*; did you mean 'ddp'\?"):
        load([RECIPE, "trainer.strategy=dpp"])
    assert load([RECIPE, "trainer.strategy=ddp_find_unused_parameters_true"]).config.trainer.strategy.startswith("ddp")


def test_anchors_are_not_read() -> None:
    with pytest.raises(ValueError, match="anchors"):
        parse("&a 1")


def test_a_rule_across_fields_is_said_as_it_is() -> None:
    with pytest.raises(ConfigError) as caught:
        load([RECIPE, "replay.capacity=10"])
    (fault,) = caught.value.faults
    assert fault.startswith("replay.length=50 is longer than replay.capacity=10")


def test_an_example_may_be_zero() -> None:
    with pytest.raises(ConfigError, match=r"seed: missing; type e\.g\. seed=0"):
        load([RECIPE, "seed=???"])


# ---- help, version, terminals


def test_help_honours_the_recipes_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PLUGINS))
    token = recipe(tmp_path, "plugins: [my_package]\n")
    try:
        assert "planner.candidates=16  (int)" in help_text([token, "planner=my_shooting", "--help"])
        with pytest.raises(UserError, match="trust=true"):
            help_text([recipe(tmp_path, "plugins: [my_package]\n", "config.yaml"), "planner=my_shooting"])
    finally:
        for kind, name in (("planner", "my_shooting"), ("callback", "my_notes")):
            registry._classes[kind].pop(name)
        for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
            del sys.modules[name]


@pytest.mark.parametrize("command", [fit, evaluate, export, bench])
def test_every_command_has_a_version(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from lightning_wm import __version__

    assert command.main(["--version"]) == 0
    assert capsys.readouterr().out == f"lightning_wm {__version__}\n"


def test_a_terminal_without_a_letter_shows_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)

    @exits
    def main(argv: Any = None) -> int:
        print("runs/é")
        return 0

    assert main([]) == 0
    terminal.flush()
    assert terminal.buffer.getvalue() == b"runs/\\xe9\n"  # type: ignore[attr-defined]


# ---- resuming


def test_a_field_that_the_stored_configuration_lacks_counts_as_its_default() -> None:
    new = load([RECIPE]).tree
    old = plain({key: value for key, value in new.items() if key not in NOT_STORED})
    del old["rollout"]["hold"], old["agent"]["clip"], old["planner"]["objective"]["discount"], old["deterministic"]
    assert differences(old, new) == []
    changed = load([RECIPE, "rollout.hold=4", "agent.clip=7"]).tree
    usual = new["agent"]["clip"]
    assert differences(old, changed) == [
        f"agent.clip: the run has {usual}, now 7.0",
        "rollout.hold: the run has 1, now 4",
    ]
    assert from_tree(old) == from_tree({key: value for key, value in new.items() if key not in NOT_STORED})


# ---- answered before torch is imported


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("planner=cme", "did you mean 'cem'"),
        ("planner.horizn=3", "did you mean 'planner.horizon'"),
        ("planner.candidates=0", "planner.candidates=0"),
        ("model.detr=3", "did you mean 'model.deter'"),
        ("agent=dremer", "did you mean 'dreamer'"),
        ("agent.clp=3", "did you mean 'agent.clip'"),
        ("callbacks.vidoe.every=3", "did you mean 'video'"),
        ("callbacks.video.evry=3", "did you mean 'callbacks.video.every'"),
    ],
)
def test_a_misspelled_part_needs_no_torch(token: str, words: str) -> None:
    code = f"""
import sys
from lightning_wm.config import load
from lightning_wm.errors import ConfigError
try:
    load(["recipe=quickstart", "planner.replan=1", {token!r}])
except ConfigError as error:
    print(error)
print(sorted({{"torch", "lightning", "torchrl", "tensordict"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    fault, modules = done.stdout.splitlines()
    assert words in fault
    assert modules == "[]"


def described(cls: type) -> dict[str, str]:
    """Every key with its annotation, bounds included."""
    return {key: re.sub("sketch of | at 0x[0-9a-f]+", "", repr(kind)) for key, kind in dotted(cls).items()}


@pytest.mark.parametrize("kind", ["planner", "model", "agent", "callback"])
def test_sketches_are_what_is_registered(kind: str) -> None:
    """Fields, annotations, bounds and defaults of every part, read from its source and by importing it."""
    own = {
        name: cls for name, cls in registry.configs(kind).items() if cls and cls.__module__.startswith("lightning_wm")
    }
    sketches = registry.sketches(kind)
    assert set(sketches) == set(own)
    for name, cls in own.items():
        sketch = sketches[name]
        assert sketch is not None, name
        assert described(sketch) == described(cls)
        assert repr(sketch()) == repr(cls())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "name: planet\nwith: 5\n",
            r"agent=mine: with has 5 \(in .*mine\.yaml\); .*write with: \{replay: \{batch: 256\}\}",
        ),
        ("name: planet\nwith: [replay]\n", r"agent=mine: with has \['replay'\]"),
        ("name: planet\nwith: {agent: {clip: 5.0}}\n", r"agent=mine: with has its own agent"),
        ("name: planet\nwith: {replai: {batch: 5}}\n", r"replai.*mine\.yaml.*did you mean 'replay'"),
        ("name: planet\nwith: {replay: {batch: none}}\n", r"replay\.batch=none \(in .*mine\.yaml\)"),
    ],
)
def test_what_goes_with_an_agent_is_checked(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, shipped = tmp_path / "mine.yaml", compose.group_file
    path.write_text(text)
    monkeypatch.setattr(compose, "group_file", lambda group, name: path if name == "mine" else shipped(group, name))
    with pytest.raises(ConfigError, match=said):
        load(["recipe=quickstart", "agent=mine"])
