"""Small world models and batches for tests."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from tensordict import TensorDict

from lightning_wm import registry, rng
from lightning_wm.models.rssm import RSSM, RSSMConfig
from lightning_wm.protocols import Spaces

SMALL = {
    "deter": 12,
    "stoch": 5,
    "hidden": 9,
    "units": 8,
    "depth": 2,
    "bins": 11,
    "bin_limit": 4.0,
    "classes": 3,
    "blocks": 3,
    "latent": 12,
    "simplex": 4,
}


def model_of(name: str, spaces: Spaces | None = None, seed: int = 0, **changes: object) -> Any:
    """A small model of any registered kind, with those of the changes that its Config has."""
    cls = registry.lookup("model", name)
    known = {field.name for field in fields(cls.Config)}
    config = cls.Config(**{key: value for key, value in {**SMALL, **changes}.items() if key in known})
    with rng.scope(seed, "init"):
        return cls(config, spaces or Spaces(action=2, observation=3))


def world(spaces: Spaces | None = None, seed: int = 0, **changes: object) -> RSSM:
    """A small Gaussian RSSM, initialised by the seed."""
    known = {field.name for field in fields(RSSMConfig)}
    assert set(changes) <= known, set(changes) - known
    model: RSSM = model_of("rssm", spaces, seed, **changes)
    return model


def experience(spaces: Spaces, b: int, t: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> TensorDict:
    """A random batch `[B, T]` in replay's form, without seams."""
    draw = rng.generator(seed, "replay")
    batch = {
        "action": torch.rand(b, t, spaces.action, generator=draw, dtype=dtype) * 2 - 1,
        "reward": torch.rand(b, t, 1, generator=draw, dtype=dtype),
        "terminated": torch.zeros(b, t, 1, dtype=torch.bool),
        "is_init": torch.zeros(b, t, 1, dtype=torch.bool),
    }
    if spaces.observation is not None:
        batch["observation"] = torch.randn(b, t, spaces.observation, generator=draw, dtype=dtype)
    if spaces.pixels is not None:
        batch["pixels"] = torch.randint(0, 256, (b, t, *spaces.pixels), generator=draw, dtype=torch.uint8)
    return TensorDict(batch, [b, t])


def total(measured: dict[str, torch.Tensor]) -> torch.Tensor:
    """The sum that is trained."""
    return torch.stack([value for name, value in measured.items() if name.startswith("loss/")]).sum()


class Outside:
    """Mixed into an agent: it learns outside a Trainer."""

    step = 0

    @property
    def global_rank(self) -> int:
        return 0

    @property
    def global_step(self) -> int:
        return self.step

    def due(self) -> bool:
        return False
