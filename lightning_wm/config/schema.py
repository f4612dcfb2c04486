"""The core of every recipe: typed, frozen, one docstring per field.

The parts (model, agent, planner, callbacks) bring their own `Config` from the
registry; this file knows of them only that they have a name. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass(frozen=True)
class TaskConfig:
    """What is to be done, and how often each action is repeated."""

    name: str = MISSING
    """`dmc/<task>` of dm_control's suite (dmc/cartpole_swingup) or `gym/<id>` of Gymnasium (gym/Pendulum-v1)."""
    action_repeat: int = 1
    """Env steps that each action is held for; rewards are summed over them."""
    max_decisions: int | None = None
    """End episodes as truncated after this many decisions; null keeps the task's own length."""


@dataclass(frozen=True)
class RenderConfig:
    """How pixels are drawn."""

    quality: str = "fast"
    """`fast`: no shadows and no multisampling; `standard`: as MuJoCo ships them."""
    size: int = 64
    """Height and width in pixels."""
    camera: int = 0
    """Index of the camera."""


@dataclass(frozen=True)
class ObservationConfig:
    """What the agent sees."""

    kind: str = "state"
    """`state` (vector), `pixels` or `both`."""
    render: RenderConfig = field(default_factory=RenderConfig)


@dataclass(frozen=True)
class ReplayConfig:
    """Where experience is kept and how it is drawn."""

    capacity: int = 1_000_000
    """Transitions kept per rank (agent steps); the oldest are overwritten."""
    batch: int = 16
    """B: sequences in a batch."""
    length: int = 50
    """T: agent steps in a sequence."""


@dataclass(frozen=True)
class RolloutConfig:
    """How experience is collected."""

    seed_episodes: int = 5
    """Episodes with random actions before the first update, over all ranks and environments."""
    hold: int = 1
    """A random action of a seed episode is held for 1 to this many decisions, drawn uniformly."""
    env_steps: int = 1000
    """Env steps that a turn adds to replay, over all ranks and environments, in whole episodes."""
    environments: int = 1
    """E: environments that are played at once on each rank."""
    noise: float = 0.3
    """Standard deviation of the Gaussian noise added to actions while collecting."""
    execute: str | None = None
    """`planner.execute` while collecting, such as sample for planner=policy; null: as in evaluations."""
    stop_noise_after: int | None = None
    """Env steps after which actions are collected without noise; null never stops it."""
    explore_until: int | None = None
    """Env steps until which collecting seeks what the model does not know, with an agent that learns how
    (agent.disagreement_bonus); after that, and in every evaluation, it acts for reward. null: half of `env_steps`."""
    failures: int = 3
    """Episodes within `failure_window` that may be dropped because their environment fails; one more ends the run."""
    failure_window: float = 300.0
    """Seconds."""


@dataclass(frozen=True)
class TrainerConfig:
    """What Lightning's Trainer is told."""

    updates_per_turn: int = 100
    """Updates after each turn of collecting."""
    pretrain_updates: int = 0
    """Updates after the seed episodes, before the first turn with the planner."""
    accelerator: str = "auto"
    """`auto`, `cpu`, `gpu` (or cuda)."""
    devices: int = 1
    """Ranks: GPUs, or processes on a CPU."""
    strategy: str = "auto"
    """`auto`, `ddp` or another of Lightning's strategies."""
    precision: str = "32-true"
    """Lightning's name of the precision: `32-true`, `bf16-mixed`, `64-true`."""
    threads: int | None = None
    """CPU threads of torch on each rank; null leaves torch's choice."""
    compile: bool = False
    """Compile the world model's heads and losses with torch.compile (about 25 s at the first update)."""


@dataclass(frozen=True)
class EvaluationConfig:
    """How a run is judged; environments and seeds of its own, no exploration noise."""

    every: int = 10_000
    """Env steps between evaluations during training; 0 for none."""
    episodes: int = 5
    """Episodes of an evaluation during training."""
    final_episodes: int = 10
    """Episodes of the table at the end."""
    environments: int = 10
    """Episodes that are played at once."""
    seed: int = 10_000
    """First episode seed of evaluations during training; the final table's begin at `final_seed`."""
    final_seed: int = 20_000
    """First episode seed of the final table."""
    video: bool = True
    """Write one episode as a video at the end (where rendering works)."""


@dataclass(frozen=True)
class LoggingConfig:
    """What is written down while training."""

    every: int = 20
    """Updates between two lines of training metrics."""
    tensorboard: bool = True
    """Write TensorBoard event files beside metrics.jsonl."""
    wandb: bool = False
    """Send metrics to Weights & Biases as well (pip install "lightning_wm[wandb]"; WANDB_MODE=offline stays here)."""
    progress: bool = True
    """Show the progress bar."""


@dataclass(frozen=True)
class Config:
    """A whole experiment."""

    recipe: str | None = None
    """A shipped recipe's name (quickstart, dense/cheetah_run), a path to a YAML file, or `list`."""
    run: str | None = None
    """Run directory; null: `runs/<recipe>-s<seed>[-<hash of the overrides>]`."""
    seed: int = 0
    """Seed of every random stream."""
    env_steps: int = 100_000
    """Budget in env steps, seed episodes included, over all ranks and environments."""
    task: TaskConfig = field(default_factory=TaskConfig)
    observation: ObservationConfig = field(default_factory=ObservationConfig)
    model: Any = field(default_factory=lambda: {"name": "rssm"})
    """The world model: a part with a name and its own fields."""
    agent: Any = field(default_factory=lambda: {"name": "planet"})
    """The LightningModule that trains it: a part with a name and its own fields."""
    planner: Any = field(default_factory=lambda: {"name": "grad_mpc"})
    """What chooses actions: a part with a name and its own fields."""
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    callbacks: Any = field(default_factory=dict)
    """Further callbacks by name, each with its own fields: {name: {field: value}}."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    plugins: list[str] = field(default_factory=list)
    """Modules to import before names are looked up: your own planners, models, callbacks."""
    resume: str = "auto"
    """`auto` continues the run in the run directory where there is one; `never` refuses to."""
    trust: bool = False
    """Load plugins that a run directory's config.yaml names, not only those typed here."""
    smoke: bool = False
    """Shrink everything to seconds, to see that a recipe runs."""
    deterministic: bool = False
    """Ask torch for deterministic kernels (needed for exact runs on a GPU)."""
