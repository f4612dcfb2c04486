"""Which of a run's processes this is, before they know of each other, and what they are told.

Launchers describe processes by environment variables, and these may describe something else: four runs of one device
under one `srun` are four runs. So what a run is made of follows from its configuration, and a launcher's variables
count only where they fit it.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping
from datetime import timedelta

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, Strategy, StrategyRegistry
from lightning.pytorch.utilities import rank_zero_only

from lightning_wm.config import Config
from lightning_wm.errors import UserError


def own_rank(devices: int, variables: Mapping[str, str] = os.environ) -> int:
    """This process's rank among the `devices` processes of its run; rank 0 owns the run directory.

    Raises:
        UserError: a launcher's variables describe other processes than the run has.
    """
    if devices == 1:
        return 0
    if _by_slurm(devices):
        return _number(variables, "SLURM_PROCID")
    if TorchElasticEnvironment.detect():
        return _number(variables, "RANK")
    if (node := _number(variables, "NODE_RANK")) != 0:
        raise UserError(f"NODE_RANK={node}, but a run has one node; type 'unset NODE_RANK', or trainer.devices=1")
    return _number(variables, "LOCAL_RANK")


def environment(devices: int) -> ClusterEnvironment | None:
    """What Lightning is to know of the launcher; None leaves it to Lightning.

    In a SLURM job it is Lightning's knowledge of SLURM without its way of saving and requeueing.
    """
    if devices == 1:
        # Lightning takes a process for the rank that SLURM or torchrun call it, whoever it trains with.
        rank_zero_only.rank = 0  # type: ignore[attr-defined]
        return LightningEnvironment()
    if _by_slurm(devices):
        return SLURMEnvironment(auto_requeue=False)
    return None if TorchElasticEnvironment.detect() else LightningEnvironment()


def _by_slurm(devices: int) -> bool:
    """Whether `srun` has started this run's processes.

    Raises:
        UserError: it has started several, and not one for each device.
    """
    if not SLURMEnvironment.detect():
        return False
    tasks = _number(os.environ, "SLURM_NTASKS")
    if tasks in (0, 1):
        return False  # this one starts the others
    if tasks != devices or "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise UserError(
            f"trainer.devices={devices} in a SLURM step of {tasks} tasks; expected one task a device on one node: "
            f"type srun --nodes=1 --ntasks-per-node={devices}, or trainer.devices=1 for runs of their own"
        )
    return True


def _number(variables: Mapping[str, str], name: str) -> int:
    text = variables.get(name, "0")
    try:
        return int(text)
    except ValueError as error:
        raise UserError(f"{name}={text}: expected a number; type 'unset {name}'") from error


def strategy(config: Config) -> str | Strategy:
    """Lightning's strategy; ranks wait a day for each other, since rank 0 evaluates while the others stand still."""
    name, several = config.trainer.strategy, config.trainer.devices > 1
    name = "ddp" if several and name == "auto" else name
    if not several or name not in StrategyRegistry.available_strategies():
        return name
    strategy: Strategy = StrategyRegistry.get(name)
    if isinstance(strategy, DDPStrategy):
        strategy._timeout = timedelta(days=1)
    return strategy


def check_devices(config: Config) -> None:
    """Refuse more ranks than the machine can carry.

    Raises:
        UserError: says how many there are.
    """
    wanted, accelerator = config.trainer.devices, config.trainer.accelerator
    gpus = torch.cuda.device_count()
    if accelerator == "auto":
        accelerator = "gpu" if gpus else "cpu"
    if accelerator in ("gpu", "cuda"):
        if wanted > gpus:
            hint = f"trainer.devices={gpus}" if gpus else "trainer.accelerator=cpu"
            raise UserError(f"trainer.devices={wanted}: this machine has {gpus} GPUs; type {hint}")
    elif wanted > (cores := len(os.sched_getaffinity(0))):
        raise UserError(f"trainer.devices={wanted}: this machine has {cores} cores; type trainer.devices={cores}")


def quiet() -> None:
    """Keep Lightning's notices that are of no use to a user of the commands off the screen."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    # Batches are slices of mapped memory, not a DataLoader's; the other is Lightning's own use of torch.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")
    # Updates are counted over all turns, so a turn shorter than the interval between two lines is nothing odd.
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    # An agent without a model predicts nothing that could be validated.
    warnings.filterwarnings("ignore", message=".*but have no `validation_step`.*")
    # Callbacks may change when a run goes on.
    warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint.*")
