"""A model's gradient beside the simulator's: futures from one state, differences by hand, the table of a real run."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_wm.bench import main as bench
from lightning_wm.benchmarks.gradient_views import draw, name, rows, table, write_rows
from lightning_wm.benchmarks.gradients import Branch, Compared
from lightning_wm.config.schema import ObservationConfig, TaskConfig
from lightning_wm.envs.simulator import build
from lightning_wm.errors import UserError

WALKER = TaskConfig("dmc/walker_walk", action_repeat=2)


class Cart:
    """x' = x + 0.1 a from x = 1, reward -x'^2: every slope is known."""

    low, high, size = np.array([-2.0]), np.array([2.0]), 1

    def __init__(self) -> None:
        self.x = 1.0

    def step(self, action: np.ndarray) -> tuple[float, bool, bool]:
        self.x += 0.1 * float(action[0])
        return -(self.x**2), False, False

    def state(self) -> object:
        return self.x

    def restore(self, state: object) -> None:
        self.x = state  # type: ignore[assignment]


def test_differences_are_the_slopes_of_every_reward() -> None:
    """Actions of [-1, 1] become 2 a, so a_i moves x_k by 0.2 for k >= i: dr_k/da_i = -2 x_k 0.2."""
    cart = Cart()
    branch = Branch(cart, TaskConfig("x/cart", action_repeat=1))  # type: ignore[arg-type]
    actions = torch.tensor([[0.5], [-0.25]], dtype=torch.float64)
    x = np.array([1.1, 1.05])
    np.testing.assert_allclose(branch.rewards(actions), -(x**2))
    expected = np.array([[-0.4 * x[0], -0.4 * x[1]], [0.0, -0.4 * x[1]]])
    np.testing.assert_allclose(branch.differences(actions)[:, 0], expected, atol=1e-12)
    branch.close()
    assert cart.x == 1.0


def test_a_simulator_goes_on_exactly_from_where_it_was() -> None:
    simulator = build(WALKER, ObservationConfig(kind="state"))
    simulator.reset(3)
    draw = np.random.default_rng(0)
    for action in draw.uniform(-1, 1, (20, 6)):
        simulator.step(action)
    branch = Branch(simulator, WALKER)
    actions = torch.from_numpy(draw.uniform(-1, 1, (30, 6)))
    first = branch.rewards(actions)
    branch.rewards(-actions)
    branch.close()
    again = np.array([sum(simulator.step(action)[0] for _ in range(2)) for action in actions.numpy()])
    np.testing.assert_array_equal(first, again)
    simulator.close()


def test_rows_are_means_over_decisions() -> None:
    nan = float("nan")
    found = [Compared(1, 0.5, 2.0, 1.0, 2.0), Compared(1, -0.1, 4.0, 2.0, 4.0), Compared(1, nan, nan, 3.0, 6.0)]
    (row,) = rows(found)
    assert row["cosine"] == pytest.approx(0.2)
    assert (row["decisions"], row["uphill"], row["length_ratio"]) == (3, 0.5, 3.0)
    assert row["correlation"] == pytest.approx(1.0)


def test_seeds_of_an_arm_are_one_line(tmp_path: Path) -> None:
    found = [Compared(1, 0.5, 2.0, 1.0, 2.0), Compared(6, float("nan"), 1.0, 1.0, 2.0)]
    runs = [f"out/kl_{arm}/seed{seed}" for arm in (1, 3) for seed in (0, 1)]
    measured = [{"run": name(run), **row} for run in runs for row in rows(found)]
    assert measured[1]["run"] == "kl_1/seed0"
    assert name("runs/mine/") == "mine"
    assert table(measured).columns[0].header == "run"
    write_rows(measured, tmp_path / "rows.csv")
    written = list(csv.DictReader((tmp_path / "rows.csv").read_text().splitlines()))
    assert [(row["run"], row["horizon"], row["cosine"]) for row in written[:2]] == [
        ("kl_1/seed0", "1", "0.5000"),
        ("kl_1/seed0", "6", ""),  # no gradient on one of the sides
    ]
    draw(measured, tmp_path / "rows.png")
    assert (tmp_path / "rows.png").read_bytes()[:4] == b"\x89PNG"


def test_a_simulator_that_cannot_go_back_is_refused() -> None:
    with pytest.raises(UserError, match=r"cannot be put back.*state\(\) and restore\(state\)"):
        Branch(object(), TaskConfig("gym/X-v0"))  # type: ignore[arg-type]


def test_the_table_of_a_model_that_ships(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gradients.json"
    few = "grad_mpc:iterations=1:candidates=2:horizon=3"
    assert bench(["gradient", "run=zoo:cartpole_swingup", f"planners={few}", "episodes=1", f"json={path}"]) == 0
    measured = json.loads(path.read_text())["rows"]
    assert [row["horizon"] for row in measured] == [1, 2, 3]
    assert all(row["decisions"] == 8 and -1 <= row["cosine"] <= 1 for row in measured)
    assert {row["run"] for row in measured} == {"zoo:cartpole_swingup"}
    assert path.with_suffix(".png").is_file()
    assert path.with_suffix(".csv").is_file()
    assert measured[-1]["correlation"] > 0.9  # three steps ahead this model knows what it earns
    assert "uphill" in capsys.readouterr().out
    assert bench(["gradient"]) == 2
    assert "type run=" in capsys.readouterr().err
    assert bench(["planner", "runs=a,b"]) == 2
    assert "planner knows one run; type run=a" in capsys.readouterr().err
