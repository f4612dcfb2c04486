"""What every agent shares: one optimiser with a group per part, guarded updates, what is logged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

import lightning.pytorch as pl
import torch
from tensordict import TensorDictBase
from torch import Tensor

from lightning_wm import rng
from lightning_wm.agents.guard import UpdateGuard, scales
from lightning_wm.agents.saturation import Saturation
from lightning_wm.config.fields import Count, Positive, settings
from lightning_wm.errors import UserError
from lightning_wm.models.ambient import refuse_where_nothing_learns
from lightning_wm.models.losses import summed
from lightning_wm.protocols import Actor, Planner, Spaces

if TYPE_CHECKING:
    from lightning_wm.config import Config as RunConfig
    from lightning_wm.config import ReplayConfig
    from lightning_wm.data.views import View


@settings("agent")
class AgentConfig:
    """How every agent is optimised; a subclass adds its own fields and may change these defaults."""

    name: str = ""
    learning_rate: Positive = 1e-3
    """Adam's step size."""
    epsilon: Positive = 1e-5
    """Adam's epsilon."""
    clip: Positive = 100.0
    """Largest norm of each part's gradient."""
    patience: Count = 3
    """Updates in a row with a non-finite loss or gradient after which the run stops."""


class BaseAgent(pl.LightningModule, ABC):
    """An agent as its `losses`, its parts and its `actor`; see `protocols.Agent`.

    One optimiser, automatic optimisation. An update whose loss or gradient is
    not finite is skipped and counted; `patience` of them in a row end the run.

    Args:
        config: how it is optimised.
        seed: of the stream model.

    Raises:
        NumericsError: losses or gradients stay non-finite.
    """

    config: AgentConfig

    def __init__(self, config: AgentConfig, seed: int = 0) -> None:
        super().__init__()
        self.config, self.seed = config, seed
        self.guard = UpdateGuard(config.patience)
        self.saturation = Saturation()
        self.last: dict[str, Tensor] = {}

    @classmethod
    def from_config(cls, config: RunConfig, spaces: Spaces) -> Self:
        """The agent of a whole configuration, with everything that it learns; the weights come from torch's state."""
        return cls(config.agent, seed=config.seed)

    # ---- what an agent brings

    @abstractmethod
    def losses(self, batch: TensorDictBase, generator: torch.Generator) -> dict[str, Tensor]:
        """What is learned from a batch of its view of replay: entries `loss/...` are summed, all are logged."""

    @abstractmethod
    def groups(self) -> dict[str, list[torch.nn.Parameter]]:
        """Parameters by part; each part is clipped on its own."""

    @abstractmethod
    def actor(
        self, planner: Planner | None, seed: int = 0, rank: int = 0, noise: float = 0.0, explore: bool = False
    ) -> Actor:
        """What plays; see `protocols.Agent`."""

    def view(self, config: ReplayConfig) -> View | None:
        """How its batches are drawn from replay; None for windows of `config.batch` and `config.length`."""
        return None

    def rates(self) -> dict[str, float]:
        """Adam's step size of each part."""
        return dict.fromkeys(self.groups(), self.config.learning_rate)

    def compile_update(self) -> None:
        """Compile what an update computes.

        Raises:
            UserError: it cannot.
        """
        raise UserError(f"agent={self.config.name} has nothing to compile; type trainer.compile=false")

    # ---- learning

    def on_train_start(self) -> None:
        refuse_where_nothing_learns(self)
        several: int = self.trainer.accumulate_grad_batches
        if several > 1:
            raise UserError(
                f"accumulate_grad_batches={several}: {type(self).__name__} draws its random numbers and moves its slow "
                "copies once for every batch; type accumulate_grad_batches=1 and a larger replay.batch"
            )

    def moved(self) -> Iterable[Tensor]:
        """Buffers that a forward pass may change, which a skipped update puts back; by default all."""
        return self.buffers()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        rates = self.rates()
        groups = [{"params": part, "name": name, "lr": rates[name]} for name, part in self.groups().items()]
        # The fused one would divide by a loss scaler's scale itself, after the gradients are clipped.
        fused = not scales(self)
        return torch.optim.Adam(groups, lr=self.config.learning_rate, eps=self.config.epsilon, fused=fused)

    def training_step(self, batch: TensorDictBase, index: int) -> Tensor:
        restore_batch_size(batch)
        self.guard.begin(batch, self.moved())
        generator = rng.generator(self.seed, "model", self.global_rank, self.global_step)
        measured = self.losses(batch, generator)
        loss = summed(measured)
        if self.due():
            self.record({"loss/total": loss, **measured})
            self.saturation.check(self)
        return self.guard.tie(loss, measured)

    def on_train_epoch_end(self) -> None:
        self.saturation.check(self)

    def due(self) -> bool:
        """Whether this update is logged: every `Trainer.log_every_n_steps`-th."""
        # In step with Lightning, which hands the last logged values to the loggers again at any other update.
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return every > 0 and (self.global_step + 1) % every == 0

    def record(self, measured: dict[str, Tensor]) -> None:
        """Log under `train/`."""
        self.last = {f"train/{name}": value.detach() for name, value in measured.items()}
        self.log_dict(self.last, batch_size=1)

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *args: object, **kwargs: object) -> None:
        """Clip each part; skip the update where any norm is not finite (gradients are all-reduced by now)."""
        groups = self.groups()
        norms = {
            name: torch.nn.utils.get_total_norm([p.grad for p in part if p.grad is not None], foreach=True)
            for name, part in groups.items()
        }
        if self.guard.admits(norms.values()):
            for name, part in groups.items():
                torch.nn.utils.clip_grads_with_norm_(part, self.config.clip, norms[name], foreach=True)
        else:
            self.guard.skip(self, optimizer)
        if self.due():
            measured = {f"train/grad_norm/{name}": norm for name, norm in norms.items()}
            self.log_dict({**measured, "train/skipped": float(self.guard.skipped)}, batch_size=1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["guard"] = self.guard.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if "guard" in checkpoint:
            self.guard.restore(checkpoint["guard"])


def restore_batch_size(batch: TensorDictBase) -> None:
    """Give a TensorDict its batch size back, which Lightning's double precision drops."""
    if not batch.batch_size:
        batch.batch_size = batch["action"].shape[:-1]
