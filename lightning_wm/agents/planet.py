"""Learning a world model and nothing else: the agent of PlaNet and of Grad-MPC."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import lightning.pytorch as pl
import torch
from tensordict import TensorDictBase
from torch import Tensor

from lightning_wm import rng
from lightning_wm.agents.guard import UpdateGuard, scales
from lightning_wm.config.fields import Count, Positive, settings
from lightning_wm.errors import UserError
from lightning_wm.models.losses import summed
from lightning_wm.planning.base import no_policy
from lightning_wm.planning.objective import problem_of
from lightning_wm.playing.actor import WorldModelActor
from lightning_wm.protocols import Planner, State
from lightning_wm.registry import register


@settings("agent")
class PlaNetConfig:
    """How the world model is optimised."""

    name: str = "planet"
    learning_rate: Positive = 1e-3
    """Adam's step size."""
    epsilon: Positive = 1e-5
    """Adam's epsilon."""
    clip: Positive = 100.0
    """Largest norm of the world model's gradient."""
    patience: Count = 3
    """Updates in a row with a non-finite loss or gradient after which the run stops."""
    open_loop_observed: Count = 5
    """Steps that are filtered before the open-loop prediction error is measured."""
    open_loop_predicted: Count = 15
    """Steps that are then predicted from actions alone."""


@register("agent", "planet")
class PlaNet(pl.LightningModule):
    """Trains a world model on batches `[B, T]` of replay (arXiv:1811.04551, Eq. 3).

    One optimiser, automatic optimisation. An update whose loss or gradient is
    not finite is skipped and counted; `patience` of them in a row end the run.

    Args:
        config: how it is optimised.
        model: a `protocols.WorldModel` that is an `nn.Module`.
        seed: of the stream model.

    Raises:
        NumericsError: losses or gradients stay non-finite.
    """

    Config = PlaNetConfig

    def __init__(self, config: PlaNetConfig | None = None, model: Any = None, seed: int = 0) -> None:
        super().__init__()
        self.config = config or PlaNetConfig()
        self.model = model
        self.seed = seed
        self.guard = UpdateGuard(self.config.patience)
        self.last: dict[str, Tensor] = {}
        """Losses of the newest logged update, detached, for a progress bar."""

    def groups(self) -> dict[str, list[torch.nn.Parameter]]:
        """Parameters by part; each part is clipped on its own."""
        return {"model": list(self.model.parameters())}

    def rates(self) -> dict[str, float]:
        """Adam's step size of each part."""
        return {"model": self.config.learning_rate}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        rates = self.rates()
        groups = [{"params": part, "name": name, "lr": rates[name]} for name, part in self.groups().items()]
        # The fused one would divide by a loss scaler's scale itself, after the gradients are clipped.
        fused = not scales(self)
        return torch.optim.Adam(groups, lr=self.config.learning_rate, eps=self.config.epsilon, fused=fused)

    # ---- learning

    def training_step(self, batch: TensorDictBase, index: int) -> Tensor:
        self.guard.begin(self, batch)
        generator = rng.generator(self.seed, "model", self.global_rank, self.global_step)
        states, measured = self.model.observe(batch, generator=generator)
        measured = {**measured, **self.behave(states, batch)}
        loss = summed(measured)
        if self.due():
            self.record({"loss/total": loss, **measured})
        return self.guard.tie(loss, measured)

    def behave(self, states: State, batch: TensorDictBase) -> dict[str, Tensor]:
        """Losses of what is learned beside the model; nothing here.

        Args:
            states: posterior states `[B*T, ...]`.
            batch: `[B, T]`.
        """
        return {}

    def due(self) -> bool:
        """Whether this update is logged: every `Trainer.log_every_n_steps`-th."""
        # In step with Lightning, which hands the last logged values to the loggers again at any other update.
        trainer: Any = self.trainer
        return bool((self.global_step + 1) % trainer.log_every_n_steps == 0)

    def record(self, measured: dict[str, Tensor]) -> None:
        """Log under `train/`."""
        self.last = {f"train/{name}": value.detach() for name, value in measured.items()}
        self.log_dict(self.last, batch_size=1)

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
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

    # ---- acting

    def actor(self, planner: Planner | None, seed: int = 0, rank: int = 0, noise: float = 0.0) -> WorldModelActor:
        """What plays with this world model and a planner.

        Raises:
            UserError: there is no planner, or it asks the model for what it does not have.
        """
        if planner is None:
            raise UserError("this agent learns no policy, so it needs a planner; type planner=grad_mpc")
        objective = getattr(planner.config, "objective", None)
        learned = self.learned()
        if getattr(planner, "needs_policy", False) and "policy" not in learned:
            raise UserError(no_policy(planner, f"this run learned none (agent={self.config.name})"))
        problem = problem_of(self.model, **(asdict(objective) if objective is not None else {}), **learned)
        return WorldModelActor(self.model, planner, problem, seed=seed, rank=rank, noise=noise)

    def learned(self) -> dict[str, Any]:
        """What a planner may use beside the model: `policy` and `values` of `problem_of`; nothing here."""
        return {}

    # ---- how far it can see

    @torch.no_grad()
    def validation_step(self, batch: TensorDictBase, index: int) -> None:
        error = self.open_loop_error(batch)
        if error is not None:
            self.log("model/open_loop_error", error, batch_size=1)

    def open_loop_error(self, batch: TensorDictBase) -> Tensor | None:
        """Mean squared error of decoded observations that were predicted from actions alone.

        State vectors in the space of the loss, pixels in [-0.5, 0.5]; windows
        in which an episode ends count for nothing. None without such a window.
        """
        observed, predicted = self.config.open_loop_observed, self.config.open_loop_predicted
        predicted = min(predicted, batch.shape[1] - observed)
        if predicted < 1:
            return None
        whole = ~batch["is_init"][:, 1 : observed + predicted].flatten(1).any(1)
        if not bool(whole.any()):
            return None
        batch = batch[whole]
        states, _ = self.model.observe(batch[:, :observed])
        state = {name: value.unflatten(0, (-1, observed))[:, -1] for name, value in states.items()}
        errors = []
        for step in range(observed, observed + predicted):
            state = self.model.imagine(state, batch["action"][:, step])
            errors.append(self.model.observation_error(state, batch[:, step]))
        return torch.stack(errors).mean()
