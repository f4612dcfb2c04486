"""The settings that every recurrent state-space model has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightning_wm.models.networks import ACTIVATIONS, NORMS

if TYPE_CHECKING:
    from lightning_wm.models.latents import Latent


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the networks and weights of the losses, whatever the latent's distribution."""

    name: str = ""
    """The model's registered name."""
    deter: int = 200
    """D: width of the deterministic state (GRU)."""
    hidden: int = 200
    """Width of the hidden layers of transition, prior and posterior."""
    units: int = 200
    """Width of the vector encoder, vector decoder, reward and continue heads."""
    layers: int = 2
    """Hidden layers of the vector encoder, vector decoder, reward and continue heads."""
    head_layers: int | None = None
    """Hidden layers of the reward and continue heads; null: as `layers`."""
    activation: str = "elu"
    """`elu`, `relu` or `silu`."""
    norm: bool = True
    """Normalise the layers of encoders, decoders and heads."""
    norm_kind: str = "layer"
    """`layer` (LayerNorm) or `rms` (RMSNorm), where layers are normalised."""
    depth: int = 32
    """Channels of the first convolution; the others are its multiples."""
    pixel_bits: int = 8
    """Bits per colour that the model sees; PlaNet uses 5, with uniform noise below the last bit."""
    symlog: bool = True
    """Squash state vectors (encoder and reconstruction target) with symlog."""
    normalise: bool = False
    """Measure each dimension of state vectors in deviations from its mean over the batches seen, before symlog."""
    reward_head: str = "two_hot"
    """`two_hot` (bins in symlog space) or `normal` (mean squared error)."""
    bins: int = 41
    """Bins of the two-hot reward head."""
    bin_limit: float = 4.0
    """Outermost bins in symlog units: rewards of one agent step within symexp of this."""
    zero_reward: bool = False
    """Begin with a reward of zero everywhere (the head's last layer starts at zero)."""
    continue_head: bool = True
    """Learn the probability that the episode goes on; without it, it always does."""
    reconstruction_scale: float = 1.0
    """Weight of the observation's negative log-likelihood."""
    reward_scale: float = 1.0
    """Weight of the reward's negative log-likelihood."""
    continue_scale: float = 1.0
    """Weight of the continue head's cross-entropy."""
    kl_dynamics: float = 0.5
    """Weight of KL(stopped posterior || prior): trains the prior."""
    kl_representation: float = 0.1
    """Weight of KL(posterior || stopped prior): trains the posterior. Both 1: the plain KL's gradient."""
    free_nats: float = 1.0
    """KL below this, per step, is not trained."""
    ensemble: int = 0
    """K: predictors of the posterior whose disagreement says what the model does not know; 0 for none."""
    fast: bool = True
    """The time loop's backward pass by hand, for a GRU with `elu` or `relu`; the plain loop has second derivatives."""

    def __post_init__(self) -> None:
        check_sizes(self, ("deter", "hidden", "units", "depth", "bins"))
        check_choice(self, "activation", tuple(ACTIVATIONS))
        check_choice(self, "norm_kind", tuple(NORMS))
        check_choice(self, "reward_head", ("two_hot", "normal"))
        if not 1 <= self.pixel_bits <= 8:
            raise ValueError(f"model.pixel_bits={self.pixel_bits}: expected 1 to 8")
        if self.ensemble < 0 or self.ensemble == 1:
            raise ValueError(f"model.ensemble={self.ensemble}: expected 0 for none, or at least 2 to disagree")

    @property
    def latent(self) -> Latent:
        """The distribution of the stochastic state that these settings describe."""
        raise NotImplementedError(f"{type(self).__name__} describes no latent: write its property latent")


def check_sizes(config: Any, names: Sequence[str], least: int = 1) -> None:
    """Refuse sizes below `least`.

    Raises:
        ValueError: one of the fields is smaller.
    """
    for name in names:
        if getattr(config, name) < least:
            raise ValueError(f"model.{name}={getattr(config, name)}: expected at least {least}")


def check_choice(config: Any, name: str, choices: Sequence[str]) -> None:
    """Refuse what is none of the choices.

    Raises:
        ValueError: the field says something else.
    """
    value = getattr(config, name)
    if value not in choices:
        expected = " or ".join(choices) if len(choices) == 2 else f"one of {', '.join(choices)}"
        raise ValueError(f"model.{name}={value}: expected {expected}")
