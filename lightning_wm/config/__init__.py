"""Configuration: typed recipes, one command line, every fault at once. Imports no torch."""

from lightning_wm.config.help import help_text as help_text
from lightning_wm.config.help import options_help as options_help
from lightning_wm.config.help import reference_markdown as reference_markdown
from lightning_wm.config.load import Loaded as Loaded
from lightning_wm.config.load import from_tree as from_tree
from lightning_wm.config.load import load as load
from lightning_wm.config.options import options as options
from lightning_wm.config.schema import Config as Config
from lightning_wm.config.schema import EvaluationConfig as EvaluationConfig
from lightning_wm.config.schema import LoggingConfig as LoggingConfig
from lightning_wm.config.schema import ObservationConfig as ObservationConfig
from lightning_wm.config.schema import RenderConfig as RenderConfig
from lightning_wm.config.schema import ReplayConfig as ReplayConfig
from lightning_wm.config.schema import RolloutConfig as RolloutConfig
from lightning_wm.config.schema import TaskConfig as TaskConfig
from lightning_wm.config.schema import TrainerConfig as TrainerConfig
from lightning_wm.config.shipped import recipe_names as recipe_names
from lightning_wm.config.store import printed as printed
from lightning_wm.config.store import read_tree as read_tree
from lightning_wm.config.store import to_yaml as to_yaml
from lightning_wm.registry import load_plugins as load_plugins
