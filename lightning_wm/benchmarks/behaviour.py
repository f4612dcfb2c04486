"""An update with behaviour learned in imagination beside the world model's update alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tensordict import TensorDictBase
from torch import Tensor

from lightning_wm import rng
from lightning_wm.agents.dreamer import Dreamer, DreamerConfig
from lightning_wm.benchmarks.timing import Setting, interleaved, row
from lightning_wm.benchmarks.update import (
    PIXELS,
    STATE,
    TINY,
    beside_products,
    experience,
    model_loss,
    updates,
    world,
)
from lightning_wm.config import load
from lightning_wm.models.behaviour import ActorConfig, CriticConfig
from lightning_wm.models.losses import summed
from lightning_wm.models.rssm import RSSMConfig

STARTS = {"behaviour": 128, "behaviour_64": 64, "behaviour_all": 0}
"""What is measured, and how many posterior states imagination starts from; 0 for all."""

PIXELS_RECIPE = "pixels/cheetah_run"
"""A picture costs the same whatever the task."""


def rows(setting: Setting) -> list[dict[str, Any]]:
    """Rows `update/behaviour` (128 starts), `_64` and `_all`, H is 15; and `update/recipe_pixels`."""
    small = setting.smoke
    b, t = (2, 3) if small else (16, 50)
    sizes = TINY if small else {}
    config = DreamerConfig()
    if small:
        config = replace(config, actor=ActorConfig(units=8), critic=CriticConfig(units=8), imagination=3)
    batch = experience(STATE, b, t)
    beside_model = [
        _row(f"update/{name}", setting, replace(config, imagine_starts=starts), RSSMConfig(**sizes), batch)
        for name, starts in STARTS.items()
    ]
    return [*beside_model, _from_pixels(setting)]


def _row(
    what: str, setting: Setting, config: DreamerConfig, sizes: RSSMConfig, batch: TensorDictBase
) -> dict[str, Any]:
    alone = world(sizes, STATE)
    with rng.scope(0, "init"):
        agent = Dreamer(config, world(sizes, STATE))
    learned = [p for part in agent.groups().values() for p in part]
    times = interleaved(
        updates(learned, _loss(agent, batch)),
        updates(list(alone.parameters()), model_loss(alone, batch)),
        repeats=setting.count(20 if config.imagine_starts else 6),
    )
    b, t = batch.shape
    about = {
        "batch": b, "length": t, "deter": sizes.deter, "horizon": config.imagination,
        "starts": min(config.imagine_starts or b * t, b * t), "units": config.actor.units,
    }  # fmt: skip
    return row(what, times[0], "the world model's update alone", times[1], about)


def _from_pixels(setting: Setting) -> dict[str, Any]:
    """The whole update of a recipe that learns from pixels, beside its operations."""
    smoke = ["smoke=true"] if setting.smoke else []
    config = load([f"recipe={PIXELS_RECIPE}", *smoke]).config
    with rng.scope(0, "init"):
        agent = Dreamer.from_config(config, PIXELS)
    b, t = config.replay.batch, config.replay.length
    about = {"recipe": PIXELS_RECIPE, "batch": b, "length": t, "starts": config.agent.imagine_starts}
    learned = [p for part in agent.groups().values() for p in part]
    loss = _loss(agent, experience(PIXELS, b, t))
    return beside_products("update/recipe_pixels", setting, learned, loss, about)


def _loss(agent: Dreamer, batch: TensorDictBase) -> Callable[[int], Tensor]:
    """The summed loss, as a function of the update's number."""

    def loss(number: int) -> Tensor:
        states, measured = agent.model.observe(batch, generator=rng.generator(0, "model", number))
        return summed({**measured, **agent.behave(states, batch)})

    return loss
