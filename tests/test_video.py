"""Films while a run learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import pytest
from torchrl.envs import EnvBase

from lightning_wm.envs import rendering_problem
from lightning_wm.fit import main as fit
from lightning_wm.training import video
from tests.conftest import TINY


@pytest.mark.skipif(rendering_problem() is not None, reason="this machine cannot draw")
def test_the_callback_plays_for_nobody_but_the_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filmed: list[EnvBase] = []
    real = video.film

    def watched(env: EnvBase, *rest: Any) -> Any:
        filmed.append(env)
        return real(env, *rest)

    monkeypatch.setattr(video, "film", watched)
    few = ["callbacks.video.every=240", "evaluation.video=false", "evaluation.environments=2", "evaluation.episodes=2"]
    assert fit([*TINY, *few, f"run={tmp_path / 'run'}"]) == 0
    assert {env.batch_size[0] for env in filmed} == {1}
    assert all(env.is_closed for env in filmed)
    films = sorted((tmp_path / "run" / "videos").glob("*.mp4"))
    assert len(films) == len(filmed) > 0
    assert sum(1 for _ in imageio.imiter(films[0])) > 1
