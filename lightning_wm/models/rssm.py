"""The recurrent state-space model with Gaussian latents (arXiv:1811.04551, Sec. 3)."""

from __future__ import annotations

from lightning_wm.config.fields import Count, Positive, settings
from lightning_wm.models.config import ModelConfig
from lightning_wm.models.gru_model import GRUModel
from lightning_wm.models.latents import Gaussian
from lightning_wm.protocols import Spaces
from lightning_wm.registry import register


@settings("model")
class RSSMConfig(ModelConfig):
    """Sizes and loss weights of a Gaussian RSSM."""

    name: str = "rssm"
    stoch: Count = 30
    """S: width of the stochastic state."""
    min_std: Positive = 0.1
    """Floor of the latent's standard deviation."""


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
