"""Configuration: typed recipes, one command line, every fault at once. Imports no torch."""

from lightning_wm.config.compose import recipe_names
from lightning_wm.config.help import help_text, options_help, reference_markdown
from lightning_wm.config.load import Loaded, from_tree, load, load_plugins, options
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
from lightning_wm.config.store import differences, may_differ, printed, read_tree, run_directory, to_yaml

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
