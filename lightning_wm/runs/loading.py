"""Trained runs and model folders, back in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_wm import config as configuration
from lightning_wm.config import Config
from lightning_wm.config.schema import PerturbConfig
from lightning_wm.config.shipped import group_file
from lightning_wm.config.store import laid
from lightning_wm.errors import UserError
from lightning_wm.models.ambient import settled
from lightning_wm.planning.settings import judged_alike
from lightning_wm.playing.actor import WorldModelActor
from lightning_wm.protocols import WorldModel
from lightning_wm.registry import build
from lightning_wm.runs.directory import RunDirectory
from lightning_wm.runs.interface import Interface, read_interface
from lightning_wm.runs.model_folder import WEIGHTS, Weights, is_model_folder, read_weights
from lightning_wm.runs.sources import locate
from lightning_wm.runs.untrusted import check_folder
from lightning_wm.runs.weights import no_larger_than, put_weights
from lightning_wm.training.experiment import build_agent, environments

if TYPE_CHECKING:
    from torchrl.envs import EnvBase

    from lightning_wm.agents.base import BaseAgent
    from lightning_wm.envs.batched import SimulatorEnv
    from lightning_wm.protocols import Actor


@dataclass(frozen=True)
class LoadedRun:
    """A run's configuration and its agent with a checkpoint's weights."""

    run: RunDirectory
    """Where evaluations and films go."""
    config: Config
    tree: dict[str, Any]
    agent: BaseAgent
    env_steps: int
    """Of the checkpoint."""
    checkpoint: str
    """`last` or `best`; for a model folder, what it was exported from."""
    plugins: list[str]
    trust: bool
    interface: Interface
    """What it sees and does."""
    folder: Path
    """Where it was read; of the installation for a model that ships."""

    @property
    def model(self) -> WorldModel | None:
        """The world model that the agent has learned; None where it learned none."""
        model = dict(self.agent.named_children()).get("model")
        return model if isinstance(model, WorldModel) else None

    def perturbed(self, factors: PerturbConfig) -> LoadedRun:
        """The same with a simulator that is changed, on top of what changes it already."""
        task = replace(self.config.task, perturb=self.config.task.perturb * factors)
        return replace(self, config=replace(self.config, task=task))

    def environments(self, count: int) -> SimulatorEnv:
        """E environments of its task.

        Raises:
            UserError: an unknown task, or one that shows or takes something else than the model was trained on.
        """
        env: SimulatorEnv = environments(self.config)(count)
        try:
            self.interface.refuse_other(_interface(env), self.config.task.name)
        except UserError:
            env.close()
            raise
        return env


@settled()
def load_run(path: Path | str, checkpoint: str = "last", plugins: Sequence[str] = (), trust: bool = False) -> LoadedRun:
    """Read a run directory or a model folder; nothing in it is executed.

    Args:
        path: the run directory or model folder, `zoo:NAME` or `hub:USER/NAME`.
        checkpoint: `last` or `best`; a model folder has one of them, and `last` takes either.
        plugins: modules to import first.
        trust: import the plugins that its config.yaml names.

    Raises:
        UserError: it is neither, its files are damaged, or it names plugins that are not trusted.
    """
    source = locate(path)
    run = RunDirectory(source.folder)
    if not run.exists():
        raise UserError(
            f"{path} is not the folder of a run or a model (no config.yaml); "
            "type run=<one that fit or export has written>"
        )
    if checkpoint not in ("last", "best"):
        raise UserError(f"checkpoint={checkpoint}: expected last or best; type checkpoint=last")
    check_folder(run.path)
    tree = configuration.read_tree(run.config)
    config = configuration.from_tree(tree, plugins, trust)
    file, saved = _weights(run, checkpoint)
    interface = read_interface(run.path) if is_model_folder(run.path) else None
    if interface is None:
        with closing(environments(config)(1)) as env:
            interface = _interface(env)
    with no_larger_than(file, saved.tensors):
        agent = build_agent(config, interface.spaces)
    put_weights(agent, saved.tensors, file)
    agent.eval()
    return LoadedRun(
        source.run, config, tree, agent, saved.env_steps, saved.checkpoint, list(plugins), trust, interface, run.path
    )


def _interface(env: EnvBase) -> Interface:
    from lightning_wm.envs import observation_layout, spaces

    return Interface(spaces(env), observation_layout(env))


def _weights(run: RunDirectory, checkpoint: str) -> tuple[Path, Weights]:
    """The weights, and the file they are from."""
    if is_model_folder(run.path):
        return run.path / WEIGHTS, read_weights(run.path, checkpoint)
    file, saved = run.load(checkpoint)
    env_steps = saved["lightning_wm"]["ranks"][0]["counters"]["env_steps"]
    return file, Weights(saved["state_dict"], env_steps, checkpoint)


def planner_config(loaded: LoadedRun, name: str, fields: Mapping[str, Any]) -> Any:
    """The settings of a planner for a run: the run's own, or the shipped ones, with `fields` on top.

    Raises:
        UserError: there is no such planner, or it has no such field.
    """
    own = loaded.tree["planner"]
    if own.get("name") != name:
        shipped = group_file("planner", name)
        own = configuration.read_tree(shipped) if shipped is not None else {"name": name}
    tree = {**loaded.tree, "planner": laid(own, fields)}
    plugins = [*loaded.plugins, *loaded.config.plugins] if loaded.trust else loaded.plugins
    return judged_alike(configuration.from_tree(tree, plugins, loaded.trust).planner, loaded.config.planner)


@settled()
def load_actor(
    run: Path | str,
    planner: str | None = None,
    checkpoint: str = "last",
    seed: int = 0,
    plugins: Sequence[str] = (),
    trust: bool = False,
    fields: Mapping[str, Any] | None = None,
) -> Actor:
    """What plays, from a run directory or a model folder, for a loop of your own.

    Args:
        run: the run directory or model folder, `zoo:NAME` or `hub:USER/NAME`.
        planner: a planner's name; None for the run's own.
        checkpoint: `last` or `best`; a model folder has one of them, and `last` takes either.
        seed: of the planner's draws.
        plugins: modules to import first.
        trust: import the plugins that the run's config.yaml names.
        fields: of the planner, on top of its settings: `{"candidates": 4, "objective": {"value_doubt": 0}}`.

    Returns:
        A `protocols.Actor`: `actor.reset()`, then `actor.act(observation)` at every decision; every action is to be
        held for the run's `task.action_repeat` env steps. It takes the state vector, or what the task's own simulator
        shows: `time_step.observation` of dm_control, the observation of a Gymnasium environment.

    Raises:
        UserError: it is neither, or it is damaged.
    """
    loaded = load_run(run, checkpoint, plugins, trust)
    settings = planner_config(loaded, planner or loaded.config.planner.name, fields or {})
    actor = loaded.agent.actor(build("planner", settings), seed=seed)
    if isinstance(actor, WorldModelActor):
        actor.intake.layout = loaded.interface.layout
    return actor
