"""What an agent without a world model acts by: the state is what was last seen, and there is nothing to imagine."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor

from lightning_wm.errors import UserError
from lightning_wm.planning.problem import Policy
from lightning_wm.playing.actor import WorldModelActor
from lightning_wm.protocols import Planner, Problem, Spaces, State


class Memoryless:
    """The state vector as a state, so that `playing.actor` and `planner=policy` serve a policy without a model.

    Args:
        spaces: with a state vector of O numbers.
        like: a weight of the policy; states have its type and device.
    """

    def __init__(self, spaces: Spaces, like: Tensor) -> None:
        self.spaces, self.like = spaces, like

    def initial(self, batch: int) -> State:
        """Zeros `[batch, O]`."""
        assert self.spaces.observation is not None
        return {"observation": torch.zeros(batch, self.spaces.observation).to(self.like)}

    def filter(self, state: State, action: Tensor, observation: TensorDictBase) -> State:
        """What is seen `[M, O]`, whatever came before."""
        return {"observation": observation["observation"].to(self.like)}

    def imagine(self, state: State, action: Tensor, noise: Tensor | None = None) -> State:
        """There is no model: where an observation is missing the last one counts again."""
        return state

    def reward(self, state: State) -> Tensor:
        """There is no model: zeros `[M]`."""
        return state["observation"].new_zeros(len(state["observation"]))


class LastFrames:
    """The last k pictures as a state; an episode's first one stands in for those before it, as in `Transitions`.

    Args:
        spaces: with pixels of shape (C, X, Y).
        frames: k.
        like: a weight of the policy; states have its device.
    """

    def __init__(self, spaces: Spaces, frames: int, like: Tensor) -> None:
        self.spaces, self.frames, self.like = spaces, frames, like

    def initial(self, batch: int) -> State:
        """`seen` `[batch, 1]`, zero, in the policy's type, and black `frames` uint8 `[batch, kC, X, Y]`."""
        assert self.spaces.pixels is not None
        channels, *sides = self.spaces.pixels
        frames = self.like.new_zeros(batch, self.frames * channels, *sides, dtype=torch.uint8)
        return {"seen": self.like.new_zeros(batch, 1), "frames": frames}

    def filter(self, state: State, action: Tensor, observation: TensorDictBase) -> State:
        """The newest picture `[M, C, X, Y]` behind the others."""
        newest = observation["pixels"].to(self.like.device)
        moved = torch.cat([state["frames"][:, newest.shape[1] :], newest], 1)
        begun = state["seen"].bool()[:, :, None, None]
        frames = torch.where(begun, moved, newest.repeat(1, self.frames, 1, 1))
        return {"seen": torch.ones_like(state["seen"]), "frames": frames}

    def imagine(self, state: State, action: Tensor, noise: Tensor | None = None) -> State:
        """There is no model: the state stays."""
        return state

    def reward(self, state: State) -> Tensor:
        """There is no model: zeros `[M]`."""
        return torch.zeros_like(state["seen"][:, 0])


def policy_actor(
    agent: str,
    policy: Policy,
    model: Memoryless | LastFrames,
    planner: Planner | None,
    seed: int = 0,
    rank: int = 0,
    noise: float = 0.0,
) -> WorldModelActor:
    """What plays by a policy alone; see `protocols.Agent`.

    Args:
        agent: its name.
        policy: from the model's states to a distribution over actions `[M, A]`.
        model: what of the past is a state.

    Raises:
        UserError: the planner plans, for which there is no model.
    """
    if planner is None or planner.config.name != "policy" or planner.config.horizon > 1:
        asked = "none" if planner is None else f"{planner.config.name} planner.horizon={planner.config.horizon}"
        raise UserError(
            f"planner={asked}: agent={agent} learns no model, so there is nothing to plan with; expected its own "
            "policy: type planner=policy"
        )
    problem = Problem(action=model.spaces.action, imagine=model.imagine, reward=model.reward, policy=policy)
    return WorldModelActor(model, planner, problem, seed=seed, rank=rank, noise=noise)  # type: ignore[arg-type]
