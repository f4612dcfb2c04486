"""The cross-entropy method as PlaNet plans with it (arXiv:1811.04551, Alg. 2).

a^j ~ N(mean, std^2), clamped;  K elites by score;  mean, std <- of the elites;  I times;  execute the mean
"""

from __future__ import annotations

from typing import Literal

from tensordict import TensorDictBase

from lightning_wm.config.fields import Positive, Weight, settings
from lightning_wm.planning.base import BasePlanner, SearchResult
from lightning_wm.planning.gaussian import SamplerConfig, cross_entropy
from lightning_wm.planning.search import Search
from lightning_wm.registry import register


@settings("planner")
class CEMConfig(SamplerConfig):
    """The cross-entropy method."""

    name: str = "cem"
    execute: Literal["best", "mean", "sample"] = "mean"
    warm_start: bool = False
    """Start the mean from the previous plan, moved on in time; PlaNet does not."""
    init_std: Positive = 1.0
    min_std: Weight = 1e-6
    """The standard deviation's floor; PlaNet has none, this one only keeps numbers apart."""


@register("planner", "cem")
class CEM(BasePlanner):
    """CEM, Alg. 2 of arXiv:1811.04551; `CEMConfig` has its settings."""

    Config = CEMConfig
    config: CEMConfig

    def search(self, search: Search, memory: TensorDictBase | None) -> SearchResult:
        """Fit, then execute what `execute` says."""
        return cross_entropy(search, memory, self.config).result(search, self.config.execute)
