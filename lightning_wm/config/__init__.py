"""Configuration: typed recipes, one command line, every fault at once. Imports no torch."""

from lightning_wm.config.describe import help_text, options_help, reference_markdown
from lightning_wm.config.emit import printed, to_yaml
from lightning_wm.config.load import Loaded, from_tree, load
from lightning_wm.config.options import options
from lightning_wm.config.plugins import load_plugins
from lightning_wm.config.recipes import recipe_names
from lightning_wm.config.runs import differences, may_differ, run_directory
from lightning_wm.config.schema import (
    Config,
    EvaluationConfig,
    LoggingConfig,
    ObservationConfig,
    RenderConfig,
    ReplayConfig,
    RolloutConfig,
    TaskConfig,
    TrainerConfig,
)
from lightning_wm.config.text import read as read_tree

__all__ = [
    "Config",
    "EvaluationConfig",
    "Loaded",
    "LoggingConfig",
    "ObservationConfig",
    "RenderConfig",
    "ReplayConfig",
    "RolloutConfig",
    "TaskConfig",
    "TrainerConfig",
    "differences",
    "from_tree",
    "help_text",
    "load",
    "load_plugins",
    "may_differ",
    "options",
    "options_help",
    "printed",
    "read_tree",
    "recipe_names",
    "reference_markdown",
    "run_directory",
    "to_yaml",
]
