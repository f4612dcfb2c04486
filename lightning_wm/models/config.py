"""The settings that every recurrent state-space model has."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from lightning_wm.config.fields import Count, Natural, Positive, Weight, settings
from lightning_wm.models.pixels import PixelConfig

Activation = Literal["elu", "relu", "silu"]
NormKind = Annotated[Literal["layer", "rms"], Field(description="layer or rms")]

if TYPE_CHECKING:
    from lightning_wm.models.latents import Latent


def _disagree(members: int) -> int:
    if members == 1:
        raise ValueError("a single predictor cannot disagree")
    return members


@settings("model")
class ModelConfig:
    """Sizes of the networks and weights of the losses, whatever the latent's distribution."""

    name: str = ""
    """The model's registered name."""
    deter: Count = 200
    """D: width of the deterministic state (GRU)."""
    hidden: Count = 200
    """Width of the hidden layers of transition, prior and posterior."""
    units: Count = 200
    """Width of the vector encoder, vector decoder, reward and continue heads."""
    layers: Natural = 2
    """Hidden layers of the vector encoder, vector decoder, reward and continue heads."""
    head_layers: Natural | None = None
    """Hidden layers of the reward and continue heads; null: as `layers`."""
    activation: Activation = "elu"
    """`elu`, `relu` or `silu`."""
    norm: bool = True
    """Normalise the layers of encoders, decoders and heads."""
    norm_kind: NormKind = "layer"
    """`layer` (LayerNorm) or `rms` (RMSNorm), where layers are normalised."""
    depth: Count = 32
    """Channels of the first convolution; the others are its multiples."""
    pixel_bits: Annotated[int, Field(ge=1, le=8, description="1 to 8")] = 8
    """Bits per colour that the model sees; PlaNet uses 5, with uniform noise below the last bit."""
    pixels: PixelConfig = field(default_factory=PixelConfig)
    """How pictures are encoded, and what they teach."""
    symlog: bool = True
    """Squash state vectors (encoder and reconstruction target) with symlog."""
    normalise: bool = False
    """Measure each dimension of state vectors in deviations from its mean over the newest batches, before symlog."""
    reward_head: Annotated[Literal["two_hot", "normal"], Field(description="two_hot or normal")] = "two_hot"
    """`two_hot` (bins in symlog space) or `normal` (mean squared error)."""
    bins: Count = 121
    """Bins of the two-hot reward head."""
    bin_limit: Positive = 12.0
    """Outermost bins in symlog units: rewards of one agent step within symexp of this, 162,754 at 12, 53.6 at 4."""
    zero_reward: bool = False
    """Begin with a reward of zero everywhere (the head's last layer starts at zero)."""
    continue_head: bool = True
    """Learn the probability that the episode goes on; without it, it always does."""
    reconstruction_scale: Weight = 1.0
    """Weight of the observation's negative log-likelihood."""
    kl_target: Weight = 0.0
    """Nats a step that `reconstruction_scale` is steered to during the run, from what it says; 0 leaves it there."""
    reward_scale: Weight = 1.0
    """Weight of the reward's negative log-likelihood."""
    continue_scale: Weight = 1.0
    """Weight of the continue head's cross-entropy."""
    kl_dynamics: Weight = 0.5
    """Weight of KL(stopped posterior || prior): trains the prior."""
    kl_representation: Weight = 0.1
    """Weight of KL(posterior || stopped prior): trains the posterior. Both 1: the plain KL's gradient."""
    free_nats: Weight = 1.0
    """KL below this, per step, is not trained."""
    ensemble: Annotated[
        Natural, Field(description="0 for none, or at least 2 to disagree"), AfterValidator(_disagree)
    ] = 0
    """K: predictors of the posterior whose disagreement says what the model does not know; 0 for none."""
    fast: bool = True
    """The time loop's backward pass by hand, for a GRU with `elu` or `relu`; the plain loop has second derivatives."""

    @property
    def latent(self) -> Latent:
        """The distribution of the stochastic state that these settings describe."""
        raise NotImplementedError(f"{type(self).__name__} describes no latent: write its property latent")
