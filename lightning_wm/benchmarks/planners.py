"""Planning one decision: our planners beside TorchRL's, and beside rollouts of the model with nothing around them."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.data import Bounded, Composite, Unbounded
from torchrl.envs.model_based import ModelBasedEnvBase
from torchrl.modules import CEMPlanner

from lightning_wm import rng
from lightning_wm.benchmarks.timing import Call, Setting, interleaved, row
from lightning_wm.benchmarks.update import TINY, world
from lightning_wm.models.rssm import RSSMConfig
from lightning_wm.planners.cem import CEM, CEMConfig
from lightning_wm.planners.grad_mpc import GradMPC
from lightning_wm.planning import problem_of, score
from lightning_wm.protocols import Planner, Spaces, WorldModel

QUICKSTART = Spaces(action=1, observation=5)
"""cartpole swingup's."""


def rows(setting: Setting) -> list[dict[str, Any]]:
    """Rows `planner/cem` (12x10x1000), `planner/cem_rollouts` and `planner/grad_mpc` (its defaults)."""
    model = setting.model
    if model is None:
        model = world(RSSMConfig(**(TINY if setting.smoke else {})), QUICKSTART)
    c = CEMConfig(horizon=2, iterations=2, candidates=8, elites=2) if setting.smoke else CEMConfig()
    peer = CEMPlanner(LatentEnv(model), c.horizon, c.iterations, c.candidates, c.elites)
    latent = TensorDict({**model.initial(1), **_not_done()}, [1])[0]
    gradient = GradMPC()
    with torch.no_grad(), rng.scope(0, "planner"):
        cem, theirs, bare, grad_mpc = interleaved(
            _planning(CEM(c), model),
            lambda number: peer.planning(latent),
            _bare_rollouts(c, model),
            _planning(gradient, model),
            repeats=setting.count(7),
            warm=1,
        )
    sizes = {"horizon": c.horizon, "iterations": c.iterations, "candidates": c.candidates, "elites": c.elites}
    sizes["action"] = model.spaces.action
    g = gradient.config
    climb = {"horizon": g.horizon, "iterations": g.iterations, "candidates": g.candidates}
    return [
        row("planner/cem", cem, "torchrl CEMPlanner", theirs, sizes),
        row("planner/cem_rollouts", cem, "its bare rollouts", bare, sizes),
        row("planner/grad_mpc", grad_mpc, "our cem", cem, {**climb, "peer": sizes}),
    ]


def _planning(planner: Planner, model: WorldModel) -> Call:
    problem = problem_of(model)
    return lambda number: planner.plan(problem, model.initial(1), None, [rng.generator(0, "planner", number)])


def _bare_rollouts(c: CEMConfig, model: WorldModel) -> Call:
    """The model's part of CEM: every candidate imagined and its rewards predicted, as often as CEM does."""
    problem = problem_of(model)
    state = {name: value.repeat_interleave(c.candidates, 0) for name, value in model.initial(1).items()}
    actions = torch.randn(c.candidates, c.horizon, model.spaces.action, generator=rng.generator(0, "planner"))

    def rollouts(number: int) -> None:
        for _ in range(c.iterations):
            score(problem, state, actions)

    return rollouts


def _not_done() -> dict[str, Tensor]:
    return {name: torch.zeros(1, 1, dtype=torch.bool) for name in ("done", "terminated")}


class _Step(nn.Module):
    def __init__(self, model: WorldModel, keys: list[str]) -> None:
        super().__init__()
        self.model, self.keys = model, keys

    def forward(self, *state_and_action: Tensor) -> tuple[Tensor, ...]:
        *state, action = state_and_action
        after = self.model.imagine(dict(zip(self.keys, state, strict=True)), action)
        return *(after[name] for name in self.keys), self.model.reward(after)[:, None]


class LatentEnv(ModelBasedEnvBase):  # type: ignore[misc]
    """A world model as a TorchRL environment of batch `()`, which CEMPlanner can give any number of candidates."""

    def __init__(self, model: WorldModel) -> None:
        start = model.initial(1)
        keys = sorted(start)
        step = TensorDictModule(_Step(model, keys), in_keys=[*keys, "action"], out_keys=[*keys, "reward"])
        super().__init__(step, device="cpu", batch_size=torch.Size([]))
        self.observation_spec = Composite({name: Unbounded(start[name].shape[1:]) for name in keys})
        self.state_spec = self.observation_spec.clone()
        self.action_spec = Bounded(-1.0, 1.0, (model.spaces.action,))
        self.reward_spec = Unbounded((1,))

    def _reset(self, tensordict: TensorDictBase | None, **kwargs: object) -> TensorDict:
        return TensorDict({**self.observation_spec.zero(), **self.full_done_spec.zero()}, [])
