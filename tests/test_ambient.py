"""Whatever modes of torch a program has set: loading, acting, planning and commands do the same, or say no."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch.utils.data import DataLoader

from lightning_wm import load_actor, make_env
from lightning_wm.agents.base import BaseAgent
from lightning_wm.agents.dreamer import Dreamer, DreamerConfig
from lightning_wm.agents.planet import PlaNet
from lightning_wm.config import ObservationConfig, TaskConfig
from lightning_wm.data.schema import first_row, next_row
from lightning_wm.errors import UserError
from lightning_wm.evaluate import main as evaluate
from lightning_wm.export import main as export
from lightning_wm.fit import main as fit
from lightning_wm.models.behaviour import ActorConfig, CriticConfig
from lightning_wm.protocols import Spaces
from tests import test_sac
from tests.conftest import TINY
from tests.worlds import experience, world

pytestmark = pytest.mark.filterwarnings("ignore:.*validation_step", "ignore:.*does not have many workers")
SPACES = Spaces(action=2, observation=3)


@contextmanager
def default_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device() -> Iterator[None]:
    """Another library's choice of a GPU, as one that would be noticed here."""
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


MODES: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "float64": default_float64,
    "device": default_device,
    "deterministic": deterministic,
    "anomaly": lambda: torch.autograd.set_detect_anomaly(True),
}


def actions(actor: object) -> np.ndarray:
    shown = np.linspace(-1.0, 1.0, 5, dtype=np.float32)
    return np.stack([actor.act({"observation": shown * step}) for step in range(3)])  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def usual(trained: Path) -> np.ndarray:
    return actions(load_actor(trained))


@pytest.mark.parametrize("mode", MODES)
def test_what_plays_is_the_same(trained: Path, usual: np.ndarray, mode: str) -> None:
    outside = load_actor(trained)
    with MODES[mode]():
        inside = load_actor(trained)
        taken = actions(outside)
    assert taken.dtype == np.float32
    np.testing.assert_array_equal(taken, usual)
    np.testing.assert_array_equal(actions(inside), usual)


@pytest.mark.parametrize("mode", MODES)
def test_the_callers_modes_come_back(trained: Path, mode: str) -> None:
    def now() -> tuple[object, ...]:
        return (
            torch.is_inference_mode_enabled(),
            torch.is_grad_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.get_default_dtype(),
            torch.get_default_device(),
        )

    with MODES[mode]():
        before = now()
        actions(load_actor(trained))
        assert now() == before


@pytest.mark.parametrize("modes", [("inference_mode", "autocast"), ("float64", "device")])
def test_commands_inside_a_program(trained: Path, tmp_path: Path, modes: tuple[str, ...]) -> None:
    with ExitStack() as stack:
        for mode in modes:
            stack.enter_context(MODES[mode]())
        assert fit([*TINY, f"run={tmp_path / 'run'}", "evaluation.video=false"]) == 0
        assert evaluate([f"run={tmp_path / 'run'}", "episodes=1", "name=inside"]) == 0
        assert export([f"run={tmp_path / 'run'}", f"out={tmp_path / 'model'}"]) == 0
    same, other = (run / "evaluations" / "final.json" for run in (trained, tmp_path / "run"))
    assert json.loads(other.read_text())["returns"] == json.loads(same.read_text())["returns"]


@pytest.mark.parametrize("mode", ["float64", "device"])
def test_environments_show_float32(mode: str) -> None:
    with MODES[mode]():
        env = make_env(TaskConfig("dmc/cartpole_swingup", action_repeat=8, max_decisions=6), ObservationConfig(), 1)
        seen = env.reset()
        begun = first_row(seen, 0, 1)
        moved = env.rand_step(seen)
        row = next_row(moved["next"], 0, moved["action"])
        env.close()
    for transition in (begun, row):
        floats = {name: value.dtype for name, value in transition.items() if value.is_floating_point()}
        assert floats == dict.fromkeys(("observation", "action", "reward"), torch.float32)


def learner(kind: str) -> tuple[BaseAgent, TensorDict]:
    if kind == "sac":
        return test_sac.agent(), test_sac.batch()
    model, batch = world(SPACES, normalise=True), experience(SPACES, 4, 8)
    if kind == "planet":
        return PlaNet(model=model), batch
    parts = {"actor": ActorConfig(units=8), "critic": CriticConfig(units=8, bins=11)}
    return Dreamer(DreamerConfig(**parts, imagination=4, imagine_starts=6), model), batch


def learn(kind: str, precision: str) -> BaseAgent:
    agent, batch = learner(kind)
    trainer = pl.Trainer(
        max_epochs=1,
        precision=precision,  # type: ignore[arg-type]
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(agent, DataLoader([batch] * 2, batch_size=None, collate_fn=lambda whole: whole))
    return agent


@pytest.mark.parametrize("kind", ["planet", "dreamer", "sac"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "64-true"])
def test_every_precision_learns(kind: str, precision: str) -> None:
    agent = learn(kind, precision)
    least = torch.float64 if precision == "64-true" else torch.float32
    for name, tensor in [*agent.named_parameters(), *agent.named_buffers()]:
        assert not tensor.is_floating_point() or tensor.dtype in (least, torch.float64), name
        assert bool(tensor.isfinite().all()), name
    assert agent.guard.skipped == 0


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_half_precision_weights_are_refused(precision: str) -> None:
    with pytest.raises(UserError, match=r"expected float32 weights: type Trainer\(precision='bf16-mixed'\)"):
        learn("planet", precision)


def test_learning_inside_inference_mode_is_refused() -> None:
    with torch.inference_mode(), pytest.raises(UserError, match=r"inside torch\.inference_mode"):
        learn("planet", "32-true")
    with torch.inference_mode():
        agent, batch = learner("planet")
    trainer = pl.Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    with pytest.raises(UserError, match="make the model outside of it"):
        trainer.fit(agent, DataLoader([batch], batch_size=None, collate_fn=lambda whole: whole))
