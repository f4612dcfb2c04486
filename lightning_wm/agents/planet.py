"""Learning a world model and nothing else: the agent of PlaNet and of Grad-MPC."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from tensordict import TensorDictBase
from torch import Tensor

from lightning_wm import rng
from lightning_wm.agents.actor import WorldModelActor
from lightning_wm.errors import NumericsError, UserError
from lightning_wm.planners.objective import problem_of
from lightning_wm.protocols import Planner
from lightning_wm.registry import register


@dataclass(frozen=True)
class PlaNetConfig:
    """How the world model is optimised."""

    name: str = "planet"
    learning_rate: float = 1e-3
    """Adam's step size."""
    epsilon: float = 1e-5
    """Adam's epsilon."""
    clip: float = 100.0
    """Largest norm of the world model's gradient."""
    patience: int = 3
    """Updates in a row with a non-finite gradient after which the run stops."""
    open_loop_observed: int = 5
    """Steps that are filtered before the open-loop prediction error is measured."""
    open_loop_predicted: int = 15
    """Steps that are then predicted from actions alone."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "epsilon", "clip", "patience", "open_loop_observed", "open_loop_predicted"):
            if getattr(self, name) <= 0:
                raise ValueError(f"agent.{name}={getattr(self, name)}: expected a positive number")


@register("agent", "planet")
class PlaNet(pl.LightningModule):
    """Trains a world model on batches `[B, T]` of replay (arXiv:1811.04551, Eq. 3).

    One optimiser, automatic optimisation. An update whose gradient is not
    finite is skipped and counted; `patience` of them in a row end the run.

    Args:
        config: how it is optimised.
        model: a `protocols.WorldModel` that is an `nn.Module`.
        seed: of the stream model.

    Raises:
        NumericsError: the gradient stays non-finite.
    """

    Config = PlaNetConfig

    def __init__(self, config: PlaNetConfig | None = None, model: Any = None, seed: int = 0) -> None:
        super().__init__()
        self.config = config or PlaNetConfig()
        self.model = model
        self.seed = seed
        self.skipped = 0
        self.last: dict[str, Tensor] = {}
        """Losses of the newest logged update, detached, for a progress bar."""

    def groups(self) -> dict[str, list[torch.nn.Parameter]]:
        """Parameters by part; each part is clipped on its own."""
        return {"model": list(self.model.parameters())}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        groups = [{"params": parameters, "name": name} for name, parameters in self.groups().items()]
        return torch.optim.Adam(groups, lr=self.config.learning_rate, eps=self.config.epsilon, fused=True)

    # ---- learning

    def training_step(self, batch: TensorDictBase, index: int) -> Tensor:
        generator = rng.generator(self.seed, "model", self.global_rank, self.global_step)
        _, measured = self.model.observe(batch, generator=generator)
        loss = torch.stack([value for name, value in measured.items() if name.startswith("loss/")]).sum()
        if self.due():
            self.record({"loss/total": loss, **measured})
        return loss

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
        """Clip each part; drop the gradient where any of it is not finite (norms are all-reduced under DDP)."""
        norms = {
            name: torch.nn.utils.clip_grad_norm_(parameters, self.config.clip, foreach=True)
            for name, parameters in self.groups().items()
        }
        if self.due():
            self.log_dict({f"train/grad_norm/{name}": norm for name, norm in norms.items()}, batch_size=1)
        if bool(torch.stack(list(norms.values())).isfinite().all()):
            self.skipped = 0
            return
        # Without gradients the optimiser leaves weights and moments as they are, and the update still counts.
        optimizer.zero_grad(set_to_none=True)
        self.skipped += 1
        if self.skipped >= self.config.patience:
            raise NumericsError(
                f"{self.skipped} updates in a row had a non-finite gradient (the last is update {self.global_step}); "
                "expected finite losses; lower agent.learning_rate or look at the data in replay"
            )

    # ---- acting

    def actor(self, planner: Planner | None, seed: int = 0, rank: int = 0, noise: float = 0.0) -> WorldModelActor:
        """What plays with this world model and a planner.

        Raises:
            UserError: there is no planner, or it asks the model for what it does not have.
        """
        if planner is None:
            raise UserError("this agent learns no policy, so it needs a planner; type planner=grad_mpc")
        objective = getattr(planner.config, "objective", None)
        problem = problem_of(self.model, **(asdict(objective) if objective is not None else {}))
        return WorldModelActor(self.model, planner, problem, seed=seed, rank=rank, noise=noise)

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
