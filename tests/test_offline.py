"""Learning from a dataset: no environment, no rollout, and what docs/extend.md shows is what runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from lightning_wm.data import Replay, episode
from lightning_wm.errors import UserError
from lightning_wm.protocols import Spaces
from tests.test_replay import STATE

PAGE = (Path(__file__).parent.parent / "docs" / "extend.md").read_text()


class Losses(pl.Callback):
    """Every update's loss."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *args: Any) -> None:
        self.seen.append(float(outputs["loss"]))


def test_planet_learns_from_a_replay_that_was_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = [code for code in re.findall(r"python\n(.*?)```", PAGE, re.DOTALL) if "extend(episode(" in code]
    losses = Losses()
    quiet = "logger=False, enable_progress_bar=False, enable_model_summary=False"
    smaller = {
        "RSSM(spaces=spaces)": "RSSM(RSSMConfig(deter=16, hidden=16, units=16, layers=1), spaces)",
        "import RSSM": "import RSSM, GradMPC",
        "updates=100)": "updates=10)",
        "length=50": "length=10",
        "max_epochs=100": f'max_epochs=6, accelerator="cpu", callbacks=[losses], {quiet}',
    }
    for printed, run in smaller.items():
        assert printed in block
        block = block.replace(printed, run)
    monkeypatch.chdir(tmp_path)
    np.random.seed(0)
    torch.manual_seed(0)
    scope: dict[str, Any] = {"losses": losses}
    exec("from lightning_wm.models.rssm import RSSMConfig\n" + block, scope)
    assert len(losses.seen) == 60
    assert np.mean(losses.seen[-10:]) < 0.9 * np.mean(losses.seen[:10])
    replay = Replay.create(tmp_path / "offline" / "rank0", Spaces(action=1, observation=2), 100_000)
    assert (replay.episodes, replay.transitions) == (20, 20 * 101)
    actor = scope["agent"].actor(scope["GradMPC"]())
    actor.reset()
    assert actor.act({"observation": torch.zeros(2)}).abs().max() <= 1


def test_an_episode_from_arrays() -> None:
    made = episode([[0.5, -1.0], [0.25, 1.0]], [1.0, 2.0], [[0, 0, 0], [1, 1, 1], [2, 2, 2]], terminated=True)
    assert made["action"].tolist() == [[0.0, 0.0], [0.5, -1.0], [0.25, 1.0]]
    assert made["reward"].tolist() == [[0.0], [1.0], [2.0]]
    assert made["observation"].tolist() == [[0.0] * 3, [1.0] * 3, [2.0] * 3]
    assert made["is_init"].tolist() == [[True], [False], [False]]
    assert made["terminated"].tolist() == [[False], [False], [True]]
    Replay.create(None, STATE, 10).extend(made)
    pictures = np.zeros((3, 3, 8, 8), np.uint8)
    both = episode(np.zeros((2, 1)), np.zeros(2), np.zeros((3, 2)), pictures)
    Replay.create(None, Spaces(action=1, observation=2, pixels=(3, 8, 8)), 10).extend(both)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rewards": [1.0]}, "2 actions has 2 rewards, 3 observations and pixels; rewards has 1"),
        ({"observation": np.zeros((2, 3))}, "observation has 2"),
        ({"actions": [[0.0, 0.0], [2.5, 0.0]]}, r"actions lie in \[-1, 1\], got 2.5; divide them"),
        ({"actions": [[0.0, 0.0], [np.nan, 0.0]]}, r"actions lie in \[-1, 1\], got nan"),
    ],
)
def test_arrays_that_are_no_episode(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"actions": np.zeros((2, 2)), "rewards": np.zeros(2), "observation": np.zeros((3, 3))}
    with pytest.raises(UserError, match=message):
        episode(**{**given, **change})
