"""What an agent without a world model acts by: the observation is the whole state, and there is nothing to imagine."""

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


def policy_actor(
    agent: str,
    policy: Policy,
    spaces: Spaces,
    like: Tensor,
    planner: Planner | None,
    seed: int = 0,
    rank: int = 0,
    noise: float = 0.0,
) -> WorldModelActor:
    """What plays by a policy alone; see `protocols.Agent`.

    Args:
        agent: its name.
        policy: from states `{"observation": [M, O]}` to a distribution over actions `[M, A]`.

    Raises:
        UserError: the planner plans, for which there is no model.
    """
    if planner is None or planner.config.name != "policy" or planner.config.horizon > 1:
        asked = "none" if planner is None else f"{planner.config.name} planner.horizon={planner.config.horizon}"
        raise UserError(
            f"planner={asked}: agent={agent} learns no model, so there is nothing to plan with; expected its own "
            "policy: type planner=policy"
        )
    model = Memoryless(spaces, like)
    problem = Problem(action=spaces.action, imagine=model.imagine, reward=model.reward, policy=policy)
    return WorldModelActor(model, planner, problem, seed=seed, rank=rank, noise=noise)  # type: ignore[arg-type]
