"""Soft actor-critic: its numbers by hand, a problem whose optimum is known, and the circle that serves every agent."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from lightning_wm import load_actor, rng
from lightning_wm.agents.sac import SAC
from lightning_wm.agents.soft_actor_critic import SACConfig
from lightning_wm.config import shipped
from lightning_wm.config.load import load
from lightning_wm.errors import NumericsError, UserError
from lightning_wm.evaluate import main as evaluate
from lightning_wm.export import main as export
from lightning_wm.fit import main as fit
from lightning_wm.models.losses import summed
from lightning_wm.planners.policy import PolicyOnly
from lightning_wm.planning.policy_rollouts import mode
from lightning_wm.protocols import Spaces
from lightning_wm.runs.checkpoint import load_checkpoint
from lightning_wm.runs.directory import RunDirectory
from lightning_wm.training.experiment import build_agent
from tests.conftest import TINY
from tests.test_guard import Watch, equal

SPACES = Spaces(action=2, observation=3)
RUN = [*TINY, "agent=sac", "agent.units=8", "evaluation.video=false"]
TASKS = [name for name in shipped.names() if name.startswith(("state/", "sparse/", "dense/"))]


def agent(spaces: Spaces = SPACES, **fields: object) -> SAC:
    with rng.scope(0, "init"):
        return SAC(SACConfig(**{"units": 8, **fields}), spaces)


def batch(rows: int = 6, steps: int = 1, terminated: bool = False) -> TensorDict:
    draw = torch.Generator().manual_seed(1)
    ended = torch.full((rows, 1), terminated)
    following = {
        "observation": torch.randn(rows, 3, generator=draw),
        "reward": torch.randn(rows, 1, generator=draw),
        "terminated": ended,
        "done": ended,
    }
    return TensorDict(
        {
            "observation": torch.randn(rows, 3, generator=draw),
            "action": torch.rand(rows, 2, generator=draw) * 2 - 1,
            "next": TensorDict(following, [rows]),
            "steps_to_next_obs": torch.full((rows, 1), steps),
        },
        [rows],
    )


def constant(sac: SAC, q: tuple[float, float], slow: tuple[float, float]) -> None:
    """Critics that say the same everywhere, and a policy whose Normal has mean 0."""
    for params, values in ((sac.loss.qvalue_network_params, q), (sac.loss.target_qvalue_network_params, slow)):
        for name, leaf in params.items(True, True):
            leaf.data.zero_()
            if name[-2:] == ("4", "bias"):
                leaf.data.copy_(torch.tensor(values)[:, None])


@pytest.mark.parametrize(("steps", "terminated"), [(1, False), (3, False), (3, True)])
def test_the_critics_learn_the_soft_target(steps: int, terminated: bool) -> None:
    sac, rows = agent(temperature=0.2, discount=0.5), batch(steps=steps, terminated=terminated)
    constant(sac, (1.0, 4.0), (3.0, 5.0))
    with rng.scope(0, "model", 0, 0):  # the same draws as in the update
        following = sac._policy_of({"observation": rows["next", "observation"]})
        log_pi = following.log_prob(following.rsample()).detach()
    target = rows["next", "reward"][:, 0] + (not terminated) * 0.5**steps * (3.0 - 0.2 * log_pi)
    expected = ((1.0 - target).square() + (4.0 - target).square()).mean()
    with rng.scope(0, "model", 0, 0):
        measured = sac.loss(rows.copy())
    torch.testing.assert_close(measured["loss_qvalue"], expected, rtol=1e-5, atol=1e-6)


def gradients(sac: SAC, loss: Callable[[dict[str, Tensor]], Tensor]) -> dict[str, list[Tensor | None]]:
    sac.zero_grad()
    measured = sac.measure(batch(), 0)
    loss(measured).backward()
    return {name: [None if p.grad is None else p.grad.clone() for p in part] for name, part in sac.groups().items()}


@pytest.mark.parametrize("part", ["actor", "critic", "temperature"])
def test_the_parts_are_separate(part: str) -> None:
    sac = agent()
    together, alone = gradients(sac, summed), gradients(sac, lambda measured: measured[f"loss/{part}"])
    for one, other in zip(together[part], alone[part], strict=True):
        assert one is not None
        assert other is not None
        torch.testing.assert_close(one, other)
    for name in set(together) - {part}:
        assert all(grad is None or not grad.any() for grad in alone[name])


@pytest.mark.parametrize(("asked", "target"), [(None, -2.0), (-5.0, -5.0)])
def test_the_temperatures_regulator(asked: float | None, target: float) -> None:
    sac = agent(target_entropy=asked, temperature=0.2)
    measured = sac.measure(batch(), 0)
    # -log(alpha) (log pi + target), with log pi = -entropy
    expected = -math.log(0.2) * (target - float(measured["policy/entropy"]))
    assert float(measured["loss/temperature"].detach()) == pytest.approx(expected, rel=1e-5)


def test_the_slow_critics_follow() -> None:
    sac = agent(tau=0.25)
    constant(sac, (1.0, 4.0), (3.0, 5.0))
    sac.follow.step()
    bias = sac.loss.target_qvalue_network_params["module", "4", "bias"]
    assert bias.flatten().tolist() == pytest.approx([0.75 * 3 + 0.25 * 1, 0.75 * 5 + 0.25 * 4])


class Batches:
    """Four batches, of which some cannot be learned from."""

    def __init__(self, *bad: int) -> None:
        self.bad = bad

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[TensorDict]:
        for number in range(4):
            rows = batch()
            rows["next", "reward"][0] = math.nan if number in self.bad else 1.0
            yield rows


def learn(sac: SAC, batches: Batches, folder: Path, *callbacks: pl.Callback, every: int = 1) -> None:
    """Four updates in a Trainer that logs every so many."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(many workers|val_dataloader|validation_step).*")
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=1, limit_val_batches=0, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, callbacks=list(callbacks), default_root_dir=folder,
            log_every_n_steps=every,
        )  # fmt: skip
        trainer.fit(sac, batches)


def test_what_is_not_finite_in_transitions_is_named(tmp_path: Path) -> None:
    """Their batches are nested."""
    with pytest.raises(NumericsError, match=r"3 updates in a row .* bad tensor is batch/next/reward; its batch is"):
        learn(agent(), Batches(1, 2, 3), tmp_path)
    assert (tmp_path / "bad_batch-rank0.pt").is_file()


def test_a_trainer_may_log_nothing(tmp_path: Path) -> None:
    sac = agent()
    learn(sac, Batches(), tmp_path, every=0)
    assert sac.global_step == 4


def test_a_skipped_update_moves_no_slow_critic(tmp_path: Path) -> None:
    sac, watch = agent(tau=0.5), Watch()
    learn(sac, Batches(2), tmp_path, watch)
    assert sac.guard.skipped == 1
    states = [state["agent"] for state in watch.states]
    assert equal(states[1], states[2])
    slow, fast = "loss.target_qvalue_network_params.module.4.bias", "loss.qvalue_network_params.module.4.bias"
    for before, after in ((states[0], states[1]), (states[2], states[3])):
        torch.testing.assert_close(after[slow], (before[slow] + after[fast]) / 2)


def test_it_finds_the_best_arm() -> None:
    """One decision, reward -(a - 0.5)^2: almost without entropy the policy's mode goes to 0.5."""
    spaces = Spaces(action=1, observation=1)
    sac = agent(spaces, units=32, temperature=1e-3, target_entropy=-3.0, learning_rate=3e-3)
    optimiser = torch.optim.Adam([p for part in sac.groups().values() for p in part], lr=3e-3)
    draw, seen, ended = torch.Generator().manual_seed(0), torch.ones(64, 1), torch.ones(64, 1, dtype=torch.bool)
    with rng.scope(0, "model"):
        for _ in range(300):
            action = torch.rand(64, 1, generator=draw) * 2 - 1
            reward = -(action - 0.5).square()
            following = TensorDict({"observation": seen, "reward": reward, "terminated": ended, "done": ended}, [64])
            rows = {"observation": seen, "action": action, "next": following}
            measured = sac.loss(TensorDict(rows, [64]))
            optimiser.zero_grad()
            (measured["loss_actor"] + measured["loss_qvalue"] + measured["loss_alpha"]).backward()
            optimiser.step()
            sac.follow.step()
    assert float(mode(sac._policy_of({"observation": seen[:1]})).detach()) == pytest.approx(0.5, abs=0.1)


# ---- the circle


def weights(run: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = load_checkpoint(RunDirectory(run).checkpoint("last"))["state_dict"]
    return state


def test_it_goes_on_exactly_and_is_served_as_all_others_are(tmp_path: Path) -> None:
    whole, resumed, folder = tmp_path / "whole", tmp_path / "resumed", tmp_path / "model"
    how = [*RUN, "agent.norm=true", "agent.actor_norm=true", "agent.steps=3"]
    assert fit([*how, f"run={whole}"]) == 0
    end = load([*RUN]).config.env_steps
    for env_steps in (end - 160, end):
        assert fit([*how, f"run={resumed}", f"env_steps={env_steps}"]) == 0
    ours, theirs = weights(resumed), weights(whole)
    assert any("target_qvalue" in name for name in theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert evaluate([f"run={whole}", "episodes=2", "environments=2"]) == 0
    assert export([f"run={whole}", f"out={folder}"]) == 0
    seen = {"observation": torch.zeros(3, 5)}
    one, other = load_actor(whole).act(seen), load_actor(folder).act(seen)
    assert one.shape == (3, 1)
    assert torch.equal(one, other)
    assert evaluate([f"run={whole}", "planner=cem", "episodes=1"]) != 0


@pytest.mark.parametrize("recipe", TASKS)
def test_every_recipe_takes_it_as_it_is(recipe: str) -> None:
    config = load([f"recipe={recipe}", "observation=state", "agent=sac"]).config
    assert isinstance(build_agent(config, SPACES), SAC)
    assert (config.planner.name, config.replay.batch, config.rollout.execute) == ("policy", 256, "sample")
    typed = load([f"recipe={recipe}", "agent=sac", "replay.batch=64", "planner=cem"]).config
    assert (typed.planner.name, typed.replay.batch) == ("cem", 64)


def test_what_it_refuses() -> None:
    with pytest.raises(UserError, match="type observation=state"):
        agent(Spaces(action=2, pixels=(3, 64, 64)))
    config = load(["recipe=state/walker_walk", "agent=sac", "agent.steps=501"]).config
    with pytest.raises(UserError, match=r"agent\.steps=501: an episode has 500 agent steps"):
        build_agent(config, SPACES)
    with pytest.raises(UserError, match="type planner=policy"):
        agent().actor(None)
    longer = PolicyOnly(PolicyOnly.Config(horizon=2))
    with pytest.raises(UserError, match=r"planner\.horizon=2.*type planner=policy"):
        agent().actor(longer)
