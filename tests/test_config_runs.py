"""Run directories, what may differ on resume, smoke runs, other commands' options, help."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

import pytest
from omegaconf import MISSING
from pydantic import Field

from lightning_wm.config import help_text, load, options, options_help, reference_markdown
from lightning_wm.config.fields import settings
from lightning_wm.config.help import docstrings, rows
from lightning_wm.config.schema import Config, ReplayConfig
from lightning_wm.config.store import flatten
from lightning_wm.errors import ConfigError
from lightning_wm.runs.identity import differences, may_differ, run_directory
from lightning_wm.study.__main__ import main as study

RECIPE = "recipe=quickstart"


def directory(*argv: str) -> str:
    """The run directory of a command line."""
    return run_directory(load(argv)).as_posix()


def test_a_run_directory_is_named_after_what_makes_the_run() -> None:
    assert directory(RECIPE) == "runs/quickstart-s0"
    assert directory("recipe=dense/cheetah_run", "seed=3") == "runs/dense-cheetah_run-s3"
    assert directory(RECIPE, "run=mine/x") == "mine/x"
    free = ["env_steps=5000", "evaluation.every=7", "logging.every=1", "callbacks.video.every=5", "resume=never"]
    assert directory(RECIPE, *free) == "runs/quickstart-s0"


def test_overrides_that_make_another_run_are_hashed() -> None:
    one = directory(RECIPE, "planner=cem", "planner.candidates=500")
    assert one.startswith("runs/quickstart-s0-")
    assert len(one) == len("runs/quickstart-s0-") + 8
    assert one == directory("planner.candidates=5e2", "planner=cem", "env_steps=9999", RECIPE)
    others = {directory(RECIPE, token) for token in ("planner=cem", "smoke=true", "replay.batch=3", "replay.batch=4")}
    assert len({one, *others}) == 5


def test_differences_name_both_values() -> None:
    old = load([RECIPE, "replay.batch=16"]).tree
    new = load([RECIPE, "replay.batch=32", "planner=cem", "evaluation.every=5", "run=x", "env_steps=40000"]).tree
    found = differences(old, new)
    assert "replay.batch: the run has 16, now 32" in found
    assert 'planner.name: the run has "grad_mpc", now "cem"' in found
    assert all(message.startswith(("replay.batch", "planner.")) for message in found)
    assert differences(old, load([RECIPE, "env_steps=40000", "logging.every=3"]).tree) == []


def test_env_steps_may_only_grow() -> None:
    old, new = load([RECIPE]).tree, load([RECIPE, "env_steps=10"]).tree
    assert differences(old, new) == [f"env_steps: the run has {old['env_steps']}, now 10; it can only grow; type "
                                     f"env_steps={old['env_steps']} or more"]  # fmt: skip
    assert differences(new, old) == []


def test_what_may_differ() -> None:
    assert all(may_differ(key) for key in ("env_steps", "evaluation.every", "callbacks.x.y", "trust", "plugins"))
    assert not any(may_differ(key) for key in ("seed", "task.name", "planner.horizon", "smoke", "evaluations"))


# ---- smoke


def test_smoke_shrinks_everything_by_hand_computed_numbers() -> None:
    """Walker repeats actions twice: an episode of 20 decisions is 40 env steps; 1 seed episode and 2 turns are 120."""
    loaded = load(["recipe=dense/walker_walk", "smoke=true", "planner=cem"])
    config = loaded.config
    assert (config.task.max_decisions, config.rollout.seed_episodes, config.rollout.env_steps) == (20, 1, 40)
    assert (config.env_steps, config.evaluation.every, config.trainer.updates_per_turn) == (120, 120, 2)
    assert (config.replay.batch, config.replay.length, config.replay.capacity) == (4, 8, 1000)
    planner = config.planner
    assert (planner.horizon, planner.iterations, planner.candidates, planner.elites) == (4, 2, 4, 2)
    assert (config.model.deter, config.model.hidden, config.model.stoch) == (16, 16, 4)
    assert (config.evaluation.episodes, config.evaluation.final_episodes, config.evaluation.environments) == (1, 1, 1)
    assert loaded.sources["replay.batch"] == "smoke=true"


def test_what_is_typed_wins_over_smoke() -> None:
    config = load([RECIPE, "smoke=true", "replay.batch=6", "planner=cem", "planner.elites=9", "env_steps=500"]).config
    assert (config.replay.batch, config.planner.elites, config.planner.candidates, config.env_steps) == (6, 9, 9, 500)


def test_smoke_never_grows_a_value_and_leaves_the_recipe_alone() -> None:
    whole, small = load([RECIPE]), load([RECIPE, "smoke=true"])
    before, after = dict(flatten(whole.tree)), dict(flatten(small.tree))
    for key, value in after.items():
        if isinstance(value, int | float) and isinstance(before[key], int | float) and key != "smoke":
            assert value <= before[key], key
    assert after["task.name"] == before["task.name"]


def test_smoke_gives_every_rank_an_episode() -> None:
    config = load([RECIPE, "smoke=true", "trainer=ddp_cpu"]).config
    assert (config.rollout.seed_episodes, config.rollout.env_steps, config.env_steps) == (2, 320, 960)


# ---- the other commands' options


@settings("")
class Options:
    """Options of a command."""

    run: str = MISSING
    """The run."""
    planner: list[str] = field(default_factory=list)
    """Planners, separated by commas."""
    episodes: Annotated[int, Field(ge=1, description="a positive number of episodes")] = 10
    """Episodes each."""
    planner_fields: dict[str, Any] = field(default_factory=dict)
    """Their fields."""


def test_options_are_read_like_a_configuration() -> None:
    argv = ["run=010", "planner=cem,grad_mpc", "planner.candidates=1e2", "planner.objective.discount=.9"]
    assert options(argv, Options) == Options(
        "010", ["cem", "grad_mpc"], 10, {"candidates": 100.0, "objective": {"discount": 0.9}}
    )


def test_all_faults_of_options_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        options(
            ["episods=3", "episodes=0", "planner_fields=3", "seed"],
            Options,
            examples={"run": "runs/mine"},
        )
    text = str(caught.value)
    assert len(caught.value.faults) == 5
    for words in ("'episodes'?", "episodes=0: expected a positive", "run: missing; type e.g. run=runs/mine", "seed: "):
        assert words in text


# ---- help and the reference


def test_every_field_of_the_core_has_a_docstring() -> None:
    table = list(rows(Config))
    assert len(table) > 40
    assert [row.key for row in table if not row.text] == []
    assert docstrings(ReplayConfig)["batch"] == "B: sequences in a batch."


def test_help_lists_the_core_and_a_parts_fields_on_demand() -> None:
    core = help_text(["--help"])
    assert "  replay.batch=16  (int)\n      B: sequences in a batch." in core
    assert "planner=<" in core
    assert "planner.candidates=" not in core
    assert "planner.candidates=1000  (int)" in help_text(["planner=cem", "--help"])
    assert "run=(required)  (str)" in options_help(Options, "evaluate run=RUN")


def test_the_reference_has_every_registered_part() -> None:
    from lightning_wm import registry

    text = reference_markdown()
    for kind in ("model", "agent", "planner", "callback"):
        assert all(f"## {kind} `{name}`" in text for name in registry.names(kind))
    assert "| `replay.batch` | int | `16` | B: sequences in a batch. |" in text


def test_a_flag_of_fit_is_refused_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ignored, `study … --print` would begin to train."""
    assert study(["study=updates", "size=small", f"out={tmp_path / 'out'}", "--print"]) == 2
    assert "--print: only fit prints" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_smoke_run_of_no_set_number_of_elites() -> None:
    assert load(["recipe=quickstart", "planner.elites=null", "smoke=true"]).config.smoke
