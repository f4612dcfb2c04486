"""The recurrent state-space model with categorical latents (arXiv:2010.02193; arXiv:2301.04104)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lightning_wm.config.fields import Count, Weight, settings
from lightning_wm.models.config import ModelConfig
from lightning_wm.models.latents import Categorical
from lightning_wm.models.rssm import RSSM
from lightning_wm.registry import register


@settings("model")
class DiscreteConfig(ModelConfig):
    """Sizes and loss weights of an RSSM whose stochastic state is categorical."""

    name: str = "discrete_rssm"
    stoch: Count = 32
    """S: number of categorical variables."""
    classes: Annotated[int, Field(ge=2)] = 16
    """K: classes of each; the stochastic state is S*K wide."""
    uniform: Annotated[float, Field(gt=0, lt=1, description="a share between 0 and 1")] = 0.01
    """Share of the uniform distribution in every categorical."""
    kl_dynamics: Weight = 1.0

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
