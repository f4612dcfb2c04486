"""One update of soft actor-critic as `agent=sac` makes it beside TorchRL's SACLoss stepped in a bare loop."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict
from torch import nn
from torchrl.objectives import SACLoss, SoftUpdate

from lightning_wm import rng
from lightning_wm.agents.sac import SAC
from lightning_wm.agents.soft_actor_critic import SACConfig, critic_network, policy_network
from lightning_wm.benchmarks.timing import Call, Setting, interleaved, row
from lightning_wm.benchmarks.update import CLIP, STATE
from lightning_wm.models.losses import summed

PEER = "torchrl SACLoss in a bare loop"


def rows(setting: Setting) -> list[dict[str, Any]]:
    """Row `update/sac`: loss, gradient, clipping per part, guard, Adam and the slow critics; without replay."""
    size, units = (4, 8) if setting.smoke else (256, 256)
    config, batch = SACConfig(units=units), transitions(size)
    with rng.scope(0, "init"):
        calls = ours(config, batch), theirs(config, batch)
    with rng.scope(0, "model"):
        times = interleaved(*calls, repeats=setting.count(200), warm=3 if setting.smoke else 20)
    about = {"batch": size, "units": units, "observation": STATE.observation, "action": STATE.action}
    return [row("update/sac", times[0], PEER, times[1], about)]


def transitions(size: int) -> TensorDict:
    """A random batch `[size]` as `data.views.Transitions` draws them."""
    draw, wide = rng.generator(0, "replay"), STATE.observation or 0
    ended = torch.zeros(size, 1, dtype=torch.bool)
    following = {
        "observation": torch.randn(size, wide, generator=draw),
        "reward": torch.rand(size, 1, generator=draw),
        "terminated": ended,
        "done": ended,
    }
    content = {
        "observation": torch.randn(size, wide, generator=draw),
        "action": torch.rand(size, STATE.action, generator=draw) * 2 - 1,
        "next": TensorDict(following, [size]),
        "steps_to_next_obs": torch.ones(size, 1, dtype=torch.int64),
    }
    return TensorDict(content, [size])


def ours(config: SACConfig, batch: TensorDict) -> Call:
    """The agent's own steps, in the order of Lightning's automatic optimisation."""
    agent = SAC(config, STATE)
    optimiser: Any = agent.configure_optimizers()

    def update(number: int) -> None:
        agent.guard.begin(batch, agent.moved())
        optimiser.zero_grad()
        measured = agent.measure(batch, number)
        agent.guard.tie(summed(measured), measured).backward()
        parts = agent.groups().values()
        norms = [nn.utils.get_total_norm([p.grad for p in part if p.grad is not None], foreach=True) for part in parts]
        agent.guard.admits(norms)
        for part, norm in zip(parts, norms, strict=True):
            nn.utils.clip_grads_with_norm_(part, CLIP, norm, foreach=True)
        optimiser.step()
        agent.follow_slowly()

    return update


def theirs(config: SACConfig, batch: TensorDict) -> Call:
    """TorchRL's loss over the same networks, one Adam, and its target update."""
    assert STATE.observation is not None
    actor = policy_network(config, STATE.observation, STATE.action)
    critic = critic_network(config, STATE.observation + STATE.action)
    loss = SACLoss(actor, critic, loss_function="l2", alpha_init=config.temperature, target_entropy=-STATE.action)
    loss.make_value_estimator(gamma=config.discount)
    follow = SoftUpdate(loss, tau=config.tau)
    optimiser = torch.optim.Adam(loss.parameters(), lr=config.learning_rate, fused=True)

    def update(number: int) -> None:
        measured = loss(batch.copy())
        optimiser.zero_grad()
        (measured["loss_actor"] + measured["loss_qvalue"] + measured["loss_alpha"]).backward()
        optimiser.step()
        follow.step()

    return update
