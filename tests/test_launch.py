"""Which process of a run this is: its configuration says, a launcher's variables only where they fit it."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightning.fabric.plugins.environments import LightningEnvironment, SLURMEnvironment
from lightning.pytorch.utilities import rank_zero_only

from lightning_wm.errors import UserError
from lightning_wm.fit import main as fit
from lightning_wm.training import launch
from tests.conftest import TINY

VARIABLES = (
    "NODE_RANK", "LOCAL_RANK", "RANK", "WORLD_SIZE", "GROUP_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID",
    "SLURM_NTASKS", "SLURM_PROCID", "SLURM_NTASKS_PER_NODE", "SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_LOCALID",
)  # fmt: skip
TASK_3 = {"SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "3", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "x"}
ELASTIC = {"RANK": "1", "WORLD_SIZE": "2", "GROUP_RANK": "0", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def put(variables: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    for name, value in values.items():
        variables.setenv(name, value)


@pytest.mark.parametrize(
    "values", [TASK_3, {"NODE_RANK": "1"}, {"LOCAL_RANK": "2"}, ELASTIC, {"SLURM_NTASKS": "4", "SLURM_PROCID": "1"}]
)
def test_a_run_of_one_device_owns_its_directory_whatever_launched_it(
    values: dict[str, str], variables: pytest.MonkeyPatch
) -> None:
    put(variables, values)
    assert launch.own_rank(1) == 0


@pytest.mark.parametrize("values", [TASK_3, {"NODE_RANK": "1"}], ids=["srun", "node rank"])
def test_such_a_run_writes_all_its_files(values: dict[str, str], variables: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Lightning took such a process for another rank, whose loggers and progress are silent."""
    put(variables, values)
    variables.setattr(rank_zero_only, "rank", 3)
    assert fit([*TINY, f"run={tmp_path}", "evaluation.video=false"]) == 0
    for name in ("config.yaml", "meta.json", "metrics.jsonl", "evaluations/final.json", "learning_curve.png"):
        assert (tmp_path / name).stat().st_size > 0


def test_ranks_of_one_run_are_told_apart(variables: pytest.MonkeyPatch) -> None:
    """By Lightning's own launcher, by torchrun, and by srun with one task a device."""
    assert launch.own_rank(2) == 0
    variables.setenv("LOCAL_RANK", "1")
    assert launch.own_rank(2) == 1
    assert isinstance(launch.environment(2), LightningEnvironment)
    put(variables, ELASTIC)
    assert launch.own_rank(2) == 1
    put(variables, {**TASK_3, "SLURM_NTASKS_PER_NODE": "4"})
    assert launch.own_rank(4) == 3
    assert isinstance(launch.environment(4), SLURMEnvironment)


@pytest.mark.parametrize(
    ("devices", "values", "typed"),
    [
        (2, TASK_3, "trainer.devices=1"),
        (4, TASK_3, "--ntasks-per-node=4"),  # without tasks per node
        (2, {"NODE_RANK": "1"}, "unset NODE_RANK"),
        (2, {"LOCAL_RANK": "first"}, "unset LOCAL_RANK"),
    ],
)
def test_what_does_not_fit_is_refused(
    devices: int, values: dict[str, str], typed: str, variables: pytest.MonkeyPatch
) -> None:
    put(variables, values)
    with pytest.raises(UserError, match=typed):
        launch.own_rank(devices)
