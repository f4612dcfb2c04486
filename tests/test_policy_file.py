"""The policy as ONNX and as a program of torch.export: the same actions without the package."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_wm import load_actor, rng
from lightning_wm.agents.curl import CURL
from lightning_wm.agents.dreamer import Dreamer
from lightning_wm.envs.dmc import suite
from lightning_wm.export import main as export
from lightning_wm.planners.policy import PolicyOnly
from lightning_wm.protocols import Spaces
from lightning_wm.runs.policy_file import ABOUT, PolicyStep, _onnx, _pt2
from tests.worlds import model_of

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

Run = Callable[..., list[np.ndarray]]


def opened(path: Path) -> tuple[Run, dict[str, Any]]:
    """What a file computes, of named arrays, and what it says of itself."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        about = json.loads(session.get_modelmeta().custom_metadata_map[ABOUT])
        return lambda **given: session.run(None, given), about
    extra = {ABOUT: ""}
    program = torch.export.load(path, extra_files=extra).module()
    about = json.loads(extra[ABOUT])

    def run(**given: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            return [value.numpy() for value in program(*(torch.from_numpy(given[name]) for name in about["inputs"]))]

    return run, about


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
@pytest.mark.parametrize("name", ["ball_in_cup_catch", "cartpole_swingup_sac"])
def test_an_episode_of_it_is_the_actor_s(name: str, kind: str, tmp_path: Path) -> None:
    """Alone with the file: beginning with zeros, every output goes back in."""
    path = tmp_path / f"policy.{kind}"
    assert export([f"run=zoo:{name}", f"out={path}", f"format={kind}"]) == 0
    run, about = opened(path)
    domain, task = about["task"].removeprefix("dmc/").rsplit("_", 1)
    env = suite().load(domain, task, task_kwargs={"random": 2})
    actor, step = load_actor(f"zoo:{name}", planner="policy"), env.reset()
    given = {key: np.zeros(shape, np.float32) for key, shape in about["inputs"].items()}
    for _ in range(20):
        parts = [np.ravel(step.observation[part["path"][0]]) for part in about["parts"]]
        given["observation"] = np.concatenate(parts).astype(np.float32)[None]
        action, *state = run(**given)
        np.testing.assert_allclose(action[0], actor.act(step.observation), atol=2e-5)
        given |= {"previous_action": action}
        given |= {
            f"state_{out.removeprefix('next_')}": value for out, value in zip(about["outputs"][1:], state, strict=True)
        }
        for _ in range(about["action_repeat"]):
            step = env.step(action[0])


@pytest.mark.parametrize("write", [_onnx, _pt2])
@pytest.mark.parametrize("kind", ["block_rssm", "discrete_rssm", "curl"])
def test_every_kind_of_belief(kind: str, write: Any, tmp_path: Path) -> None:
    """Categorical latents, a block recurrence, and the last frames of a policy without a model; from pixels."""
    spaces = Spaces(action=2, pixels=(3, 64, 64))
    with rng.scope(0, "init"):
        agent = CURL(CURL.Config(crop=56), spaces) if kind == "curl" else Dreamer(model=model_of(kind, spaces))
    agent.eval()
    actor = agent.actor(PolicyOnly())
    step = PolicyStep(agent, actor).eval()
    path = tmp_path / f"policy.{'onnx' if write is _onnx else 'pt2'}"
    inputs = {name: list(value.shape) for name, value in zip(step.inputs, step.example, strict=True)}
    path.write_bytes(write(step, {"inputs": inputs, "outputs": step.outputs}))
    run, _ = opened(path)
    given = {name: value.numpy() for name, value in zip(step.inputs, step.example, strict=True)}
    drawn = np.random.default_rng(0)
    for _ in range(3):
        given["pixels"] = drawn.integers(0, 255, (1, 3, 64, 64), np.uint8)
        action, *state = run(**given)
        np.testing.assert_allclose(action, actor.act({"pixels": torch.from_numpy(given["pixels"])}), atol=1e-4)
        given |= {"previous_action": action}
        given |= {
            f"state_{out.removeprefix('next_')}": value for out, value in zip(step.outputs[1:], state, strict=True)
        }


def test_what_cannot_be_written(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = f"out={tmp_path / 'policy.onnx'}"
    assert export([f"run={trained}", out, "format=onnx"]) == 2
    said = capsys.readouterr().err
    assert "a policy's file needs a policy, but this run learned none (agent=planet); type format=folder" in said
    assert export(["run=zoo:ball_in_cup_catch", out, "format=onnx", "push=hub:me/x"]) == 2
    assert "type format=folder" in capsys.readouterr().err
    assert export(["run=zoo:ball_in_cup_catch", out, "format=onx"]) == 2
    assert "expected folder, onnx or pt2" in capsys.readouterr().err
    (tmp_path / "policy.onnx").write_text("mine")
    assert export(["run=zoo:ball_in_cup_catch", out, "format=onnx"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["policy.onnx"]
