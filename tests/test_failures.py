"""Environments and actors that fail: the episode is dropped and counted, and nothing of it is learned from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torchrl.envs import StepCounter, TransformedEnv

from lightning_wm.config.schema import ObservationConfig, TaskConfig
from lightning_wm.data.replay import Replay
from lightning_wm.envs import make_env
from lightning_wm.errors import EnvironmentFailure, LightningWMError, NumericsError
from lightning_wm.fit import main as fit
from lightning_wm.playing.episode import measures
from lightning_wm.playing.failures import Failures
from lightning_wm.playing.play import play, play_many
from lightning_wm.playing.random import RandomActor
from lightning_wm.protocols import Spaces
from lightning_wm.training.plots import read_metrics
from tests.conftest import TINY
from tests.faults import Faulty

STATE = ObservationConfig("state")
FAULTS = ("raise", "physics", "reward", "observation")
MESSAGES = {"raise": "RuntimeError: the simulator broke", "physics": "PhysicsError", "reward": "reward is nan"}


@pytest.fixture(autouse=True)
def _from_zero() -> Iterator[None]:
    Faulty.forget()
    yield
    Faulty.forget()


def env(faults: str = "", environments: int = 1, decisions: int = 10) -> Any:
    return make_env(TaskConfig(f"faulty/cartpole_swingup?{faults}", 1, decisions), STATE, environments)


def actor(environments: int, episode: int = 0) -> RandomActor:
    one = RandomActor(1, environments)
    one.episode = episode
    return one


def same(one: Any, other: Any) -> bool:
    return all(bool((one[name] == other[name]).all()) for name in one.keys())  # noqa: SIM118


# ---- one row of many


@pytest.mark.parametrize("fault", FAULTS)
def test_a_row_that_fails_is_restarted_and_the_others_do_not_notice(fault: str) -> None:
    clean = play(env(environments=3), actor(3), [1, 2, 3], keep=True)
    Faulty.forget()
    met: list[LightningWMError] = []
    broken = env(f"{fault}@14", environments=3)  # row 1 at its fifth step
    played = play(broken, actor(3), [1, 2, 3], keep=True, on_failure=met.append)
    assert [episode.row for episode in played] == [0, 2]
    assert same(played[0].transitions, clean[0].transitions)
    assert same(played[1].transitions, clean[2].transitions)
    assert [type(error) for error in met] == [EnvironmentFailure]
    assert "faulty/cartpole_swingup" in str(met[0])
    assert "environment 1 at env step" in str(met[0])
    assert MESSAGES.get(fault, "observation is not finite") in str(met[0])
    assert Faulty.made == 4
    again = play(broken, actor(3), [1, 2, 3], keep=True, on_failure=met.append)
    assert [same(a.transitions, b.transitions) for a, b in zip(again, clean, strict=True)] == [True] * 3
    assert len(met) == 1
    broken.close()


def test_a_row_that_fails_below_a_transform_is_restarted_too() -> None:
    met: list[LightningWMError] = []
    broken = TransformedEnv(env("raise@14", environments=3), StepCounter(20))
    assert [episode.row for episode in play(broken, actor(3), [1, 2, 3], on_failure=met.append)] == [0, 2]
    assert len(met) == 1
    assert broken.base_env.restart is False
    broken.close()


class _Planning(RandomActor):
    """Says that each of its decisions took two environments a millisecond each."""

    def act(self, observation: object = None) -> torch.Tensor:
        self.milliseconds = 1.0
        named = ("score_first", "score_best", "model_steps", "sequential_calls", "fallback")
        self.plan = TensorDict({"stats": TensorDict(dict.fromkeys(named, torch.zeros(2)), [2])}, [2])
        return super().act(observation)


def test_planning_takes_what_it_takes_however_few_still_play() -> None:
    """Row 1 drops out in its third decision; the seven after it are planned for row 0 alone, two milliseconds each."""
    broken = env("raise@6", environments=2)
    (played,) = play(broken, _Planning(1, 2), [1, 2], on_failure=lambda error: None)
    assert played.milliseconds == [1.0] * 10
    assert measures([played])["time/plan"] == pytest.approx((3 * 1.0 + 7 * 2.0) / 1e3)
    broken.close()


def test_an_environment_that_does_not_start() -> None:
    met: list[LightningWMError] = []
    broken = env("reset@2", environments=2)
    played = play(broken, actor(2), [1, 2], keep=True, on_failure=met.append)
    assert [episode.row for episode in played] == [0]
    assert "OSError: the simulator does not start" in str(met[0])
    Faulty.forget()
    assert not play(env("reset@1"), actor(1), [1], on_failure=met.append)
    assert len(met) == 2


def test_without_anybody_to_tell_the_error_comes_through() -> None:
    broken = env("raise@3")
    with pytest.raises(EnvironmentFailure, match=r"at env step 2 .*the simulator broke"):
        play(broken, actor(1), [1])
    assert broken.restart is False
    assert len(play(broken, actor(1), [1])) == 1


def test_an_environment_that_cannot_be_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = env("raise@3")

    def fail(*args: object) -> None:
        raise MemoryError("no memory")

    monkeypatch.setattr("lightning_wm.envs.batched.build", fail)
    with pytest.raises(EnvironmentFailure, match="cannot be made again: no memory"):
        play(broken, actor(1), [1], on_failure=lambda error: None)


class Spoilt(RandomActor):
    """Gives a not-a-number in row 1 at its third decision; remembers which rows were reset."""

    def __init__(self, environments: int) -> None:
        super().__init__(1, environments)
        self.decisions = 0
        self.masks: list[list[bool]] = []

    def reset(self, mask: torch.Tensor | None = None) -> None:
        if mask is not None:
            self.masks.append(mask.tolist())
        super().reset(mask)

    def act(self, observation: Any = None) -> torch.Tensor:
        self.decisions += 1
        action = super().act(observation)
        if self.decisions == 3:
            action[1] = torch.nan
        return action


def test_an_action_that_is_not_finite_reaches_no_simulator() -> None:
    clean = play(env(environments=3), actor(3), [1, 2, 3], keep=True)
    met: list[LightningWMError] = []
    spoilt = Spoilt(3)
    played = play(env(environments=3), spoilt, [1, 2, 3], keep=True, on_failure=met.append)  # Faulty asserts it
    assert [episode.row for episode in played] == [0, 2]
    assert same(played[0].transitions, clean[0].transitions)
    assert same(played[1].transitions, clean[2].transitions)
    assert [type(error) for error in met] == [NumericsError]
    assert "action in environment 1 is not finite: [nan]; expected 1 numbers in [-1, 1]" in str(met[0])
    assert spoilt.masks == [[False, True, False]]
    with pytest.raises(NumericsError, match="environment 1 is not finite"):
        play(env(environments=3), Spoilt(3), [1, 2, 3])


def test_rewards_that_are_infinite_in_float32_are_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = env()
    monkeypatch.setattr(broken.simulators[0], "step", lambda action: (1e300, False, False))
    with pytest.raises(EnvironmentFailure, match=r"the reward is 1e\+300"):
        play(broken, actor(1), [1])


# ---- how many are too many


def test_failures_are_counted_in_a_window(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    failures = Failures(limit=3, window=300.0, clock=lambda: now[0])
    error = EnvironmentFailure("it broke")
    for second in (0, 100, 200, 301, 401):  # never four within 300 s
        now[0] = float(second)
        failures.count(error)
        failures.check()
    now[0] = 500.0  # 200, 301, 401 and now: just so
    failures.count(error)
    with pytest.raises(EnvironmentFailure) as caught:
        failures.check()
    assert str(caught.value) == (
        "4 episodes were dropped within 300 s, the last because it broke; mend that, or type rollout.failures=30 "
        "to survive more"
    )
    assert failures.total == 6
    assert capsys.readouterr().err.count("an episode was dropped and its environment restarted: it broke") == 6


def test_no_failure_may_be_survived() -> None:
    failures = Failures(limit=0)
    failures.check()
    failures.count(NumericsError("no number"))
    with pytest.raises(NumericsError, match="1 episodes were dropped"):
        failures.check()


def test_episodes_of_an_evaluation_are_played_again_as_they_would_have_been() -> None:
    seeds = range(7, 12)
    clean = play_many(env(environments=2), actor(2), seeds)
    Faulty.forget()
    failures = Failures(limit=3)
    played = play_many(env("raise@5&reward@34&reset@8", environments=2), actor(2), seeds, failures=failures)
    assert failures.total == 3
    assert [(e.seed, e.total, e.length) for e in played] == [(e.seed, e.total, e.length) for e in clean]


def test_an_episode_that_always_fails_is_not_tried_for_ever() -> None:
    """Its rounds may take longer than any window."""
    Faulty.forget()
    with pytest.raises(EnvironmentFailure, match="the same episodes were dropped 3 times in a row, the last time beca"):
        play_many(env("chance@1"), actor(1), [7], failures=Failures(limit=2, window=0.0))
    assert Faulty.raised == 3


# ---- whole runs

RUN = [
    *TINY, "plugins=[tests.faults]", "task.action_repeat=1", "task.max_decisions=10", "rollout.env_steps=60",
    "rollout.seed_episodes=6", "rollout.environments=3", "env_steps=300", "evaluation.every=0",
    "evaluation.video=false",
]  # fmt: skip


def test_a_run_whose_environment_raises_20_times_is_complete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    task = "task.name=faulty/cartpole_swingup?chance@0.1"
    assert fit([*RUN, task, f"run={run}", "rollout.failures=50"]) == 0
    assert Faulty.raised == 20
    assert capsys.readouterr().err.count("RuntimeError: the simulator broke") == 20
    lines = read_metrics(run / "metrics.jsonl")
    last, replay = lines[-1], Replay.create(run / "replay" / "rank0", Spaces(action=1, observation=5), 1000)
    saved = torch.load(sorted((run / "checkpoints").glob("turn-*.ckpt"))[-1], weights_only=True)
    counters = saved["lightning_wm"]["ranks"][0]["counters"]
    restarts = max(line.get("rollout/restarts", 0) for line in lines)
    # Rounds of 3 episodes of 10 steps; what was dropped counts for nothing, what was kept is in replay whole.
    assert 300 <= last["env_steps"] < 330
    assert last["env_steps"] == last["agent_steps"] == 10 * last["episodes"] == len(replay) - replay.episodes
    assert replay.episodes == last["episodes"] == counters["episodes"]
    assert restarts == counters["restarts"]
    assert counters["rank_episodes"] == counters["episodes"] + counters["restarts"]
    assert 15 <= restarts <= 20  # the others were the final evaluation's, which plays them again


def test_a_run_whose_environment_keeps_failing_ends_with_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, task = tmp_path / "run", "task.name=faulty/cartpole_swingup?chance@0.1"
    assert fit([*RUN, task, f"run={run}"]) == 4
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert "4 episodes were dropped within 300 s, the last because task faulty/cartpole_swingup" in error
    assert "RuntimeError: the simulator broke; mend that, or type rollout.failures=30" in error
    Faulty.forget()
    assert fit([*RUN, task, f"run={run}", "rollout.failures=50"]) == 0  # as it says, in the same directory


def test_a_run_whose_actions_are_not_finite_goes_on_without_those_episodes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    spoilt = ["planner=faulty_mpc", "planner.bad_actions=[3]", "planner.bad_candidates=true"]
    assert fit([*RUN, *spoilt, "task.name=dmc/cartpole_swingup", f"run={run}"]) == 0
    # Once while collecting and once in the final evaluation, which has a planner of its own and plays on.
    assert capsys.readouterr().err.count("the actor's action in environment 0 is not finite") == 2
    lines = read_metrics(run / "metrics.jsonl")
    last = lines[-1]
    assert max(line.get("rollout/restarts", 0) for line in lines) == 1
    assert last["env_steps"] == 10 * last["episodes"] >= 300
    everywhere = ",".join(map(str, range(1, 100)))
    assert fit([*RUN, "planner=faulty_mpc", f"planner.bad_actions=[{everywhere}]", f"run={run}2",
                "task.name=dmc/cartpole_swingup"]) == 3  # fmt: skip
    assert "4 episodes were dropped within 300 s, the last because the actor's action" in capsys.readouterr().err
