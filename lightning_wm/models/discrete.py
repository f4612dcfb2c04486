"""The recurrent state-space model with categorical latents (arXiv:2010.02193; arXiv:2301.04104)."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_wm.models.config import ModelConfig, check_sizes
from lightning_wm.models.latents import Categorical
from lightning_wm.models.rssm import RSSM
from lightning_wm.registry import register


@dataclass(frozen=True)
class DiscreteConfig(ModelConfig):
    """Sizes and loss weights of an RSSM whose stochastic state is categorical."""

    name: str = "discrete_rssm"
    stoch: int = 32
    """S: number of categorical variables."""
    classes: int = 16
    """K: classes of each; the stochastic state is S*K wide."""
    uniform: float = 0.01
    """Share of the uniform distribution in every categorical."""
    kl_dynamics: float = 1.0

    def __post_init__(self) -> None:
        check_sizes(self, ("stoch",))
        check_sizes(self, ("classes",), least=2)
        super().__post_init__()
        if not 0 < self.uniform < 1:
            raise ValueError(f"model.uniform={self.uniform}: expected a share between 0 and 1")

    @property
    def latent(self) -> Categorical:
        """The distribution of the stochastic state that these settings describe."""
        return Categorical(self.stoch, self.classes, self.uniform)


@register("model", "discrete_rssm")
class DiscreteRSSM(RSSM):
    """World model with the state `{"deter": [M, D], "stoch": [M, S*K]}`, S one-hot vectors of K classes.

    The recurrent part is the Gaussian RSSM's; `block_rssm` has DreamerV3's.
    """

    Config = DiscreteConfig
