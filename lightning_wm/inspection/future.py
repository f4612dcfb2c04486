"""What a plan was expected to lead to, and what it leads to when it is executed without looking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.envs import EnvBase

from lightning_wm.data.schema import OBSERVATIONS
from lightning_wm.inspection.decision import Decision, plain
from lightning_wm.planning.objective import imagine
from lightning_wm.protocols import Decodes


@dataclass(frozen=True)
class Future:
    """Imagined and real steps; index 0 is the decision itself, filtered and seen."""

    imagined: dict[str, Tensor]
    """What the model decodes, `[H+1, ...]`: `observation` in its own units, `pixels` in [0, 1]; empty without
    a decoder."""
    real: dict[str, Tensor]
    """What was seen, `[h+1, ...]` in the same units; h < H where the episode ends before the plan."""
    predicted: Tensor
    """Reward of each step under the model, `[H]`."""
    rewards: Tensor
    """Reward of each step, `[h]`."""

    def as_json(self) -> dict[str, Any]:
        """The future in numbers; pictures only by their mean squared error."""
        steps = len(self.rewards)
        vectors = {
            side: plain(values["observation"])
            for side, values in (("imagined", self.imagined), ("real", self.real))
            if "observation" in values
        }
        errors = {
            name: (values[: steps + 1] - self.real[name]).square().flatten(1).mean(1)
            for name, values in self.imagined.items()
        }
        return {
            "reward": {
                "predicted": plain(self.predicted),
                "real": self.rewards.tolist(),
                "predicted_sum": plain(float(self.predicted[:steps].sum())),
                "real_sum": float(self.rewards.sum()),
            },
            "observation": vectors,
            "observation_error": {name: plain(error) for name, error in errors.items()},
        }


def happened(env: EnvBase, model: object, decision: Decision) -> Future:
    """Imagine the executed plan, then execute it in open loop from where the environment stands.

    Args:
        env: stands at the decision; it is moved on by up to H decisions.
        model: decodes the imagined states, where it has `decode`.
    """
    search = decision.search
    state, noise = search.rows(1)
    states = imagine(search.problem, state, decision.plan[None], noise)  # H, 1, ...
    after = {name: value.flatten(0, 1) for name, value in states.items()}
    whole = {name: torch.cat([state[name], value]) for name, value in after.items()}  # H+1, ...
    decoded = model.decode(whole) if isinstance(model, Decodes) else {}
    imagined = {name: value.float().cpu() for name, value in decoded.items()}
    seen, rewards, td = [_seen(decision.seen)], [], decision.seen
    for action in decision.plan:
        td["action"] = action[None].to("cpu", torch.float32)
        td = env.step(td)["next"]
        rewards.append(td["reward"].flatten())
        seen.append(_seen(td))
        if bool(td["done"].any()):
            break
        td = td.exclude("reward")
    real = {name: torch.cat([shown[name] for shown in seen]) for name in seen[0]}
    return Future(imagined, real, search.problem.reward(after).flatten().cpu(), torch.cat(rewards))


def _seen(td: TensorDictBase) -> dict[str, Tensor]:
    """Observations `[1, ...]` in the units of the model's decoder."""
    return {name: td[name].float() / (255.0 if name == "pixels" else 1.0) for name in OBSERVATIONS if name in td}
