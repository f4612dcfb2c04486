"""The core of every recipe: typed, frozen, one docstring per field.

The parts (model, agent, planner, callbacks) bring their own `Config` from the
registry; this file knows of them only that they have a name. Imports no torch.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from lightning_wm.config.fields import Positive, Seed, Weight, settings
from lightning_wm.config.words import MISSING

Precision = Literal["32-true", "bf16-mixed", "64-true", "16-mixed", "32", "64", "16", "bf16"]


def some(what: str, example: int | None = None) -> Any:
    """At least one."""
    examples = None if example is None else [example]
    return Field(ge=1, description=f"a positive number of {what}", examples=examples)


def none_or_more(what: str, example: int | None = None) -> Any:
    """At least zero."""
    return Field(ge=0, description=f"0 or more {what}", examples=None if example is None else [example])


def _suite_and_task(name: str) -> str:
    suite, slash, task = name.partition("/")
    if suite and slash and task:
        return name
    near = f"; did you mean dmc/{name}?" if name and not slash else ";"
    raise ValueError(
        f"expected dmc/<task> or gym/<id>{near} type e.g. task.name=dmc/{name.strip('/') or 'cartpole_swingup'}"
    )


EPISODE = 1000
"""Env steps of a long episode, where the configuration sets no limit; of every episode in dm_control's suite."""


@settings("task.perturb")
class PerturbConfig:
    """Factors on what a MuJoCo task weighs, rubs, resists and falls by; 1 leaves it as it is."""

    mass: Positive = 1.0
    """Of every body's mass and inertia."""
    friction: Weight = 1.0
    """Of every contact's friction."""
    damping: Weight = 1.0
    """Of every joint's damping."""
    gravity: Weight = 1.0
    """Of gravity."""

    def __mul__(self, other: PerturbConfig) -> PerturbConfig:
        """Both, one after the other."""
        return PerturbConfig(**{name: factor * getattr(other, name) for name, factor in vars(self).items()})

    def changed(self) -> dict[str, float]:
        """The factors that are not 1."""
        return {name: factor for name, factor in vars(self).items() if factor != 1.0}


@settings("task")
class TaskConfig:
    """What is to be done, and how often each action is repeated."""

    name: Annotated[str, AfterValidator(_suite_and_task), Field(examples=["dmc/cartpole_swingup"])] = MISSING
    """`dmc/<task>` of dm_control's suite (dmc/cartpole_swingup) or `gym/<id>` of Gymnasium (gym/Pendulum-v1)."""
    action_repeat: Annotated[int, some("env steps per action")] = 1
    """Env steps that each action is held for; rewards are summed over them."""
    max_decisions: Annotated[int, some("decisions (or null)", 100)] | None = None
    """End episodes as truncated after this many decisions; null keeps the task's own length."""
    perturb: PerturbConfig = field(default_factory=PerturbConfig)
    """A simulator that is not quite the task's."""


@settings("observation.render")
class RenderConfig:
    """How pixels are drawn."""

    quality: Literal["fast", "standard"] = "fast"
    """`fast`: no shadows and no multisampling; `standard`: as MuJoCo ships them."""
    size: Annotated[int, Field(ge=1, le=4096, description="a positive number of pixels, 4096 at most")] = 64
    """Height and width in pixels."""
    camera: Annotated[int, Field(ge=-1, description="a camera's index (-1 for the free camera)")] = 0
    """Index of the camera."""


@settings("observation")
class ObservationConfig:
    """What the agent sees."""

    kind: Literal["state", "pixels", "both"] = "state"
    """`state` (vector), `pixels` or `both`."""
    render: RenderConfig = field(default_factory=RenderConfig)


@settings("replay")
class ReplayConfig:
    """Where experience is kept and how it is drawn."""

    capacity: Annotated[int, some("transitions")] = 1_000_000
    """Transitions kept per rank (agent steps); the oldest are overwritten."""
    batch: Annotated[int, some("sequences")] = 16
    """B: sequences in a batch."""
    length: Annotated[int, Field(ge=2, description="2 or more agent steps")] = 50
    """T: agent steps in a sequence."""

    def __post_init__(self) -> None:
        """Refuse windows that replay can never hold."""
        if self.length > self.capacity:
            raise ValueError(
                f"replay.length={self.length} is longer than replay.capacity={self.capacity}; "
                f"expected a window that fits; type e.g. replay.capacity={10 * self.length}"
            )


@settings("rollout")
class RolloutConfig:
    """How experience is collected."""

    seed_episodes: Annotated[int, none_or_more("episodes")] = 5
    """Episodes with random actions before the first update, over all ranks and environments."""
    hold: Annotated[int, some("decisions")] = 1
    """A random action of a seed episode is held for 1 to this many decisions, drawn uniformly."""
    env_steps: Annotated[int, some("env steps")] = 1000
    """Env steps that a turn adds to replay, over all ranks and environments, in whole episodes."""
    environments: Annotated[int, some("environments")] = 1
    """E: environments that are played at once on each rank."""
    workers: Annotated[int, Field(ge=0, le=1, description="0 or 1 process")] = 0
    """1: on each rank a process of its own plays the next turn's episodes while this turn's updates are made, with the
    weights of the turn's beginning."""
    noise: Annotated[float, none_or_more("(a standard deviation)")] = 0.3
    """Standard deviation of the Gaussian noise added to actions while collecting."""
    execute: str | None = None
    """`planner.execute` while collecting, such as sample for planner=policy; null: as in evaluations."""
    stop_noise_after: Annotated[int, none_or_more("env steps (or null)", 50000)] | None = None
    """Env steps after which actions are collected without noise; null never stops it."""
    explore_until: Annotated[int, none_or_more("env steps (or null)", 50000)] | None = None
    """Env steps until which collecting seeks what the model does not know, with an agent that learns how
    (agent.disagreement_bonus); after that, and in every evaluation, it acts for reward. null: half of `env_steps`."""
    failures: Annotated[int, none_or_more("episodes")] = 3
    """Episodes within `failure_window` that may be dropped because their environment fails; one more ends the run."""
    failure_window: Annotated[float, none_or_more("seconds")] = 300.0
    """Seconds."""


@settings("trainer")
class TrainerConfig:
    """What Lightning's Trainer is told."""

    updates_per_turn: Annotated[int, some("updates")] = 100
    """Updates after each turn of collecting."""
    pretrain_updates: Annotated[int, none_or_more("updates")] = 0
    """Updates after the seed episodes, before the first turn with the planner."""
    accelerator: Literal["auto", "cpu", "gpu", "cuda"] = "auto"
    """`auto`, `cpu`, `gpu` (or cuda)."""
    devices: Annotated[int, some("ranks")] = 1
    """Ranks: GPUs, or processes on a CPU."""
    strategy: str = "auto"
    """`auto`, `ddp` or another of Lightning's strategies."""
    precision: Precision = "32-true"
    """Lightning's name of the precision: `32-true`, `bf16-mixed`, `64-true`."""
    threads: Annotated[int, some("threads (or null)", 1)] | None = None
    """CPU threads of torch on each rank; null leaves torch's choice."""
    compile: bool = False
    """Compile the world model's heads and losses with torch.compile (about 25 s at the first update)."""


@settings("evaluation")
class EvaluationConfig:
    """How a run is judged; environments and seeds of its own, no exploration noise."""

    every: Annotated[int, none_or_more("env steps")] = 10_000
    """Env steps between evaluations during training; 0 for none."""
    episodes: Annotated[int, some("episodes")] = 5
    """Episodes of an evaluation during training."""
    final_episodes: Annotated[int, some("episodes")] = 10
    """Episodes of the table at the end."""
    environments: Annotated[int, some("environments")] = 10
    """Episodes that are played at once."""
    seed: Seed = 10_000
    """First episode seed of evaluations during training; the final table's begin at `final_seed`."""
    final_seed: Seed = 20_000
    """First episode seed of the final table."""
    video: bool = True
    """Write one episode as a video at the end (where rendering works), and what the model predicts from actions alone
    beside the truth at every evaluation."""


@settings("logging")
class LoggingConfig:
    """What is written down while training."""

    every: Annotated[int, some("updates")] = 20
    """Updates between two lines of training metrics."""
    tensorboard: bool = True
    """Write TensorBoard event files beside metrics.jsonl."""
    wandb: bool = False
    """Send metrics to Weights & Biases as well (pip install "lightning_wm[wandb]"; WANDB_MODE=offline stays here)."""
    trackio: bool = False
    """Log to trackio's database on this machine as well (pip install "lightning_wm[trackio]"; `trackio show`)."""
    group: str | None = None
    """What trackers put the run under; null: the recipe."""
    tags: list[str] = field(default_factory=list)
    """Words that W&B shows with the run, beside task, agent and planner."""
    progress: bool = True
    """Show the progress bar."""


@settings("")
class Config:
    """A whole experiment."""

    recipe: str | None = None
    """A shipped recipe's name (quickstart, dense/cheetah_run), a path to a YAML file, or `list`."""
    run: str | None = None
    """Run directory; null: `runs/<recipe>-s<seed>[-<hash of the overrides>]`."""
    seed: Seed = 0
    """Seed of every random stream."""
    env_steps: Annotated[int, some("env steps")] = 100_000
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
    resume: Literal["auto", "never"] = "auto"
    """`auto` continues the run in the run directory where there is one; `never` refuses to."""
    trust: bool = False
    """Load plugins that a run directory's config.yaml names, not only those typed here."""
    smoke: bool = False
    """Shrink everything to seconds, to see that a recipe runs."""
    deterministic: bool = False
    """Ask torch for deterministic kernels (needed for exact runs on a GPU)."""
