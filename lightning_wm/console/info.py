"""What to paste into a bug report: `lightning_wm info`."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lightning_wm import __version__
from lightning_wm.console.command import command

USAGE = "lightning_wm info\n\nVersions, drawing and devices, to paste into a bug report."
OPTIONAL = ("gymnasium", "tensorboard", "wandb", "trackio", "ray")
VARIABLES = ("MUJOCO_GL", "PYOPENGL_PLATFORM", "MUJOCO_EGL_DEVICE_ID", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")


@command(lambda _: USAGE)
def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    for name, value in lines():
        print(f"{name:20} {value}")
    return 0


def lines() -> Iterator[tuple[str, str]]:
    """Names and values; no path of this machine but the Python's own version, no user and no host."""
    set_here = [
        f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ
    ]  # before anything changes them
    import torch

    from lightning_wm.envs import rendering_problem
    from lightning_wm.runs.directory import TOP, environment, revision

    yield "lightning_wm", f"{__version__} {revision(TOP) or 'installed, no checkout'}"
    yield "python", f"{sys.version.split()[0]} on {platform.platform()}"
    for name, number in environment()["versions"].items():
        if name != "python":
            yield name, number or "missing"
    for name in OPTIONAL:
        yield name, _version(name)
    problem = rendering_problem()
    yield "drawing", problem or f"works with MUJOCO_GL={os.environ.get('MUJOCO_GL', 'glfw')}"
    yield "processor", f"{processor()}, {len(os.sched_getaffinity(0))} cores, torch uses {torch.get_num_threads()}"
    yield "GPUs", _gpus()
    yield "variables", " ".join(set_here) or "none of ours is set"


def processor() -> str:
    """The processor's name, from Linux where it says so."""
    listed = Path("/proc/cpuinfo")
    rows = listed.read_text().splitlines() if listed.exists() else []
    names = [line.partition(":")[2].strip() for line in rows if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _gpus() -> str:
    import torch

    built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
    if not torch.cuda.is_available():
        return f"none that torch sees; {built}"
    every = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return ", ".join(f"{each.name} ({each.total_memory / 2**30:.0f} GiB)" for each in every) + f"; {built}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
