"""One update of the world model beside TorchRL's, and beside what the machine's matrix products would take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from lightning_wm import rng
from lightning_wm.benchmarks.timing import Call, Setting, interleaved, row
from lightning_wm.benchmarks.torchrl_world import dreamer_loss, peer_batch
from lightning_wm.models.losses import summed
from lightning_wm.models.rssm import RSSM, RSSMConfig
from lightning_wm.protocols import Spaces

STATE = Spaces(action=6, observation=17)
"""cheetah run's."""
PIXELS = Spaces(action=6, pixels=(3, 64, 64))
PLAIN: dict[str, Any] = {
    "norm": False,
    "symlog": False,
    "reward_head": "normal",
    "continue_head": False,
    "kl_dynamics": 1.0,
    "kl_representation": 1.0,
    "free_nats": 3.0,
}
"""What TorchRL's Dreamer model is: no LayerNorm, no symlog, squared error for rewards, no continue head."""
TINY: dict[str, Any] = {"deter": 12, "stoch": 5, "hidden": 12, "units": 8, "depth": 2}
"""TorchRL's prior needs `hidden` to be `deter`."""
PEER = "torchrl RSSMRollout + DreamerModelLoss"
CLIP = 100.0


def rows(setting: Setting) -> list[dict[str, Any]]:
    """Rows `update/state`, `update/state_b50`, `update/state_compiled` and `update/pixels`."""
    small = setting.smoke
    states = [
        _state("update/state", setting, 2 if small else 16, 3 if small else 50, 40),
        _state("update/state_b50", setting, 3 if small else 50, 3 if small else 50, 20),
    ]
    if not small:
        states.append(_state("update/state_compiled", setting, 16, 50, 40, compiled=True))
    return [*states, _pixels(setting)]


def experience(spaces: Spaces, b: int, t: int, *counters: int) -> TensorDict:
    """A random batch `[B, T]` in replay's form, drawn by the counters; every window begins an episode."""
    draw = rng.generator(0, "replay", *counters)
    first = torch.zeros(b, t, 1, dtype=torch.bool)
    first[:, 0] = True
    batch = {
        "action": torch.rand(b, t, spaces.action, generator=draw) * 2 - 1,
        "reward": torch.rand(b, t, 1, generator=draw),
        "terminated": torch.zeros(b, t, 1, dtype=torch.bool),
        "is_init": first,
    }
    if spaces.observation is not None:
        batch["observation"] = torch.randn(b, t, spaces.observation, generator=draw)
    if spaces.pixels is not None:
        batch["pixels"] = torch.randint(0, 256, (b, t, *spaces.pixels), generator=draw, dtype=torch.uint8)
    return TensorDict(batch, [b, t])


def episode(spaces: Spaces, steps: int, number: int) -> TensorDict:
    """A random episode `[T]` in replay's form; no action led to its first observation."""
    rows = experience(spaces, 1, steps, 10**6 + number)[0]
    for name in ("action", "reward"):
        rows[name][0] = 0.0
    return rows


def world(config: RSSMConfig, spaces: Spaces) -> RSSM:
    """A fresh model."""
    with rng.scope(0, "init"):
        return RSSM(config, spaces)


def model_loss(model: RSSM, batch: TensorDictBase) -> Callable[[int], Tensor]:
    """The loss that is trained, as a function of the update's number."""

    def loss(number: int) -> Tensor:
        _, measured = model.observe(batch, generator=rng.generator(0, "model", number))
        return summed(measured)

    return loss


def updates(parameters: list[nn.Parameter], loss: Callable[[int], Tensor]) -> Call:
    """One update: loss, gradient, clipping, Adam."""
    optimiser = torch.optim.Adam(parameters, lr=1e-3, eps=1e-5, fused=True)

    def update(number: int) -> None:
        optimiser.zero_grad()
        loss(number).backward()
        nn.utils.clip_grad_norm_(parameters, CLIP, foreach=True)
        optimiser.step()

    return update


def _state(what: str, setting: Setting, b: int, t: int, usual: int, compiled: bool = False) -> dict[str, Any]:
    config = RSSMConfig(**PLAIN, **(TINY if setting.smoke else {}))
    batch = experience(STATE, b, t)
    model = world(config, STATE)
    if compiled:
        model.compile_update()
    module, theirs = dreamer_loss(config, STATE), peer_batch(batch, config)

    def peer_loss(number: int) -> Tensor:
        losses, _ = module(theirs.copy())
        return torch.stack([losses[f"loss_model_{name}"].squeeze() for name in ("kl", "reco", "reward")]).sum()

    with rng.scope(0, "model"):
        times = interleaved(
            updates(list(model.parameters()), model_loss(model, batch)),
            updates(list(module.parameters()), peer_loss),
            repeats=setting.count(usual),
        )
    sizes = {"batch": b, "length": t, "deter": config.deter, "stoch": config.stoch, "hidden": config.hidden}
    about = {**sizes, "observation": STATE.observation, "action": STATE.action, "compiled": compiled}
    return row(what, times[0], PEER, times[1], about)


def _pixels(setting: Setting) -> dict[str, Any]:
    """An update of PlaNet's model from pixels."""
    sizes: dict[str, Any] = {**TINY} if setting.smoke else {}
    plain: dict[str, Any] = {**PLAIN, "activation": "relu", "pixel_bits": 5, "reward_scale": 10.0}
    b, t = (2, 3) if setting.smoke else (16, 32)
    model = world(RSSMConfig(**plain, **sizes), PIXELS)
    about = {"batch": b, "length": t, "model": "planet"}
    loss = model_loss(model, experience(PIXELS, b, t))
    return beside_products("update/pixels", setting, list(model.parameters()), loss, about)


class _Counted(TorchDispatchMode):
    """Counts floating-point operations; torch's own counter cannot stand modules that are called without gradients."""

    flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if (formula := flop_registry.get(func.overloadpacket)) is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        return out


def beside_products(
    what: str, setting: Setting, parameters: list[nn.Parameter], loss: Callable[[int], Tensor], about: dict[str, Any]
) -> dict[str, Any]:
    """An update beside its operations (counted, forward and backward) at the rate of float32 matrix products."""
    with _Counted() as counted:  # type: ignore[no-untyped-call]
        loss(0).backward()
    flops = counted.flops
    size = 64 if setting.smoke else 1024
    left, right = torch.randn(size, size), torch.randn(size, size)
    update = updates(parameters, loss)
    ours, product = interleaved(update, lambda number: left @ right, repeats=setting.count(10))
    rate = 2e3 * size**3 / product
    theirs = 1e3 * flops / rate
    rates = {"gflop": flops / 1e9, "gflop_per_s": flops / ours / 1e6, "matmul_gflop_per_s": rate / 1e9}
    return row(what, ours, "float32 matrix products", theirs, {**about, **rates})
