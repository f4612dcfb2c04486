"""The control loop: real models, a real simulator, and nothing that depends on how fast this machine is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lightning_wm import load_actor
from lightning_wm.envs.dmc import suite
from lightning_wm.errors import UserError

CUP = ("ball_in_cup", "catch")


class Robot:
    """A dm_control task that keeps what it showed and what was done."""

    def __init__(self, domain: str, task: str, repeat: int = 1) -> None:
        self.env, self.repeat = suite().load(domain, task, task_kwargs={"random": 1}), repeat
        self.shown: list[Any] = []
        self.done: list[NDArray[np.float32]] = []
        self.step = self.env.reset()

    def observe(self) -> Any:
        self.shown.append({name: np.array(value) for name, value in self.step.observation.items()})
        return self.step.observation

    def send(self, action: NDArray[np.float32]) -> None:
        self.done.append(action.copy())
        for _ in range(self.repeat):
            self.step = self.env.step(action)


def test_without_misses_it_is_the_plain_loop() -> None:
    """The budget is beyond every pause of a busy machine."""
    robot, other = Robot(*CUP), Robot(*CUP)
    report = load_actor("zoo:ball_in_cup_catch").run_at(50, robot.observe, robot.send, decisions=8, budget=600)
    plain = load_actor("zoo:ball_in_cup_catch")
    for _ in range(8):
        other.send(plain.act(other.observe()))
    np.testing.assert_array_equal(robot.done, other.done)
    assert (report.decisions, report.misses, report.held, len(report.latencies)) == (8, 0, 0, 8)
    assert "8 decisions at 50 Hz: 0 missed" in str(report)


def test_a_miss_sends_what_the_newest_plan_goes_on_with() -> None:
    """No budget: every decision is late, so that all actions are zeros, of an older plan, or held."""
    actor = load_actor("zoo:cartpole_swingup")
    robot, plans = Robot("cartpole", "swingup", 8), []
    search = actor.planner.plan

    def plan(*arguments: Any) -> Any:
        plans.append(search(*arguments))
        return plans[-1]

    actor.planner.plan = plan
    report = actor.run_at(4, robot.observe, robot.send, decisions=8, budget=1e-9)
    assert (report.decisions, report.misses) == (8, 8)
    assert len(report.latencies) >= 1, "the machine has planned nothing within two seconds"
    later = [action for made in plans[2:] for action in made["actions"][0, 1:].numpy()]  # two to warm up
    planned = [action for action in robot.done if any(np.array_equal(action, each) for each in later)]
    assert not robot.done[0].any()
    assert len(planned) >= 8 - report.held > 0


def test_the_belief_follows_what_was_really_sent() -> None:
    """Whatever was missed: at the end the model has filtered every observation with the action before it."""
    actor = load_actor("zoo:cartpole_swingup")
    robot = Robot("cartpole", "swingup", 8)
    actor.run_at(20, robot.observe, robot.send, decisions=6, budget=0.01)
    seen = robot.shown[1:]  # the first one was to warm up
    twin = load_actor("zoo:cartpole_swingup")
    for observation, executed in zip(seen, [None, *robot.done], strict=False):
        twin.watch(observation, executed)
        if all(torch.allclose(twin._state[name], actor._state[name], atol=1e-5) for name in twin._state):
            return  # the last decisions may still have waited when the loop ended
    pytest.fail("no prefix of what was seen and sent gives the belief")


def test_after_decisions_of_others_the_plan_before_is_moved_on_by_all_of_them() -> None:
    """Planned once, then three decisions are only watched: what was due one decision later is three older."""
    actor = load_actor("zoo:cartpole_swingup", planner="cem", fields={"horizon": 6, "candidates": 20, "elites": 4})
    robot = Robot("cartpole", "swingup", 8)
    observation = robot.observe()
    actor.act(observation)
    due = next(value for value in actor._memory.exclude("valid").values())[0].clone()
    remembered: list[Any] = []
    plan = actor.planner.plan

    def watched(problem: Any, state: Any, memory: Any, generators: Any) -> Any:
        remembered.append(memory.clone())
        return plan(problem, state, memory, generators)

    actor.planner.plan = watched
    for _ in range(3):
        actor.watch(observation, np.zeros(1))
    actor.act(observation)
    assert remembered[0]["valid"].tolist() == [True]
    moved = next(value for value in remembered[0].exclude("valid").values())[0]
    assert torch.equal(moved, torch.cat([due[3:], torch.zeros(3, 1)]))
    assert due[3:5].any(), "moving zeros shows nothing"


def test_it_ends_when_nothing_more_is_seen() -> None:
    robot = Robot(*CUP)
    report = load_actor("zoo:ball_in_cup_catch").run_at(
        100, lambda: robot.observe() if len(robot.done) < 3 else None, robot.send
    )
    assert report.decisions == 3
    assert load_actor("zoo:ball_in_cup_catch").run_at(100, lambda: None, robot.send).decisions == 0


def test_what_cannot_run_says_so() -> None:
    actor, robot = load_actor("zoo:ball_in_cup_catch"), Robot(*CUP)
    with pytest.raises(UserError, match="hz=0"):
        actor.run_at(0, robot.observe, robot.send)
    with pytest.raises(UserError, match="without a batch"):
        actor.run_at(10, lambda: np.zeros((2, 8)), robot.send)
    seen = iter([np.zeros(8), np.zeros(8), np.full(8, np.nan)])
    with pytest.raises(UserError, match=r"position\[0\] is nan"):
        actor.run_at(10, lambda: next(seen), robot.send, budget=600)
    assert len(robot.done) == 1

    def broken(action: object) -> None:
        raise RuntimeError("the motor is off")

    with pytest.raises(RuntimeError, match="the motor is off"):
        actor.run_at(10, robot.observe, broken)
