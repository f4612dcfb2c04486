"""What planners are made of: the objective, the search, the ascent, the Gaussian fit, where candidates start."""

from lightning_wm.planning.objective import Objective, problem_of, score

__all__ = ["Objective", "problem_of", "score"]
