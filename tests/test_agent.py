"""The LightningModule: bad gradients change nothing, and how far the model sees is measured."""

from __future__ import annotations

import tempfile
import warnings
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from lightning_wm.agents.planet import PlaNet, PlaNetConfig
from lightning_wm.errors import NumericsError
from lightning_wm.protocols import Spaces
from tests.worlds import experience, world

SPACES = Spaces(action=2, observation=3)


class Batches:
    """A source of batches, some of which make the loss not-a-number."""

    def __init__(self, bad: set[int], count: int = 6) -> None:
        self.bad, self.count = bad, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Any:
        for number in range(self.count):
            batch = experience(SPACES, 4, 24, seed=number)
            if number in self.bad:
                batch["reward"][0, 3] = torch.nan
            yield batch


class Watch(pl.Callback):
    """Copies the weights after every update."""

    def __init__(self) -> None:
        self.weights: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: pl.Trainer, agent: Any, *args: Any) -> None:
        self.weights.append(torch.cat([p.detach().flatten() for p in agent.parameters()]))


def train(bad: set[int], **fields: Any) -> tuple[pl.Trainer, PlaNet, list[torch.Tensor]]:
    agent, watch = PlaNet(PlaNetConfig(**fields), world(SPACES)), Watch()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=[watch], default_root_dir=folder,
        )  # fmt: skip
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        trainer.fit(agent, Batches(bad), Batches(set(), 1))
    return trainer, agent, watch.weights


def test_an_update_with_a_bad_gradient_counts_but_changes_nothing() -> None:
    trainer, _, weights = train({2})
    assert trainer.global_step == 6
    assert torch.equal(weights[2], weights[1])
    assert not torch.equal(weights[3], weights[2])
    assert all(weight.isfinite().all() for weight in weights)


def test_bad_gradients_in_a_row_stop_the_run() -> None:
    with pytest.raises(NumericsError, match="3 updates in a row"):
        train({1, 2, 3})
    train({1, 2, 4})


def test_open_loop_error_is_measured_in_fit() -> None:
    trainer, _, _ = train(set())
    assert trainer.callback_metrics["model/open_loop_error"] > 0


def test_open_loop_error_by_hand() -> None:
    # A decoder that always says zero is wrong by the mean square of what it should have said.
    agent = PlaNet(PlaNetConfig(open_loop_observed=2, open_loop_predicted=3), world(SPACES, layers=0, symlog=False))
    nn.init.zeros_(agent.model.vector_decoder[-1].weight)
    nn.init.zeros_(agent.model.vector_decoder[-1].bias)
    batch = experience(SPACES, 2, 8)
    expected = batch["observation"][:, 2:5].square().mean()
    torch.testing.assert_close(agent.open_loop_error(batch), expected)


def test_windows_in_which_an_episode_ends_are_not_predicted() -> None:
    agent = PlaNet(PlaNetConfig(open_loop_observed=2, open_loop_predicted=3), world(SPACES))
    batch = experience(SPACES, 2, 8)
    alone = agent.open_loop_error(batch[:1])
    batch["is_init"][1, 3] = True
    torch.testing.assert_close(agent.open_loop_error(batch), alone)
    batch["is_init"][0, 1] = True
    assert agent.open_loop_error(batch) is None
    assert agent.open_loop_error(batch[:, :2]) is None


def test_clipping_is_by_the_norm_that_is_set() -> None:
    _, _, free = train(set(), clip=1e9)
    _, _, clipped = train(set(), clip=1e-9, epsilon=1.0)
    moved = (free[-1] - free[0]).norm()
    assert (clipped[-1] - clipped[0]).norm() < 1e-6 * moved
