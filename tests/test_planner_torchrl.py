"""Our planners as TorchRL policies, beside TorchRL's own CEM on the same latent environment."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.data import Bounded, Composite, Unbounded
from torchrl.envs import InitTracker, TransformedEnv
from torchrl.envs.model_based import ModelBasedEnvBase
from torchrl.modules import CEMPlanner, MPCPlannerBase

from lightning_wm.errors import UserError
from lightning_wm.planning import Objective
from lightning_wm.planning.torchrl_adapter import TorchRLPlanner
from tests.test_planner_contract import build


class Point(nn.Module):
    """x' = x + 0.1 a, reward -(x'.x')."""

    def forward(self, x: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Next position and reward."""
        after = x + 0.1 * action
        return after, -after.square().sum(-1, keepdim=True)


class PointEnv(ModelBasedEnvBase):
    """A latent environment whose action is in [-2, 2]^2 and whose start is the same for all."""

    def __init__(self, bounded: bool = True, batch_size: tuple[int, ...] = ()) -> None:
        world = TensorDictModule(Point(), in_keys=["x", "action"], out_keys=["x", "reward"])
        super().__init__(world, device="cpu", batch_size=torch.Size(batch_size))
        self.observation_spec = Composite(x=Unbounded((*batch_size, 2)), shape=batch_size)
        self.state_spec = self.observation_spec.clone()
        self.action_spec = Bounded(-2.0, 2.0, (*batch_size, 2)) if bounded else Unbounded((*batch_size, 2))
        self.reward_spec = Unbounded((*batch_size, 1))

    def _reset(self, tensordict: Any, **kwargs: Any) -> TensorDict:
        start = torch.tensor([1.0, -0.5]).expand(*self.batch_size, 2).clone()
        return TensorDict({"x": start, **self.full_done_spec.zero()}, self.batch_size)


def final(policy: Any, steps: int = 10) -> float:
    """Return of one rollout."""
    return PointEnv().rollout(steps, policy)["next", "reward"].sum().item()


@pytest.mark.parametrize("name", ["grad_mpc", "cem", "random_shooting"])
def test_a_planner_is_a_policy(name: str) -> None:
    """The best moves by 0.2 a step: x 0.8, 0.6, 0.4, 0.2, 0 and y -0.3, -0.1, 0; doing nothing gives -12.5."""
    best = -(0.64 + 0.36 + 0.16 + 0.04) - (0.09 + 0.01)
    planner = TorchRLPlanner(PointEnv(), build(name, horizon=8, candidates=64, elites=8))
    assert isinstance(planner, MPCPlannerBase)
    share = {"random_shooting": 4.5}.get(name, 1.1)
    assert share * best < final(planner) <= best + 1e-4


def test_beside_torchrls_own() -> None:
    torch.manual_seed(0)
    theirs = final(CEMPlanner(PointEnv(), 8, 10, 64, 8))
    ours = final(TorchRLPlanner(PointEnv(), build("cem", horizon=8, candidates=64, elites=8)))
    assert ours > theirs - 0.1


def test_batches_and_repetition() -> None:
    """Any batch shape; equal seeds give equal actions; the first action points home at full force."""
    env = PointEnv()
    state = TensorDict({"x": torch.tensor([1.0, -1.0]).expand(3, 2, 2).clone()}, [3, 2])
    planner = build("grad_mpc", horizon=6, bound="tanh")  # clipped, every plan ends at full force
    actions = [TorchRLPlanner(env, planner, seed=s)(state.clone())["action"] for s in (0, 0, 1)]
    assert actions[0].shape == (3, 2, 2)
    assert torch.equal(actions[0], actions[1])
    assert not torch.equal(actions[0], actions[2])
    assert (actions[0][..., 0] < -1.5).all()
    assert (actions[0][..., 1] > 1.5).all()
    assert actions[0].abs().max() <= 2


def test_warm_start_within_an_episode_only() -> None:
    """With `is_init` the second decision starts from the first plan; where an episode begins it does not."""
    planner = TorchRLPlanner(PointEnv(), build("grad_mpc", horizon=6))
    env = TransformedEnv(PointEnv(), InitTracker())
    env.rollout(3, planner)
    state = TensorDict({"x": torch.zeros(1, 2), "is_init": torch.zeros(1, 1, dtype=torch.bool)}, [1])
    assert planner._warm(state, state["x"])["valid"].tolist() == [True]
    state["is_init"] = ~state["is_init"]
    assert planner._warm(state, state["x"])["valid"].tolist() == [False]
    assert planner._warm(state.exclude("is_init"), state["x"]) is None


def test_the_planners_own_objective_counts() -> None:
    """Where acting costs a thousand times what it earns, nothing is done; a discount of 0.01 sees one step."""
    costly = TorchRLPlanner(PointEnv(), build("grad_mpc", horizon=6, objective=Objective(action_cost=1000.0)))
    state = TensorDict({"x": torch.tensor([[1.0, -1.0]])}, [1])
    assert costly(state.clone())["action"].abs().max() < 0.01
    assert TorchRLPlanner(PointEnv(), build("cem"), discount=0.9)._problem.discount == 0.9
    short = build("cem", objective=Objective(discount=0.01, continues=False))
    assert TorchRLPlanner(PointEnv(), short, discount=0.9)._problem.discount == 0.01
    assert TorchRLPlanner(PointEnv(), short)._problem.continues is None


@pytest.mark.parametrize("fields", [{"terminal_value": True}, {"disagreement": 0.5}, {"value_doubt": 0.5}])
def test_what_an_environment_cannot_tell_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"objective\.{next(iter(fields))}=.*no such head"):
        TorchRLPlanner(PointEnv(), build("cem", objective=Objective(**fields)))


def test_a_plan_serves_one_decision() -> None:
    with pytest.raises(UserError, match=r"replan=3: .*expected replan=1"):
        TorchRLPlanner(PointEnv(), build("cem", replan=3))


def test_collocation_would_move_the_rewards() -> None:
    planner = TorchRLPlanner(PointEnv(), build("collocation", horizon=4, iterations=2))
    with pytest.raises(UserError, match="continues, reward would be moved"):
        planner(TensorDict({"x": torch.zeros(1, 2)}, [1]))


def test_no_bounds_no_planner() -> None:
    with pytest.raises(UserError, match="finite action bounds"):
        TorchRLPlanner(PointEnv(bounded=False), build("cem"))
