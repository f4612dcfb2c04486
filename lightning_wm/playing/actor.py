"""A world model and a planner as something that plays."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from lightning_wm import rng
from lightning_wm.models.ambient import settled
from lightning_wm.planning.starts import shift
from lightning_wm.playing.observation import ObservationIntake, Observed
from lightning_wm.playing.realtime import ControlReport, run_at
from lightning_wm.protocols import Planner, Problem, State, WorldModel


class WorldModelActor(TensorDictModuleBase):  # type: ignore[misc]
    """Filters what it sees and plans the next action.

    Usable as `policy=` of any `env.rollout` (episodes are told apart by `is_init`), or by hand with
    `reset()` and `act(observation)`.

    Args:
        model: filters observations.
        planner: chooses actions.
        problem: what the planner optimises.
        seed: of the streams planner and exploration.
        rank: first counter of those streams.
        noise: standard deviation of Gaussian noise added to planned actions; 0 for evaluation.
    """

    def __init__(
        self, model: WorldModel, planner: Planner, problem: Problem, seed: int = 0, rank: int = 0, noise: float = 0.0
    ) -> None:
        super().__init__()
        self.intake = ObservationIntake(model.spaces)
        self.in_keys = list(self.intake.shapes)
        self.out_keys = ["action"]
        self.model, self.planner, self.problem = model, planner, problem
        self.seed, self.rank, self.noise = seed, rank, noise
        self.missing: Literal["refuse", "predict"] = "refuse"
        """What to do with an observation that is not finite: refuse it, or act on what the model expects instead."""
        self.episode = 0
        self.plan: TensorDict | None = None
        """The last plan, of batch `[E]`."""
        self.milliseconds = 0.0
        """Wall time of the last call of the planner, over the environments in the call."""
        self._state: State | None = None
        self._action: Tensor

    # ---- the contract of protocols.Actor

    def reset(self, mask: Tensor | None = None) -> None:
        """Forget the episodes of all environments, or of those where `mask` `[E]` is True."""
        if mask is None or self._state is None or bool(mask.all()):
            if self._state is not None:
                self.episode = max(self._first) + 1
            self._state = None
            return
        self._fresh |= mask.to(self._fresh.device)

    @settled()
    def act(self, observation: object) -> Any:
        """The next action in [-1, 1].

        Args:
            observation: a TensorDict or a mapping with `observation` and/or `pixels`, batched `[E, ...]` or not;
                tensors or arrays. Of a loaded run also the bare vector, and what the task's own simulator shows
                (dm_control's and Gymnasium's dictionaries).

        Returns:
            A tensor (for tensors) or an array (for arrays) `[E, A]` or `[A]`.

        Raises:
            UserError: the observation does not fit or is not finite; the actor is as it was before the call.
        """
        observed, rows = self._admit(observation)
        action = self._decide(rows, observed.finite)
        result = action if observed.batched else action[0]
        return result.cpu().numpy() if observed.arrays else result

    def did(self, action: object) -> None:
        """Say what was really done instead of what `act` answered, so that the next observation is filtered with it.

        Args:
            action: `[A]` or `[E, A]` in [-1, 1]; None for what `act` answered.
        """
        if action is not None and self._state is not None:
            done = torch.as_tensor(action, device=self._action.device).to(self._action)
            self._action = done.reshape(self._action.shape).clone()

    @settled()
    @torch.no_grad()
    def watch(self, observation: object, action: object = None) -> None:
        """Filter an observation that nothing is decided for; the random streams move on as if something were.

        Args:
            observation: as in `act`.
            action: what was done before it, as in `did`.
        """
        self.did(action)
        observed, rows = self._admit(observation)
        self._pass_over(rows, observed.finite)

    @property
    def upcoming(self) -> Tensor:
        """What the last plan goes on with after the last action, `[E, K, A]`; K is 0 at its end."""
        if self.plan is None or self._state is None:
            return torch.zeros(1, 0, self.problem.action)
        rest: Tensor = self.plan["actions"][:, int(self._used.max()) :]
        return rest

    def run_at(
        self,
        hz: float,
        observe: Callable[[], Any],
        send: Callable[[NDArray[np.float32]], None],
        decisions: int | None = None,
        budget: float | None = None,
    ) -> ControlReport:
        """Observe, decide and send an action `hz` times a second; see `playing.realtime.run_at`."""
        return run_at(self, hz, observe, send, decisions, budget)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write `action`; environments whose `is_init` is set begin a new episode."""
        if "is_init" in tensordict:
            self.reset(tensordict["is_init"].reshape(-1))
        batch = tensordict.batch_size
        seen = tensordict.select(*self.in_keys)
        action = self.act(seen.reshape(-1) if len(batch) else seen)
        tensordict["action"] = action.reshape(*batch, -1)
        return tensordict

    # ---- inside

    def _like(self) -> Tensor:
        return next(iter(self.model.initial(1).values()))

    def _begin(self, environments: int) -> None:
        like = self._like()
        self._state = self.model.initial(environments)
        self._action = like.new_zeros(environments, self.problem.action)
        self._memory: TensorDictBase = self.planner.memory(environments, self.problem.action, like)
        self._fresh = torch.zeros(environments, dtype=torch.bool, device=like.device)
        self._decision = [0] * environments
        self._first = [self.episode + index for index in range(environments)]
        self._ahead: Tensor | None = None
        self._used = torch.zeros(environments, dtype=torch.int64, device=like.device)

    def _admit(self, observation: object) -> tuple[Observed, TensorDict]:
        """What came, looked at before anything is remembered, and its rows on the model's device."""
        observed = self.intake.take(observation)
        if self.missing == "refuse":
            self.intake.refuse(observed)
        rows = observed.rows.to(self._like().device)
        if self._state is None or self._fresh.shape[0] != rows.shape[0]:
            self._begin(rows.shape[0])
        return observed, rows

    def _pass_over(self, rows: TensorDict, finite: Tensor) -> None:
        self._see(rows, finite)
        self._used = self._used + 1
        self._decision = [count + 1 for count in self._decision]

    def _forget(self) -> None:
        """Begin anew in the environments that were reset one by one."""
        if not bool(self._fresh.any()):
            return
        assert self._state is not None
        fresh, initial = self._fresh, self.model.initial(len(self._fresh))
        self._state = {name: _chosen(fresh, initial[name], value) for name, value in self._state.items()}
        self._action = _chosen(fresh, torch.zeros_like(self._action), self._action)
        self._memory["valid"] = self._memory["valid"] & ~fresh
        for index in fresh.nonzero().flatten().tolist():
            self._decision[index] = 0
            self._first[index] += len(self._first)
        self._used[fresh] = self._replan
        self._fresh = torch.zeros_like(fresh)

    @property
    def _replan(self) -> int:
        """Decisions that a plan serves."""
        return self.planner.config.replan

    def _see(self, rows: TensorDict, finite: Tensor) -> None:
        self._forget()
        assert self._state is not None
        self._state = self._filter(self._state, rows, finite)

    @torch.no_grad()
    def _decide(self, rows: TensorDict, finite: Tensor) -> Tensor:
        self._see(rows, finite)
        assert self._state is not None
        if self._ahead is None or bool((self._used >= self._replan).any()):
            self._think(self._state)
        assert self._ahead is not None
        action = self._ahead[torch.arange(len(self._used)), self._used]
        self._used = self._used + 1
        if self.noise:
            drawn = rng.normal(action.shape[1:], self._generators("exploration"), action)
            action = (action + self.noise * drawn).clamp(-1.0, 1.0)
        self._action = action
        self._decision = [count + 1 for count in self._decision]
        return action.clone()

    def _filter(self, state: State, rows: TensorDict, finite: Tensor) -> State:
        """One posterior step; the prior's in rows whose observation is missing, because it is not finite."""
        if bool(finite.all()):
            return self.model.filter(state, self._action, rows)
        known = finite.to(self._action.device)
        expected = self.model.imagine(state, self._action)
        rows = rows.apply(lambda entry: torch.nan_to_num(entry) if entry.is_floating_point() else entry)
        seen = self.model.filter(state, self._action, rows)
        return {name: _chosen(known, value, expected[name]) for name, value in seen.items()}

    def _think(self, state: State) -> None:
        """Plan; environments that are still executing theirs keep it."""
        start = time.perf_counter()
        plan = self.planner.plan(self.problem, state, self._due(), self._generators("planner"))
        self.milliseconds = 1e3 * (time.perf_counter() - start) / len(self._first)
        self.plan = plan
        replan = self._replan
        ahead = plan["action"][:, None] if replan == 1 else plan["actions"][:, :replan]
        if self._ahead is None:
            self._ahead, self._memory = ahead, plan["memory"]
            self._used = torch.zeros_like(self._used)
            return
        due = self._used >= replan
        self._ahead = _chosen(due, ahead, self._ahead)
        self._memory = plan["memory"].apply(lambda new, old: _chosen(due, new, old), self._memory)
        self._used = torch.where(due, 0, self._used)

    def _due(self) -> TensorDictBase:
        """What is remembered, moved on by the decisions that others took since it was due."""
        memory, late = self._memory, (self._used - self._replan).clamp(min=0)
        for steps in set(late.tolist()) - {0}:
            memory = memory.apply(partial(_moved_on, late == steps, steps))
        return memory

    def _generators(self, stream: str) -> list[torch.Generator]:
        return [
            rng.generator(self.seed, stream, self.rank, episode, decision)
            for episode, decision in zip(self._first, self._decision, strict=True)
        ]


def _moved_on(rows: Tensor, steps: int, plans: Tensor) -> Tensor:
    """Plans `[E, ..., H, A]` shifted in time in the rows `[E]` that are True; what is no plan stays."""
    return _chosen(rows, shift(plans, steps), plans) if plans.ndim > 2 else plans


def _chosen(rows: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """`new` in the rows `[E]` that are True, `old` in the others."""
    return torch.where(rows.view(-1, *[1] * (new.ndim - 1)), new, old)
