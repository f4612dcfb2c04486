"""The first lines of a run: at once what was asked for, a few seconds later what it is made of."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_wm.config import Loaded, recipe_names
from lightning_wm.console.clock import clock
from lightning_wm.console.pace import Pace
from lightning_wm.runs.identity import run_directory
from lightning_wm.runs.metrics import tail

if TYPE_CHECKING:
    from lightning_wm.training.experiment import Experiment

SEEN = {"state": "state vectors", "pixels": "pixels", "both": "pixels and state vectors"}


_NAME = re.compile(r"(.+)-s\d+(-[0-9a-f]{8})?")


class Banner:
    """What a person reads while the rest is being imported; each half once, on standard error."""

    def __init__(self) -> None:
        self._begun = False

    def begin(self, loaded: Loaded) -> None:
        """Run directory, task, planner and budget; imports no torch."""
        config = loaded.config
        if self._begun or not config.logging.progress:
            return
        self._begun = True
        run, about = run_directory(loaded), dict(recipe_names()).get(config.recipe or "")
        goes_on = " (goes on)" if (run / "config.yaml").is_file() else ""
        repeat = config.task.action_repeat
        held = "env step" if repeat == 1 else f"{repeat} env steps"
        _say("run", f"{run}{goes_on}")
        if about:
            _say("recipe", f"{config.recipe}: {about}")
        _say("task", f"{config.task.name} from {SEEN[config.observation.kind]}, an action every {held}")
        _say("agent", f"{config.agent.name} with {config.model.name}, collects with {config.planner.name}")
        _say("budget", f"{config.env_steps:,} env steps, seed {config.seed}")

    def built(self, experiment: Experiment) -> None:
        """Parameters, device and the expected duration."""
        import torch

        if not self._begun:
            return
        trainer, config = experiment.trainer, experiment.config
        count = sum(value.numel() for value in experiment.agent.parameters() if value.requires_grad)
        device, threads = trainer.strategy.root_device, torch.get_num_threads()
        where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {threads} of torch's threads"
        ranks = f"{config.trainer.devices} ranks, " if config.trainer.devices > 1 else ""
        _say("model", f"{count:,} parameters, {ranks}{where}, {config.trainer.precision}")
        _say("expected", expected(experiment.run.path, config.env_steps) or _estimated(experiment))


def _estimated(experiment: Experiment) -> str:
    """In words, where there is no turn yet to go by."""
    from lightning_wm.console.estimate import estimate

    try:
        seconds = estimate(experiment)
    except Exception:  # an agent or environment of a plugin that cannot be tried out; the run itself will say why
        seconds = None
    unknown = "known when the first turn has ended"
    return unknown if seconds is None else f"about {clock(seconds)}, from one decision and one update; better {unknown}"


def expected(run: Path, budget: int) -> str | None:
    """How long a run takes in words: from its own last turns, else from those of a run beside it, another seed's.

    None before a turn of any of them has ended.
    """
    for other in (run, *_beside(run)):
        rows, pace = tail(other / "metrics.jsonl"), Pace()
        pace.remember(rows)
        done = rows[-1]["env_steps"] if rows else 0
        left = pace.left(0.0, budget if other == run else budget + done)
        if left is not None:
            return f"{clock(left)} more" if other == run else f"{clock(left)}, at the pace of {other}"
    return None


def _beside(run: Path) -> list[Path]:
    """Runs of other seeds, by the names that `run_directory` gives them."""
    own = _NAME.fullmatch(run.name)
    others = ((path, _NAME.fullmatch(path.name)) for path in run.parent.glob("*-s*"))
    alike = (path for path, name in others if own and name and path != run and name.groups() == own.groups())
    return sorted(alike)


def _say(name: str, value: str) -> None:
    print(f"{name:>9}  {value}", file=sys.stderr, flush=True)
