"""The datamodule inside Lightning's Trainer: every batch is the one of its update."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from tensordict import TensorDict

from lightning_wm.config.schema import ReplayConfig
from lightning_wm.data import ReplayDataModule, Transitions
from lightning_wm.errors import ConfigError, UserError
from lightning_wm.rng import generator
from tests.test_replay import BOTH, STATE, episode, fill

# Lightning 2.6 asks torch's pytree for a leaf in a way that torch 2.13 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning")

CONFIG = ReplayConfig(capacity=200, batch=4, length=6)
SEED = 11


class Recorder(LightningModule):
    """Learns a number and writes down what it was given, and what it should have been given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.seen: list[tuple[int, int, TensorDict]] = []
        self.validated: list[TensorDict] = []

    def training_step(self, batch: TensorDict, number: int) -> torch.Tensor:
        assert batch.batch_size == (4, 6)
        self.seen.append((self.trainer.current_epoch, self.global_step, batch.clone()))
        data = self.trainer.datamodule
        counters = [self.global_step]
        if self.trainer.accumulate_grad_batches > 1:
            counters.append(number % self.trainer.accumulate_grad_batches)
        # drawn now, from what replay holds now: a batch fetched ahead of a turn's episodes would differ
        due = data.replay.sample(4, 6, generator(SEED, "replay", 0, *counters))
        assert all(torch.equal(batch[name].float(), due[name].float()) for name in due.keys())  # noqa: SIM118
        return (self.weight * batch["reward"].mean()) ** 2

    def validation_step(self, batch: TensorDict, number: int) -> None:
        self.validated.append(batch.clone())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-6)


class Turns(Callback):
    """A seed episode before the first update and one more in every turn."""

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.datamodule.replay.transitions == 0:
            fill(trainer.datamodule.replay, [20])

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        fill(trainer.datamodule.replay, [30])


class SaveAt(Callback):
    """A checkpoint between two updates, with replay's state beside it."""

    def __init__(self, update: int, path: Path) -> None:
        self.update, self.path, self.state = update, path, {}

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == self.update:
            self.state = trainer.datamodule.replay.state()
            trainer.save_checkpoint(self.path)


def datamodule(folder: Path | None = None, **more: Any) -> ReplayDataModule:
    return ReplayDataModule(CONFIG, BOTH, folder, seed=SEED, **{"updates": 3, **more})


def trainer(folder: Path, *callbacks: Callback, **more: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        enable_checkpointing=False,
        callbacks=[Turns(), *callbacks],
        **{"max_epochs": 2, **quiet, **more},
    )


def test_batches_are_keyed_by_the_update(tmp_path: Path) -> None:
    model, data = Recorder(), datamodule(tmp_path)
    trainer(tmp_path, num_sanity_val_steps=0).fit(model, data)
    assert [(epoch, update) for epoch, update, _ in model.seen] == [(0, 0), (0, 1), (0, 2), (1, 3), (1, 4), (1, 5)]
    assert len(data.replay) == 80
    assert data.replay.folder == tmp_path / "rank0"
    for _, _, batch in model.seen:
        assert batch["pixels"].dtype == torch.uint8
    assert model.weight != 1


def test_a_run_resumed_inside_an_epoch_sees_the_same_batches(tmp_path: Path) -> None:
    whole = Recorder()
    trainer(tmp_path, num_sanity_val_steps=0).fit(whole, datamodule(tmp_path / "a", updates=5))
    first, saver = Recorder(), SaveAt(7, tmp_path / "c.ckpt")
    cut = trainer(tmp_path, saver, max_steps=8, num_sanity_val_steps=0)
    cut.fit(first, datamodule(tmp_path / "b", updates=5))
    assert first.seen[-1][1] == 7  # an update more than the checkpoint has
    second, data = Recorder(), datamodule(tmp_path / "b", updates=5)
    data.replay.restore(saver.state)
    trainer(tmp_path, num_sanity_val_steps=0).fit(second, data, ckpt_path=tmp_path / "c.ckpt")
    assert [update for _, update, _ in second.seen] == [7, 8, 9]
    for (_, _, got), (_, _, due) in zip(second.seen, whole.seen[7:], strict=True):
        assert (got == due).all()
    assert torch.equal(second.weight, whole.weight)


def test_a_fit_that_goes_on_from_an_older_checkpoint_takes_replay_back(tmp_path: Path) -> None:
    """By Lightning's `ckpt_path` alone: what was added after the checkpoint is gone, and the batches are the same."""
    whole, saver = Recorder(), SaveAt(7, tmp_path / "c.ckpt")
    trainer(tmp_path, saver, num_sanity_val_steps=0, max_epochs=4).fit(whole, datamodule(tmp_path / "a", updates=5))
    assert saver.state["transitions"] == 20 + 2 * 30  # seed episode and two turns; two more came later
    second, data = Recorder(), datamodule(tmp_path / "a", updates=5)
    assert data.replay.transitions == 20 + 4 * 30
    again = trainer(tmp_path, num_sanity_val_steps=0, max_epochs=2)
    again.fit(second, data, ckpt_path=tmp_path / "c.ckpt")
    assert data.replay.transitions == 20 + 2 * 30
    assert [update for _, update, _ in second.seen] == [7, 8, 9]
    for (_, _, got), (_, _, due) in zip(second.seen, whole.seen[7:10], strict=True):
        assert (got == due).all()


def test_looking_at_an_older_checkpoint_takes_nothing_back(tmp_path: Path) -> None:
    model, data = Recorder(), datamodule(tmp_path / "a", updates=5)
    trainer(tmp_path, SaveAt(2, tmp_path / "c.ckpt"), num_sanity_val_steps=0).fit(model, data)
    fresh = datamodule(tmp_path / "a", updates=5)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    Trainer(accelerator="cpu", **quiet).validate(Recorder(), fresh, ckpt_path=tmp_path / "c.ckpt", verbose=False)
    assert fresh.replay.transitions == data.replay.transitions == 20 + 2 * 30


def test_a_checkpoint_that_says_nothing_of_replay_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path, SaveAt(2, tmp_path / "c.ckpt"), num_sanity_val_steps=0).fit(
        Recorder(), datamodule(tmp_path / "a", updates=5)
    )
    content = torch.load(tmp_path / "c.ckpt", weights_only=True)
    assert content.pop("ReplayDataModule") == {"ranks": 1, "transitions": 50, "episodes": 2, "capacity": 200}
    torch.save(content, tmp_path / "c.ckpt")
    data = datamodule(tmp_path / "a", updates=5)
    with pytest.raises(UserError, match=r"c\.ckpt says nothing of the replay of rank 0.*TurnCheckpoint"):
        trainer(tmp_path, num_sanity_val_steps=0).fit(Recorder(), data, ckpt_path=tmp_path / "c.ckpt")
    data.replay.restore(data.replay.state())
    model = Recorder()
    trainer(tmp_path, num_sanity_val_steps=0).fit(model, data, ckpt_path=tmp_path / "c.ckpt")
    assert model.seen


def test_another_view(tmp_path: Path) -> None:
    """n-step transitions reach the training step, in double precision as well."""

    class Model(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(()))
            self.seen: list[TensorDict] = []

        def training_step(self, batch: TensorDict, number: int) -> torch.Tensor:
            self.seen.append(batch.clone())
            return (self.weight * batch["next", "reward"].mean()) ** 2

        def validation_step(self, batch: TensorDict, number: int) -> None:
            assert batch.batch_size == (5,)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=1e-6)

    for precision in ("32-true", "64-true"):
        model, data = Model(), datamodule(view=Transitions(5, steps=3, discount=0.9))
        alone = trainer(tmp_path, max_epochs=1, num_sanity_val_steps=0, precision=precision)
        alone.fit(model, data)
        assert len(model.seen) == 3
        for update, batch in enumerate(model.seen):
            due = data.view.sample(data.replay, generator(SEED, "replay", 0, update))
            assert batch.batch_size == batch["next"].batch_size == (5,)
            assert torch.equal(batch["next", "reward"].float(), due["next", "reward"])
            assert batch["next", "pixels"].dtype == torch.uint8


def test_validation_draws_the_same_keys_every_time(tmp_path: Path) -> None:
    model, data = Recorder(), datamodule(validation_batches=2)
    trainer(tmp_path, max_epochs=1, num_sanity_val_steps=1).fit(model, data)
    assert len(model.validated) == 1 + 2
    due = [data.replay.sample(4, 6, generator(SEED, "replay", 0, 10**9 + number)) for number in range(2)]
    assert all((got == want).all() for got, want in zip(model.validated[1:], due, strict=True))


def test_double_precision_keeps_the_batch_size(tmp_path: Path) -> None:
    model = Recorder()
    trainer(tmp_path, max_epochs=1, precision="64-true", num_sanity_val_steps=0).fit(model, datamodule())
    batch = model.seen[0][2]
    assert (batch["observation"].dtype, batch["pixels"].dtype) == (torch.float64, torch.uint8)
    assert batch["is_init"].dtype == torch.bool


def test_accumulated_batches_differ(tmp_path: Path) -> None:
    model = Recorder()
    cut = trainer(tmp_path, max_epochs=1, accumulate_grad_batches=2, num_sanity_val_steps=0)
    cut.fit(model, datamodule(updates=4))
    assert [update for _, update, _ in model.seen] == [0, 0, 1, 1]
    assert not (model.seen[0][2] == model.seen[1][2])["observation"].all()


def test_pretraining_is_a_longer_first_epoch(tmp_path: Path) -> None:
    model, data = Recorder(), datamodule(updates=2, pretrain=5)
    trainer(tmp_path, max_epochs=3, reload_dataloaders_every_n_epochs=1, num_sanity_val_steps=0).fit(model, data)
    assert [epoch for epoch, _, _ in model.seen] == [0] * 5 + [1] * 2 + [2] * 2
    assert [update for _, update, _ in model.seen] == list(range(9))


def test_too_little_data_says_what_to_do(tmp_path: Path) -> None:
    data = ReplayDataModule(ReplayConfig(capacity=200, batch=4, length=60), BOTH)
    with pytest.raises(UserError, match=r"window of 60 agent steps .* there are 50.*replay\.length=50"):
        trainer(tmp_path, num_sanity_val_steps=0).fit(Recorder(), data)


def test_without_a_trainer_batches_are_counted() -> None:
    data = ReplayDataModule(CONFIG, STATE, seed=SEED, updates=2)
    data.replay.extend(episode(30))
    batches = list(data.train_dataloader())
    assert len(batches) == len(data.train_dataloader()) == 2
    for number, batch in enumerate(batches):
        assert (batch == data.replay.sample(4, 6, generator(SEED, "replay", 0, number))).all()


def test_impossible_sizes_all_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        ReplayConfig(capacity=0, batch=-1, length=0)
    assert len(caught.value.faults) == 3
    with pytest.raises(ConfigError, match=r"trainer\.updates_per_turn must be at least 1, got 0") as caught:
        ReplayDataModule(CONFIG, STATE, updates=0)
    assert len(caught.value.faults) == 1
    with pytest.raises(ConfigError, match=r"replay\.length=60 is longer than replay\.capacity=50"):
        ReplayConfig(capacity=50, length=60)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_reach_a_gpu_as_bytes_from_pinned_memory(tmp_path: Path) -> None:
    data = datamodule()
    data.replay.extend(episode(30, 0, BOTH))
    data.replay.storage.pin = True
    batch = data.replay.sample(4, 6, generator(SEED, "replay", 0, 0))
    assert batch["pixels"].is_pinned()
    moved = data.transfer_batch_to_device(batch.clone(), torch.device("cuda"), 0)
    assert moved["pixels"].device.type == "cuda"
    assert moved["pixels"].dtype == torch.uint8
    assert (moved.cpu() == batch).all()
