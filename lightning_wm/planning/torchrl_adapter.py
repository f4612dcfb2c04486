"""Every planner of ours as a TorchRL planner: `policy=` in `env.rollout` with any `ModelBasedEnvBase`."""

from __future__ import annotations

from typing import Any

from tensordict import NestedKey, TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Bounded
from torchrl.modules import MPCPlannerBase

from lightning_wm import rng
from lightning_wm.errors import UserError
from lightning_wm.planning.objective import Objective
from lightning_wm.planning.problem import objective_of, terms_of
from lightning_wm.protocols import Planner, Problem, State


class TorchRLPlanner(MPCPlannerBase):  # type: ignore[misc]
    """A planner that imagines with a TorchRL environment, beside `CEMPlanner` and `MPPIPlanner`.

    Rewards after the first `done` do not count, as in TorchRL's planners. Where the TensorDict carries `is_init`, the
    previous plan is a warm start within its episode; without it every decision starts cold.

    Args:
        env: stateless (not batch-locked), with a one-dimensional `Bounded` action spec; for gradient planners its
            step must be differentiable.
        planner: one of ours that plans at every decision and needs no policy; not collocation, which would move the
            rewards in the environment's answer as if they were states.
        seed: of the stream planner; decisions are counted from 0.
        discount: per step, in (0, 1]; a discount of the planner's objective overrules it.
        reward_key: of the reward inside `next`.
        action_key: of the action.

    Raises:
        UserError: the action spec has no finite bounds, the planner's objective asks for a value, critics or an
            ensemble, or its plans are to serve several decisions.
    """

    def __init__(
        self,
        env: Any,
        planner: Planner,
        seed: int = 0,
        discount: float = 1.0,
        reward_key: NestedKey = "reward",
        action_key: NestedKey = "action",
    ) -> None:
        super().__init__(env, action_key=action_key)
        spec = env.action_spec
        if not isinstance(spec, Bounded) or not bool(
            spec.space.low.isfinite().all() & spec.space.high.isfinite().all()
        ):
            raise UserError(f"a planner needs finite action bounds, but the environment's action_spec is {spec}")
        objective = objective_of(planner)
        _check(planner, objective)
        self.planner, self.seed = planner, seed
        self.reward_key, self.action_key = reward_key, action_key
        self._problem = Problem(
            action=spec.shape[-1],
            imagine=self._imagine,
            reward=lambda state: state["reward"],
            continues=None if objective.continues is False else lambda state: state["continues"],
            discount=discount if objective.discount is None else objective.discount,
            terms=terms_of(objective),
        )
        self._decision = 0
        self._memory: TensorDictBase | None = None

    def planning(self, td: TensorDictBase) -> Tensor:
        """Actions `[*batch, A]` for the states in `td` `[*batch]`, in the environment's own units."""
        batch, flat = td.batch_size, td.reshape(-1)
        state = self._state(flat)
        like = next(value for value in state.values() if value.is_floating_point())
        generators = [rng.generator(self.seed, "planner", row, self._decision) for row in range(len(like))]
        self._decision += 1
        plan = self.planner.plan(self._problem, state, self._warm(flat, like), generators)
        self._memory = plan["memory"]
        return self._scaled(plan["action"]).reshape(*batch, -1)

    def _state(self, td: TensorDictBase) -> State:
        """The environment's observations `[M, ...]`, nested keys joined by dots."""
        picked = td.select(*self.in_keys).flatten_keys(".")
        return {str(name): value for name, value in picked.items()}

    def _imagine(self, state: State, action: Tensor, noise: Tensor | None = None) -> State:
        """One step of the environment."""
        own = {name: value for name, value in state.items() if name not in ("reward", "continues")}
        before = TensorDict(own, [len(action)]).unflatten_keys(".")
        before.set(self.action_key, self._scaled(action))
        after = self.env.step(before)["next"]
        reward = after.get(self.reward_key).flatten(1).sum(1)
        return {**self._state(after), "reward": reward, "continues": 1.0 - after["done"].flatten(1).any(1).to(reward)}

    def _scaled(self, action: Tensor) -> Tensor:
        """From [-1, 1] to the environment's bounds."""
        space = self.env.action_spec.space
        low: Tensor = space.low.to(action)
        high: Tensor = space.high.to(action)
        return low + (action + 1) / 2 * (high - low)

    def _warm(self, td: TensorDictBase, like: Tensor) -> TensorDictBase | None:
        """The last plan's memory, valid where the episode goes on."""
        begins = td.get("is_init", None)
        if begins is None or self._memory is None or self._memory.batch_size != td.batch_size:
            return None
        memory = self._memory.clone()
        memory["valid"] = memory["valid"] & ~begins.flatten(1).any(1)
        return memory


def _check(planner: Planner, objective: Objective) -> None:
    """Refuse what an environment cannot tell, and what a policy that is asked at every step cannot do."""
    for name in ("terminal_value", "disagreement", "value_doubt"):
        weight = getattr(objective, name)
        if weight:
            raise UserError(f"objective.{name}={weight}: a TorchRL environment has no such head; leave it at 0")
    if planner.config.replan != 1:
        raise UserError(f"replan={planner.config.replan}: TorchRL asks for every action by itself; expected replan=1")
