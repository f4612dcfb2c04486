"""Makes `tests/golden/format-N`: a run, its model folder, and what they do, for later versions to read.

    python -m tests.golden.make

Once for every format; a folder that is there is never made again.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch

from lightning_wm import load_actor
from lightning_wm.data.replay import Replay
from lightning_wm.export import main as export
from lightning_wm.fit import main as fit
from lightning_wm.protocols import Spaces
from lightning_wm.runs.untrusted import FORMAT

OBSERVATION = [0.1, -0.9, 0.3, -0.2, 0.5]
"""Of cartpole: position, cosine, sine, two velocities."""
TINY = [
    "recipe=quickstart",
    "smoke=true",
    "model.deter=4",
    "model.stoch=2",
    "model.hidden=4",
    "model.units=4",
    "model.layers=1",
    "model.continue_head=false",
    # More is written than counts.
    "replay.capacity=40",
    "replay.length=8",
    "evaluation.every=0",
    "evaluation.video=false",
    "evaluation.final_episodes=2",
    "logging.tensorboard=false",
    "logging.progress=false",
]


def main() -> int:
    """Write the folder; returns an exit code."""
    target = Path(__file__).parent / f"format-{FORMAT}"
    if target.exists():
        print(f"{target} is there already; raise FORMAT first", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        run, model = Path(folder) / "run", Path(folder) / "model"
        assert fit([*TINY, f"run={run}"]) == 0
        assert export([f"run={run}", f"out={model}"]) == 0
        (target / "run" / "checkpoints").mkdir(parents=True)
        shutil.copy(run / "config.yaml", target / "run")
        newest = sorted((run / "checkpoints").glob("turn-*.ckpt"))[-1]
        shutil.copy(newest, target / "run" / "checkpoints")
        shutil.copytree(run / "replay", target / "run" / "replay")
        shutil.copytree(run / "evaluations", target / "run" / "evaluations")
        shutil.copytree(model, target / "model")
    (target / "expected.json").write_text(json.dumps(expected(target), indent=2) + "\n")
    return 0


def expected(target: Path) -> dict[str, object]:
    """What the files of this version do."""
    actor = load_actor(target / "run")
    actor.reset()
    action = actor.act({"observation": torch.tensor(OBSERVATION)})
    replay = Replay.create(target / "run" / "replay" / "rank0", Spaces(action=1, observation=5), 40)
    return {
        "observation": OBSERVATION,
        "action": action.tolist(),
        "transitions": replay.transitions,
        "episodes": replay.episodes,
        "digest": replay.digest(),
        "env_steps": 480,
    }


if __name__ == "__main__":
    raise SystemExit(main())
