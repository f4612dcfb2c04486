"""What the README shows is what runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_lightning_alone_is_short_and_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = [block for block in BLOCKS if "trainer.fit" in block]
    assert len([line for line in block.splitlines() if line.strip()]) < 25
    smaller = {"seed_episodes=5": "seed_episodes=1", "env_steps=20_000": "env_steps=2_000"}
    smaller |= {"limit_train_batches=100": 'limit_train_batches=2, accelerator="cpu", logger=False'}
    for shown, run in smaller.items():
        assert shown in block
        block = block.replace(shown, run)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})
    assert re.search(r"2000 env steps: return \d+", capsys.readouterr().out)


def test_a_trained_run_as_an_actor(trained: Path) -> None:
    from lightning_wm.config import ObservationConfig, TaskConfig
    from lightning_wm.envs import make_env

    (block,) = [block for block in BLOCKS if "load_actor" in block]
    env = make_env(TaskConfig("dmc/cartpole_swingup", 8), ObservationConfig())
    names = {"observation": env.reset(seeds=[0])[0]}
    exec(compile(block.replace("runs/mine", str(trained)), "README.md", "exec"), names)
    action = names["action"]
    assert action.shape == (1,)
    assert action.abs().max() <= 1


def test_the_commands_it_names_exist() -> None:
    for module in set(re.findall(r"python -m (lightning_wm\.\w+)", README)):
        place = Path(__file__).parent.parent / module.replace(".", "/")
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file(), module
