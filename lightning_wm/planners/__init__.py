"""Planners: one per file, each chooses actions by optimising through a world model.

A new one is a class in this folder (or in a plugin) with `@register("planner", "name")`, a frozen `Config`
dataclass and a `search`; `base.BasePlanner` does the rest.
"""

from lightning_wm.planners.objective import Objective, problem_of, score

__all__ = ["Objective", "problem_of", "score"]
