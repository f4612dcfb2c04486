"""One plan's view of the model: score candidates of E environments, take gradients, count what that costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Protocol

import torch
from torch import Tensor

from lightning_wm.errors import UserError
from lightning_wm.planning.objective import imagine, score
from lightning_wm.planning.terms import TerminalValue, ValueDoubt
from lightning_wm.protocols import Problem, State

Score = Callable[[Problem, State, Tensor, Tensor | None], Tensor]


class Observer(Protocol):
    """Looks on while a search goes on; `trace.Trace` is the one that keeps what it sees."""

    def begin(self, search: Search) -> None:
        """A new search."""

    def add(self, actions: Tensor, score: Tensor, climbed: bool, noise: Tensor | None = None) -> None:
        """One scoring of candidates `[E, N, H, A]`; `noise` where it was not under the search's own."""


def finite(values: Tensor) -> Tensor:
    """The same scores with -inf where they are not finite, so that these are never chosen."""
    return torch.where(values.isfinite(), values, -torch.inf)


class Search:
    """Scores of candidates `[E, N, H, A]` from the states of E environments."""

    def __init__(
        self,
        problem: Problem,
        state: State,
        generators: Sequence[torch.Generator],
        horizon: int,
        latents: str = "mean",
        score: Score = score,
        trace: Observer | None = None,
    ) -> None:
        """
        Args:
            state: `[E, ...]`.
            generators: one per environment.
            horizon: H.
            latents: `mean` follows the prior's mode; `sample` draws the noise of the stochastic state once,
                shared by an environment's candidates, so that scores can be compared and differentiated.
            score: the objective, as in `objective.score`.
            trace: looks on; None for nobody.
        """
        self.problem, self.state, self.generators, self.horizon = problem, state, generators, horizon
        self.like = next(value for value in state.values() if value.is_floating_point())
        self.environments = self.like.shape[0]
        if len(generators) != self.environments:
            raise ValueError(f"{len(generators)} generators for {self.environments} environments: expected one each")
        self.model_steps = 0
        self.sequential_calls = 0
        self._score, self._trace = score, trace
        self._noise = self._draw() if latents == "sample" else None  # H, E, ...
        self._spread: dict[int, tuple[State, Tensor | None]] = {}
        if trace is not None:
            trace.begin(self)

    def probe(self) -> Search:
        """The same states and noise for questions afterwards: unseen by the trace, uncompiled, counted apart."""
        other = copy(self)
        other._score, other._trace = score, None
        return other

    def doubt(self, plan: Tensor, draws: int = 8) -> Tensor:
        """Standard deviation `[E]` of what a plan `[E, H, A]` is worth over draws of the latents; 0 without any.

        Where it is not finite it is 0.
        """
        noise = self._draw(draws)
        if noise is None:
            return plan.new_zeros(len(plan))
        return torch.nan_to_num(self._under(noise, plan[:, None]).std(-1)[:, 0], nan=0.0, posinf=0.0)

    def expected(self, plans: Tensor, draws: int) -> Tensor:
        """What plans `[E, P, H, A]` are worth on average over draws of the latents, `[E, P]`; -inf where not finite.

        An environment's plans meet the same draws: what they differ by is not the luck of one. A model that draws
        nothing is asked once.
        """
        noise = self._draw(draws)
        if noise is None:
            return self.score(plans)
        return self._under(noise, plans).mean(-1)

    def _under(self, noise: Tensor, plans: Tensor) -> Tensor:
        """Scores `[E, P, K]` of plans `[E, P, H, A]` under noise `[H, E*K, ...]` of the latents."""
        number, draws = plans.shape[1], noise.shape[1] // self.environments
        shared = noise.unflatten(1, (self.environments, draws)).repeat_interleave(number, 1).flatten(1, 2)
        plans = plans.repeat_interleave(draws, 1)  # E, P*K, H, A
        state, _ = self._begin(plans)
        with torch.no_grad():
            values = score(self.problem, state, plans.flatten(0, 1), shared).view(self.environments, -1)
        return self._seen(plans, finite(values), noise=shared).view(self.environments, number, draws)

    def _draw(self, number: int = 1) -> Tensor | None:
        """Noise of the latents for as many plans of every environment, `[H, E*number, ...]`; None without any."""
        if self.problem.noise is None:
            return None
        rows = [self.problem.noise((self.horizon, number), generator) for generator in self.generators]
        noise = torch.stack(rows, 1).flatten(1, 2).to(self.like)
        return noise if noise.numel() else None  # of size 0 from a model without stochastic state

    def rows(self, candidates: int) -> tuple[State, Tensor | None]:
        """State `[E*N, ...]` and noise `[H, E*N, ...]`: every environment's row N times."""
        if candidates not in self._spread:
            state = {name: value.repeat_interleave(candidates, 0) for name, value in self.state.items()}
            noise = None if self._noise is None else self._noise.repeat_interleave(candidates, 1)
            self._spread[candidates] = state, noise
        return self._spread[candidates]

    def imagine(self, state: State, action: Tensor, noise: Tensor | None = None) -> State:
        """One counted step of the model for all candidates: state `[E*N, ...]`, action `[E*N, A]`."""
        self.model_steps += len(action) // self.environments
        self.sequential_calls += 1
        return self.problem.imagine(state, action, noise)

    def unroll(self, actions: Tensor) -> State:
        """The states after each action of candidates `[E, N, H, A]`, every tensor `[H, E*N, ...]`; counted."""
        state, noise = self._begin(actions)
        with torch.no_grad():
            return imagine(self.problem, state, actions.flatten(0, 1), noise)

    def _begin(self, actions: Tensor) -> tuple[State, Tensor | None]:
        """Count an unroll of candidates `[E, N, H, A]`; where it starts, and its noise."""
        _, candidates, horizon, _ = actions.shape
        self.model_steps += candidates * horizon
        self.sequential_calls += horizon
        return self.rows(candidates)

    def _evaluate(self, actions: Tensor) -> Tensor:
        environments, candidates = actions.shape[:2]
        state, noise = self._begin(actions)
        return self._score(self.problem, state, actions.flatten(0, 1), noise).view(environments, candidates)

    def score(self, actions: Tensor) -> Tensor:
        """What candidates `[E, N, H, A]` are worth, `[E, N]`; -inf where the model's answer is not finite."""
        with torch.no_grad():
            return self._seen(actions, finite(self._evaluate(actions)))

    def _seen(self, actions: Tensor, values: Tensor, climbed: bool = False, noise: Tensor | None = None) -> Tensor:
        if self._trace is not None:
            self._trace.add(actions, values, climbed, noise)
        return values

    def gradient(self, free: Tensor, bound: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The actions `bound(free)`, their scores `[E, N]` and the gradient `[E, N, H, A]` with respect to `free`.

        Only the actions are differentiated: no parameter's gradient is touched. Where the gradient
        is not finite it is 0.

        Raises:
            UserError: the score does not depend on the actions; the message says which part broke the graph.
        """
        with torch.enable_grad():
            free = free.detach().requires_grad_()
            actions = bound(free)
            values = self._evaluate(actions)
            gradient = None
            if values.requires_grad:
                (gradient,) = torch.autograd.grad(values.sum(), free, allow_unused=True)
        if gradient is None:
            check_differentiable(self.problem, self.state)
            raise UserError(f"the score has no gradient with respect to the actions; {_USE_ANOTHER}")
        actions, score = actions.detach(), finite(values.detach())
        return actions, self._seen(actions, score, climbed=True), torch.where(gradient.isfinite(), gradient, 0.0)


_USE_ANOTHER = "a planner without gradients works on it: type planner=cem"


def _depends(outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> bool:
    usable = [output.sum() for output in outputs if output.requires_grad]
    return bool(usable) and any(g is not None for g in torch.autograd.grad(usable, inputs, allow_unused=True))


def check_differentiable(problem: Problem, state: State) -> None:
    """Walk the graph part by part: one imagined step, then every head.

    Raises:
        UserError: a part has no gradient; the message names it.
    """
    leaves = {name: value.detach() for name, value in state.items()}
    like = next(value for value in leaves.values() if value.is_floating_point())
    with torch.enable_grad():
        action = torch.zeros(like.shape[0], problem.action, device=like.device, dtype=like.dtype).requires_grad_()
        after = problem.imagine(leaves, action, None)
        if not _depends([value for value in after.values() if value.is_floating_point()], [action]):
            raise UserError(f"the model's imagine has no gradient with respect to the action; {_USE_ANOTHER}")
        floating = {name: value.detach().requires_grad_() for name, value in after.items() if value.is_floating_point()}
        valued = any(isinstance(term, TerminalValue | ValueDoubt) for term in problem.terms)
        for name, head in (("reward", problem.reward), ("value", problem.value if valued else None)):
            if head is not None and not _depends([head({**after, **floating})], list(floating.values())):
                raise UserError(f"the model's {name} has no gradient with respect to the state; {_USE_ANOTHER}")
