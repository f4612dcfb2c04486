"""What planners are made of: the objective, the search, the ascent, the Gaussian fit, where candidates start."""

from lightning_wm.planning.objective import Objective, score
from lightning_wm.planning.problem import problem_of

__all__ = ["Objective", "problem_of", "score"]
