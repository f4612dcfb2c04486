"""Plans over time: at every decision of an episode, what its candidates were expected to lead to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from torchrl.envs import EnvBase

from lightning_wm.envs.layout import ObservationLayout, entries
from lightning_wm.inspection.decision import Decision, decisions
from lightning_wm.planning.objective import imagine
from lightning_wm.protocols import Actor, Decodes
from lightning_wm.training.frames import Numbers, padded, painted, varied
from lightning_wm.training.video import write_film

CANDIDATES = 12
"""The best of a decision are drawn."""
PANELS = 5
"""Numbers of a state vector that are drawn, beside the reward: those that vary most."""
PAST = 30
"""Decisions before the newest that a frame shows."""
FORMER = 4
"""Executed plans of earlier decisions that are still seen, fading."""

FPS = 10


@dataclass(frozen=True)
class Expected:
    """One decision: what was seen, and what was expected of its candidates, the best first."""

    seen: Numbers
    """`[V]`: the reward that came with what was seen, then the state vector."""
    candidates: Numbers
    """`[K, H, V]`: the rewards and the state vectors that they were expected to lead to."""
    executed: Numbers
    """`[H, V]`: of the plan that was executed."""


def expectations(env: EnvBase, actor: Actor, model: object, seed: int, most: int) -> Iterator[Expected]:
    """Play an episode, at most so many decisions of it.

    Args:
        env: one environment.
        actor: a world model's actor with a planner that searches.
        model: that world model; without `decode` rewards alone are expected.
        seed: of the episode.
        most: decisions.

    Raises:
        UserError: nothing is planned in it.
    """
    for decision in decisions(env, actor, seed, range(most)):
        assert actor.plan is not None  # a planner that searches has one
        candidates = actor.plan["candidates"]
        order = candidates["score"][0].argsort(descending=True)[:CANDIDATES]
        plans = torch.cat([decision.plan[None], candidates["action"][0, order]])  # 1+K, H, A
        futures = _futures(decision, plans, model)
        yield Expected(_seen(decision, futures.shape[-1]), futures[1:], futures[0])


@torch.no_grad()
def _futures(decision: Decision, plans: Tensor, model: object) -> Numbers:
    """Rewards and state vectors `[N, H, V]` that plans `[N, H, A]` lead to under the model."""
    search = decision.search
    state, noise = search.rows(len(plans))
    states = imagine(search.problem, state, plans, noise)
    flat = {name: value.flatten(0, 1) for name, value in states.items()}  # H*N, ...
    parts = [search.problem.reward(flat)[:, None]]
    decoded = model.decode(flat) if isinstance(model, Decodes) else {}
    if "observation" in decoded:
        parts.append(decoded["observation"])
    values = torch.cat([part.float().cpu() for part in parts], 1).unflatten(0, (-1, len(plans)))  # H, N, V
    futures: Numbers = values.transpose(0, 1).numpy()
    return futures


def _seen(decision: Decision, width: int) -> Numbers:
    """`[V]`; the reward before an episode's first decision is nan."""
    seen = np.full(width, np.nan, np.float32)
    if decision.reward is not None:
        seen[0] = decision.reward
    if width > 1:
        seen[1:] = decision.seen["observation"][0].numpy()
    return seen


def filmed(env: EnvBase, actor: Actor, model: object, seed: int, most: int, path: Path) -> None:
    """Play an episode and write its plans over time as a video; see `expectations` and `frames`."""
    played = list(expectations(env, actor, model, seed, most))
    write_film(path, list(frames(played, getattr(env, "layout", None))), FPS)


def frames(played: list[Expected], layout: ObservationLayout | None) -> Iterator[NDArray[np.uint8]]:
    """A picture per decision: what happened in black, candidates in red, executed plans in blue, earlier ones fading.

    Args:
        played: the decisions in their order.
        layout: names the numbers of the state vector.
    """
    real = np.stack([decision.seen for decision in played])  # T, V
    chosen = [0, *(1 + varied(real[:, 1:], PANELS))]
    names = ["reward", *entries(layout, real.shape[1] - 1)]
    figure = Figure(figsize=(9, 1.7 * -(-len(chosen) // 2)), dpi=80, layout="constrained")
    axes = list(figure.subplots(-(-len(chosen) // 2), 2, squeeze=False).flat)
    for axis in axes[len(chosen) :]:
        axis.set_axis_off()
    whole = [np.concatenate([real[:, index], *(d.executed[:, index] for d in played)]) for index in chosen]
    spans = [(np.nanmin(values), np.nanmax(values)) for values in whole]
    for now in range(len(played)):
        for axis, index, span in zip(axes, chosen, spans, strict=False):
            axis.clear()
            _panel(axis, played, real, now, index)
            margin = 0.05 * (span[1] - span[0]) or 0.5
            axis.set(xlim=(max(0, now - PAST), max(0, now - PAST) + PAST + len(played[0].executed)))
            axis.set_ylim(span[0] - margin, span[1] + margin)
            axis.set_title(names[index], fontsize="small", pad=2)
            axis.tick_params(labelsize="x-small")
        yield padded(painted(figure))


def _panel(axis: Axes, played: list[Expected], real: Numbers, now: int, index: int) -> None:
    """One number up to a decision, and what was expected of it from there on."""
    for back in range(min(FORMER, now), 0, -1):
        line = played[now - back].executed[:, index]
        x = np.arange(now - back + 1, now - back + 1 + len(line))
        axis.plot(x, line, color="tab:blue", alpha=0.5 * (1 - back / (FORMER + 1)), linewidth=1)
    number = len(played[now].candidates)
    x = np.arange(now + 1, now + 1 + len(played[now].executed))
    for rank in reversed(range(number)):
        line = played[now].candidates[rank, :, index]
        axis.plot(x, line, color="tab:red", alpha=0.7 * (1 - rank / number), linewidth=0.8)
    axis.plot(x, played[now].executed[:, index], color="tab:blue", linewidth=1.5)
    axis.plot(np.arange(now + 1), real[: now + 1, index], color="black", linewidth=1.5)
