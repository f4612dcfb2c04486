"""The recurrent state-space model with Gaussian latents (arXiv:1811.04551, Sec. 3)."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_wm.models.config import ModelConfig, check_sizes
from lightning_wm.models.gru_model import GRUModel
from lightning_wm.models.latents import Gaussian
from lightning_wm.protocols import Spaces
from lightning_wm.registry import register


@dataclass(frozen=True)
class RSSMConfig(ModelConfig):
    """Sizes and loss weights of a Gaussian RSSM."""

    name: str = "rssm"
    stoch: int = 30
    """S: width of the stochastic state."""
    min_std: float = 0.1
    """Floor of the latent's standard deviation."""

    def __post_init__(self) -> None:
        check_sizes(self, ("stoch",))
        super().__post_init__()
        if self.min_std <= 0:
            raise ValueError(f"model.min_std={self.min_std}: expected a positive number")


@register("model", "rssm")
class RSSM(GRUModel):
    """World model with the state `{"deter": [M, D], "stoch": [M, S]}`, S Gaussians.

    Args:
        config: sizes and loss weights.
        spaces: what it observes and the number of action dimensions.
    """

    Config = RSSMConfig
    config: RSSMConfig

    def __init__(self, config: RSSMConfig | None = None, spaces: Spaces | None = None) -> None:
        config = config or RSSMConfig()
        super().__init__(config, spaces, Gaussian(config.stoch, config.min_std))
