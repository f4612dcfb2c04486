"""An update that is not finite leaves no trace but its count; too many in a row end the run."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision

from lightning_wm.errors import NumericsError, UserError
from lightning_wm.protocols import Spaces
from tests.faults import SPOILT, FaultyPlaNet, FaultyPlaNetConfig
from tests.worlds import experience, world

SPACES = Spaces(action=2, observation=3)


class Batches:
    """Random batches."""

    def __len__(self) -> int:
        return 6

    def __iter__(self) -> Any:
        for number in range(6):
            yield experience(SPACES, 4, 24, seed=number)


class Watch(pl.Callback):
    """Copies everything that an update may move, after every update; counts skipped updates as they are logged."""

    def __init__(self) -> None:
        self.states: list[dict[str, Any]] = []
        self.logged: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, agent: Any, *args: Any) -> None:
        optimiser: Any = trainer.optimizers[0]
        self.states.append(copy.deepcopy({"agent": agent.state_dict(), "optimiser": optimiser.state_dict()["state"]}))
        self.logged.append(float(trainer.callback_metrics["train/skipped"]))


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(value, other[key]) for key, value in one.items())
    return torch.equal(one, other)


def fit(
    agent: FaultyPlaNet, folder: Path, *callbacks: pl.Callback, plugins: Any = None, batches: int = 1
) -> pl.Trainer:
    """Six updates, or of several batches each fewer."""
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, limit_val_batches=0, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=list(callbacks), default_root_dir=folder,
        log_every_n_steps=1, plugins=plugins, accumulate_grad_batches=batches,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*no `val_dataloader`.*")
        trainer.fit(agent, Batches())
    return trainer


def faulty(**fields: Any) -> FaultyPlaNet:
    """A world model whose running statistics move as well."""
    return FaultyPlaNet(FaultyPlaNetConfig(**fields), world(SPACES, normalise=True))


def train(folder: Path, plugins: Any = None, **fields: Any) -> tuple[pl.Trainer, FaultyPlaNet, Watch]:
    agent, watch = faulty(**fields), Watch()
    return fit(agent, folder, watch, plugins=plugins), agent, watch


@pytest.mark.parametrize("fault", ["bad_losses", "bad_gradients", "bad_batches"])
def test_a_skipped_update_counts_and_moves_nothing(tmp_path: Path, fault: str) -> None:
    trainer, agent, watch = train(tmp_path, **{fault: [2, 4]})
    assert trainer.global_step == 6
    assert watch.logged == [0, 0, 1, 1, 2, 2]
    moved = [not equal(after, before) for before, after in zip(watch.states, watch.states[1:], strict=False)]
    assert moved == [True, False, True, False, True]
    steps = {float(state["step"]) for state in watch.states[-1]["optimiser"].values()}
    assert steps == {4.0}
    assert all(value.isfinite().all() for value in agent.state_dict().values())
    assert not list(tmp_path.glob("bad_batch*"))


def test_several_batches_an_update_are_refused(tmp_path: Path) -> None:
    """Both would draw the same numbers, and the guard would put back what the first had spoilt."""
    with pytest.raises(UserError, match=r"accumulate_grad_batches=2: .*type accumulate_grad_batches=1"):
        fit(faulty(), tmp_path, batches=2)


def test_a_clean_run_is_what_it_is_without_the_guard(tmp_path: Path) -> None:
    _, guarded, _ = train(tmp_path)
    bare = faulty()
    bare.guard.begin = lambda *args: None  # type: ignore[method-assign]
    bare.guard.tie = lambda loss, measured: loss  # type: ignore[method-assign]
    bare.configure_gradient_clipping = (  # type: ignore[method-assign]
        lambda *args, **kwargs: torch.nn.utils.clip_grad_norm_(bare.model.parameters(), bare.config.clip, foreach=True)
    )
    fit(bare, tmp_path)
    assert equal(guarded.state_dict(), bare.state_dict())


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ("bad_losses", "loss/spoilt"),
        ("bad_gradients", f"the gradient of model.{SPOILT}"),
        ("bad_batches", "batch/reward"),
    ],
)
def test_the_third_in_a_row_ends_the_run_and_is_told(tmp_path: Path, fault: str, name: str) -> None:
    with pytest.raises(NumericsError) as caught:
        train(tmp_path, **{fault: [0, 2, 3, 4]})
    path = tmp_path / "bad_batch-rank0.pt"
    assert caught.value.exit_code == 3
    assert str(caught.value).startswith(
        f"3 updates in a row were not finite (the last is update 4); the first bad tensor is {name}; "
        f"its batch is in {path}. "
    )
    kept = torch.load(path, weights_only=True)
    expected = experience(SPACES, 4, 24, seed=4)
    assert (kept["update"], kept["first"]) == (4, name)
    assert torch.equal(kept["batch"]["observation"], expected["observation"])
    assert kept["losses"]["loss/reconstruction"].isfinite()


def test_patience_is_what_is_set_and_survives_a_checkpoint(tmp_path: Path) -> None:
    _, first, _ = train(tmp_path, bad_losses=[4, 5], patience=3)
    saved: dict[str, Any] = {}
    first.on_save_checkpoint(saved)
    again = faulty(bad_losses=[0], patience=3)
    again.on_load_checkpoint(saved)
    assert (again.guard.skipped, again.guard.streak) == (2, 2)
    with pytest.raises(NumericsError, match="3 updates in a row"):
        fit(again, tmp_path)
    with pytest.raises(NumericsError, match="1 updates in a row"):
        train(tmp_path, bad_losses=[3], patience=1)


def test_a_batch_that_cannot_be_kept_does_not_hide_why(tmp_path: Path) -> None:
    (tmp_path / "bad_batch-rank0.pt").mkdir()
    with pytest.raises(NumericsError, match=r"first bad tensor is loss/spoilt; its batch was not kept \(.*directory"):
        train(tmp_path, bad_losses=[0, 1, 2])


def test_a_loss_scaler_may_look_for_its_scale(tmp_path: Path) -> None:
    # 16-mixed begins with a scale that overflows, and expects to be skipped until it is small enough.
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120, backoff_factor=2.0**-24)
    trainer, agent, watch = train(tmp_path, MixedPrecision("16-mixed", "cpu", scaler))
    assert trainer.global_step == 6
    assert watch.logged == [1, 2, 3, 4, 5, 5]
    assert equal(watch.states[4], watch.states[0])
    assert not equal(watch.states[5], watch.states[4])
    assert (agent.guard.streak, scaler.get_scale()) == (0, 1.0)
