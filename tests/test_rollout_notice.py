"""What a person is told about episodes that nothing is known to end."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from torchrl.envs import GymWrapper, StepCounter, TransformedEnv

from lightning_wm.envs import may_never_end
from lightning_wm.fit import main as fit

NOTICE = "type e.g. task.max_decisions=1000"


class Endless(gymnasium.Env):  # type: ignore[misc]
    """Ends by itself after fifty steps, which nobody is told."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: object = None) -> tuple[np.ndarray, dict[str, object]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(3, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, object]]:
        self.steps += 1
        return np.zeros(3, np.float32), 0.0, self.steps == 50, False, {}


@pytest.fixture(autouse=True, scope="module")
def _registered() -> None:
    gymnasium.register("Endless-v0", entry_point=Endless)


@pytest.mark.parametrize(("limit", "told"), [("task.max_decisions=null", True), ("task.max_decisions=20", False)])
def test_an_unbounded_task_is_pointed_at_max_decisions(
    limit: str, told: bool, tmp_path: object, capsys: pytest.CaptureFixture[str]
) -> None:
    """It showed 0/2,000 env steps for ever."""
    argv = ["recipe=quickstart", "smoke=true", "task.name=gym/Endless-v0", limit, f"run={tmp_path}/run"]
    assert fit([*argv, "task.action_repeat=1", "evaluation.video=false", "logging.progress=false"]) == 0
    assert (NOTICE in capsys.readouterr().err) is told


def test_what_ends_an_environment_of_ones_own() -> None:
    """It says so itself, or a transform around it counts; TorchRL's own wrapper says nothing."""
    own = GymWrapper(Endless())
    assert may_never_end(own)
    assert may_never_end(TransformedEnv(own, StepCounter()))
    assert not may_never_end(TransformedEnv(own, StepCounter(max_steps=5)))
    own.episode_limit = 50
    assert not may_never_end(TransformedEnv(own, StepCounter()))
