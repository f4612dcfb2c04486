"""The objective under torch.compile: one compiled function per problem and shape."""

from __future__ import annotations

import warnings
from dataclasses import replace

import torch
from torch import Tensor

from lightning_wm.planners.objective import score
from lightning_wm.protocols import Problem, State


class CompiledScore:
    """`objective.score`, compiled with fixed shapes; compiles again when the problem changes."""

    def __init__(self) -> None:
        self._problem: Problem | None = None

    def __call__(self, problem: Problem, state: State, actions: Tensor, noise: Tensor | None = None) -> Tensor:
        """Scores `[M]`, as `objective.score`."""
        if problem != self._problem:
            self._problem = problem
            stepwise = replace(problem, unroll=None)  # what is compiled needs no backward pass by hand

            def of_problem(state: State, actions: Tensor, noise: Tensor | None) -> Tensor:
                return score(stepwise, state, actions, noise)

            self._compiled = torch.compile(of_problem, dynamic=False)
        with warnings.catch_warnings():
            # Tracing looks at `.grad` of the actions, which are no leaf.
            warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
            values: Tensor = self._compiled(state, actions, noise)
        return values
