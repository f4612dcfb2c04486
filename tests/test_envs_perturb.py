"""Tasks whose physics are not quite what they were: `task.perturb` and `evaluate perturb.mass=…`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from lightning_wm.config import ObservationConfig, TaskConfig
from lightning_wm.config.schema import PerturbConfig
from lightning_wm.envs import make_env
from lightning_wm.envs.dmc import suite
from lightning_wm.envs.simulator import build
from lightning_wm.errors import UserError
from lightning_wm.evaluate import main as evaluate
from lightning_wm.fit import main as fit
from lightning_wm.report.run import read_run
from lightning_wm.runs.evaluation_file import read_evaluation

STATE = ObservationConfig("state")


def simulator(name: str, **factors: float):
    return build(TaskConfig(name, perturb=PerturbConfig(**factors)), STATE)


def seen(sim) -> np.ndarray:
    out = np.zeros(sim.size, np.float32)
    sim.observe(out)
    return out


@pytest.mark.parametrize("name", ["dmc/pendulum_swingup", "gym/InvertedPendulum-v5"])
def test_without_gravity_nothing_falls(name: str) -> None:
    for gravity, moves in ((0.0, False), (1.0, True)):
        sim = simulator(name, gravity=gravity)
        sim.reset(3)
        if name.startswith("gym"):  # begins with a little speed, which would carry it on
            inner = sim._env.unwrapped
            inner.set_state(np.array([0.0, 0.1]), np.zeros(2))
            sim.step(np.zeros(1))
        before = seen(sim)
        for _ in range(20):
            sim.step(np.zeros(1))
        assert (np.abs(seen(sim) - before).max() > 1e-2) == moves
        sim.close()


def test_factors_reach_the_model_and_outlive_resets() -> None:
    as_it_is = suite().load("cheetah", "run").physics.model
    sim = simulator("dmc/cheetah_run", mass=1.5, friction=0.7, damping=2.0)
    for seed in (1, 2):
        sim.reset(seed)
        model = sim._env.physics.model
        np.testing.assert_allclose(model.body_mass, 1.5 * as_it_is.body_mass)
        np.testing.assert_allclose(model.body_inertia, 1.5 * as_it_is.body_inertia)
        np.testing.assert_allclose(model.body_subtreemass, 1.5 * as_it_is.body_subtreemass)
        np.testing.assert_allclose(model.geom_friction, 0.7 * as_it_is.geom_friction)
        np.testing.assert_allclose(model.dof_damping, 2.0 * as_it_is.dof_damping)
        np.testing.assert_array_equal(model.opt.gravity, as_it_is.opt.gravity)


def test_what_a_task_writes_at_its_resets_is_multiplied_too() -> None:
    """Finger writes its spinner's damping, 0.03, at every reset."""
    sim = simulator("dmc/finger_spin", damping=10.0)
    for _ in range(3):
        sim.reset(None)
        np.testing.assert_allclose(sim._env.physics.model.dof_damping, [25.0, 25.0, 0.3])
    sim.close()


def test_a_heavier_body_is_slower_under_the_same_force() -> None:
    """Twice the mass, half the acceleration: a cart on a rail without gravity or damping, from rest."""
    speeds = []
    for mass in (1.0, 2.0):
        sim = simulator("dmc/cartpole_balance", mass=mass, damping=0.0, gravity=0.0)
        sim.reset(0)
        data = sim._env.physics.data
        data.qpos[:], data.qvel[:] = [0.0, 0.0], [0.0, 0.0]
        sim.step(np.array([0.5]))
        speeds.append(float(data.qvel[0]))
    assert speeds[0] == pytest.approx(2 * speeds[1], rel=1e-3)


def test_factors_of_one_change_nothing() -> None:
    def played(task: TaskConfig) -> torch.Tensor:
        env = make_env(task, STATE, 1)
        env.set_seed(3)
        env.reset()
        action = TensorDict({"action": torch.full((1, 6), 0.3)}, [1])
        shown = [env.step(action)["next", "observation"] for _ in range(5)]
        env.close()
        return torch.stack(shown)

    plain = played(TaskConfig("dmc/cheetah_run"))
    assert torch.equal(plain, played(TaskConfig("dmc/cheetah_run", perturb=PerturbConfig(mass=1.0))))
    assert not torch.equal(plain, played(TaskConfig("dmc/cheetah_run", perturb=PerturbConfig(mass=1.1))))


def test_what_mujoco_does_not_simulate_is_refused() -> None:
    with pytest.raises(UserError, match=r"gym/Pendulum-v1 is not simulated by MuJoCo; leave task\.perturb out"):
        simulator("gym/Pendulum-v1", mass=2.0)


def test_an_unknown_property_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(["recipe=quickstart", "task.perturb.frition=0.5", "task.perturb.mass=0", "run=unused"]) == 2
    said = capsys.readouterr().err
    assert "task.perturb.frition" in said
    assert "did you mean 'task.perturb.friction'" in said
    assert "task.perturb.mass=0" in said
    assert fit(["recipe=quickstart", "task.perturb={viscosity: 2}", "run=unused"]) == 2
    assert "mass, friction, damping, gravity" in capsys.readouterr().err


def test_an_evaluation_on_a_perturbed_task(copy, capsys: pytest.CaptureFixture[str]) -> None:
    run: Path = copy()
    plain = ["planner=random", "episodes=2", "environments=2", f"run={run}", "seed=5"]
    assert evaluate(plain) == 0
    assert evaluate([*plain, "perturb.mass=1.5", "perturb.gravity=0.5"]) == 0
    files = {path.name: read_evaluation(path) for path in (run / "evaluations").glob("eval-*.json")}
    (usual,) = (each for name, each in files.items() if name.endswith("-s5-random.json"))
    (heavy,) = (each for name, each in files.items() if name.endswith("-s5-mass1.5-gravity0.5-random.json"))
    assert usual.perturb == {}
    assert heavy.perturb == {"mass": 1.5, "gravity": 0.5}
    assert usual.returns != heavy.returns
    rows = [row for row in read_run(run)[0] if row.planner == "random"]
    changed = sorted(json.loads(row.run_settings).get("perturb.mass", 1.0) for row in rows)
    assert changed == [1.0, 1.5]
