"""The Dreamer agent: learns behaviour, leaves the world model alone, and refuses what it cannot do."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_wm import config as configuration
from lightning_wm import rng
from lightning_wm.agents.dreamer import Dreamer, DreamerConfig
from lightning_wm.errors import UserError
from lightning_wm.evaluate import main as evaluate
from lightning_wm.fit import main as fit
from lightning_wm.models.behaviour import ActorConfig, CriticConfig
from lightning_wm.planners.cem import CEM
from lightning_wm.planners.policy import PolicyOnly
from lightning_wm.protocols import Spaces, State, Trajectory
from tests.worlds import Outside, experience, total, world

SPACES = Spaces(action=2, observation=3)
SMALL = DreamerConfig(
    actor=ActorConfig(units=8), critic=CriticConfig(units=8, bins=11, bin_limit=8.0), imagination=4, imagine_starts=6
)


class Alone(Outside, Dreamer):  # type: ignore[misc]
    """Outside a Trainer."""


def dreamer(config: DreamerConfig = SMALL, model: Any = None, **fields: Any) -> Alone:
    torch.manual_seed(0)
    return Alone(config, model if model is not None else world(SPACES, **fields))


def gradients(module: nn.Module) -> list[Tensor | None]:
    return [p.grad for p in module.parameters()]


@pytest.mark.parametrize("gradient", ["dynamics", "reinforce"])
def test_behaviour_leaves_the_world_models_gradients_as_they_are(gradient: str) -> None:
    batch = experience(SPACES, 3, 7)
    agent, alone = dreamer(replace(SMALL, gradient=gradient)), dreamer()
    agent.training_step(batch, 0).backward()
    _, measured = alone.model.observe(batch, generator=rng.generator(0, "model", 0, 0))
    total(measured).backward()
    for ours, theirs in zip(gradients(agent.model), gradients(alone.model), strict=True):
        assert ours is not None
        assert theirs is not None
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert all(grad is not None and bool(grad.isfinite().all()) for grad in gradients(agent.policy))
    assert all(grad is not None for grad in gradients(agent.critics))
    assert gradients(agent.slow) == [None] * len(gradients(agent.slow))


class Step(nn.Module):
    """An update as Lightning runs it under DDP: through `forward`."""

    def __init__(self, agent: Alone) -> None:
        super().__init__()
        self.agent = agent

    def forward(self, batch: Any) -> Tensor:
        return self.agent.training_step(batch, 0)


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    batch, found = experience(SPACES, 3, 7, seed=rank), []
    for behave in (True, False):
        agent = dreamer()
        if not behave:
            agent.behave = lambda states, batch: {}  # type: ignore[method-assign]
        wrapped = nn.parallel.DistributedDataParallel(Step(agent), find_unused_parameters=not behave)
        wrapped(batch).backward()
        found.append(agent)
    for ours, theirs in zip(gradients(found[0].model), gradients(found[1].model), strict=True):
        assert ours is not None
        assert theirs is not None
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
    mine = torch.cat([p.grad.flatten() for p in found[0].policy.parameters() if p.grad is not None])
    other = mine.clone()
    torch.distributed.broadcast(other, 0)
    torch.testing.assert_close(mine, other, rtol=0, atol=0)
    scale = found[0].behaviour.spread.scale().clone()
    torch.distributed.broadcast(scale, 0)
    torch.testing.assert_close(scale, found[0].behaviour.spread.scale(), rtol=0, atol=0)
    del wrapped  # as the group's last owner it would wait for gloo's thread while it holds the lock that this one needs
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_behaviour_leaves_the_world_models_gradients_as_they_are_on_two_ranks(tmp_path: Path) -> None:
    """With every rank's own batch and one gradient for all."""
    torch.multiprocessing.spawn(_rank, (str(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call]


def test_the_critics_target_is_stopped() -> None:
    """The critics' gradient is that of the cross-entropy to a constant."""
    agent = dreamer(replace(SMALL, critic=replace(SMALL.critic, bootstrap="online")))
    with torch.no_grad():
        for parameter in agent.critics.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    states, _ = agent.model.observe(experience(SPACES, 3, 7))
    start = {name: value.detach()[:6] for name, value in states.items()}
    seen: dict[str, Tensor] = {}
    inner = agent.behaviour.returns

    def spy(*args: Any) -> Any:
        found = inner(*args)
        seen["features"], seen["target"] = args[1].features[:-1].detach(), found[0].detach()
        return found

    agent.behaviour.returns = spy  # type: ignore[method-assign]
    losses = agent.behaviour.losses(agent.model, start, torch.ones(6), torch.Generator().manual_seed(0))
    ours = torch.autograd.grad(losses["loss/critic"], list(agent.critics.parameters()), retain_graph=True)
    weight = torch.tensor([(0.99**k) for k in range(4)])  # times the continuation, which is learned
    assert weight[0] == 1
    nats = agent.critics.loss(seen["features"].flatten(0, 1), seen["target"].flatten()).unflatten(0, (4, 6))
    with torch.no_grad():
        later = seen["features"][1:].flatten(0, 1)
        flat = {"deter": later[:, :12], "stoch": later[:, 12:]}
        goes_on = agent.model.continues(flat).view(3, 6)
    survive = torch.cat([torch.ones(1, 6), (0.99 * goes_on).cumprod(0)])
    theirs = torch.autograd.grad((survive * nats).mean(), list(agent.critics.parameters()))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    for parameter in torch.autograd.grad(losses["loss/actor"], list(agent.critics.parameters()), allow_unused=True):
        assert parameter is None


def test_the_slow_copy_stands_still_after_a_skipped_update() -> None:
    """It has followed these critics already."""
    agent, batch = dreamer(), experience(SPACES, 3, 7)
    with torch.no_grad():
        for parameter in agent.critics.parameters():
            parameter.add_(1.0)
    slow = []
    for streak in (0, 1, 0):
        agent.guard.streak = streak
        agent.training_step(batch, 0)
        slow.append(torch.cat([p.flatten().clone() for p in agent.slow.parameters()]))
    assert torch.equal(slow[0], slow[1])
    assert not torch.equal(slow[1], slow[2])


@pytest.mark.parametrize("gradient", ["dynamics", "reinforce"])
@pytest.mark.parametrize("activation", ["elu", "silu"])
def test_returns_are_float32_under_mixed_precision(gradient: str, activation: str) -> None:
    """ELU's time loop has a backward pass by hand, which knows no mixed precision."""
    agent = dreamer(replace(SMALL, gradient=gradient, imitation=1.0), activation=activation)
    found: list[Tensor] = []
    inner = agent.behaviour.returns

    def spy(*args: Any) -> Any:
        result = inner(*args)
        found.extend(result)
        return result

    agent.behaviour.returns = spy  # type: ignore[method-assign]
    with torch.autocast("cpu", torch.bfloat16):
        loss = agent.training_step(experience(SPACES, 3, 7), 0)
    loss.backward()
    assert [value.dtype for value in (*found, loss)] == [torch.float32] * 4
    assert all(grad is not None and bool(grad.isfinite().all()) for grad in gradients(agent.policy))


def test_ended_episodes_do_not_count() -> None:
    agent, batch = dreamer(), experience(SPACES, 2, 5)
    batch["terminated"][:] = True
    states, _ = agent.model.observe(batch)
    start, alive = agent.starts(states, batch, torch.Generator().manual_seed(0))
    measured = agent.behaviour.losses(agent.model, start, alive, torch.Generator().manual_seed(0))
    assert measured["loss/actor"].item() == 0.0
    assert measured["loss/critic"].item() == 0.0


def test_all_states_are_starts_where_none_is_said() -> None:
    batch = experience(SPACES, 2, 5)
    agent = dreamer(replace(SMALL, imagine_starts=0))
    states, _ = agent.model.observe(batch)
    start, alive = agent.starts(states, batch, torch.Generator().manual_seed(0))
    assert len(alive) == len(start["deter"]) == 10
    assert not start["deter"].requires_grad


class Linear(nn.Module):
    """x' = x + a/2 + noise, reward of a step -(x'^2 + a^2/2): its optimal gain is known."""

    def __init__(self) -> None:
        super().__init__()
        self.spaces = Spaces(action=1, observation=1)
        self.weight = nn.Parameter(torch.tensor(0.5))

    def initial(self, batch: int) -> State:
        return {"x": torch.zeros(batch, 1), "a": torch.zeros(batch, 1)}

    def features(self, state: State) -> Tensor:
        return state["x"]

    def noise(self, shape: Any, generator: torch.Generator) -> Tensor:
        return 0.02 * torch.randn(*shape, 1, generator=generator)

    def imagine(self, state: State, action: Tensor, noise: Tensor | None = None) -> State:
        return {"x": state["x"] + self.weight * action + (0.0 if noise is None else noise), "a": action}

    def reward(self, state: State) -> Tensor:
        return -(state["x"].square() + 0.5 * state["a"].square()).squeeze(-1)

    def continues(self, state: State) -> Tensor:
        return torch.ones_like(state["x"][:, 0])


def optimal_gain(discount: float) -> float:
    """Of a = -K x, by the discounted Riccati recursion; reward counts the state that the action leads to."""
    b, r, cost = 0.5, 0.5, 0.0
    for _ in range(1000):
        ahead = 1.0 + discount * cost  # what a squared state costs once it is reached
        gain = b * ahead / (r + b * b * ahead)
        cost = ahead * (1 - b * gain) ** 2 + r * gain**2
    return gain


@pytest.mark.parametrize(("gradient", "tolerance"), [("dynamics", 0.12), ("reinforce", 0.3)])
def test_a_policy_learned_on_a_known_model_approaches_the_optimal_gain(gradient: str, tolerance: float) -> None:
    config = DreamerConfig(
        actor=ActorConfig(units=32, min_std=0.02, max_std=0.3), critic=CriticConfig(units=32, bin_limit=3.0),
        actor_learning_rate=3e-3, critic_learning_rate=3e-3, imagination=10, gradient=gradient, discount=0.9,
        entropy=1e-5, normalise_returns=False,
    )  # fmt: skip
    agent = dreamer(config, Linear())
    optimiser = torch.optim.Adam([*agent.policy.parameters(), *agent.critics.parameters()], 3e-3)
    draw = torch.Generator().manual_seed(0)
    for _ in range(500):
        start = {"x": torch.rand(64, 1, generator=draw) - 0.5, "a": torch.zeros(64, 1)}
        agent.slow.follow(agent.critics)
        measured = agent.behaviour.losses(agent.model, start, torch.ones(64), draw)
        optimiser.zero_grad()
        (measured["loss/actor"] + measured["loss/critic"]).backward()
        optimiser.step()
    x = torch.tensor([[-0.4], [-0.2], [0.2], [0.4]])
    with torch.no_grad():
        mean, _ = agent.policy.statistics(x)
    gain = -float((mean * x).sum() / x.square().sum())
    assert gain == pytest.approx(optimal_gain(0.9), abs=tolerance)
    assert agent.model.weight.grad is None


def test_imitation_is_the_likelihood_of_the_action_that_was_taken_next() -> None:
    agent, batch = dreamer(replace(SMALL, imitation=1.0)), experience(SPACES, 1, 3)
    batch["is_init"][0, 2] = True  # the last action belongs to another episode
    states, _ = agent.model.observe(batch)
    mean, std = agent.policy.statistics(agent.model.features(states))
    by_hand = -torch.distributions.Normal(mean[0], std[0]).log_prob(batch["action"][0, 1]).sum()
    torch.testing.assert_close(agent.imitated(states, batch), by_hand)


def test_curiosity_needs_an_ensemble_and_raises_the_imagined_return_of_what_explores() -> None:
    with pytest.raises(UserError, match=r"model\.ensemble=5"):
        dreamer(replace(SMALL, disagreement_bonus=1.0))
    returns = []
    for bonus in (1e-9, 1000.0):
        agent, batch = dreamer(replace(SMALL, disagreement_bonus=bonus), ensemble=3), experience(SPACES, 2, 5)
        states, _ = agent.model.observe(batch)
        start, alive = agent.starts(states, batch, torch.Generator().manual_seed(0))
        draw = torch.Generator().manual_seed(0)
        assert agent.explorer is not None
        returns.append(agent.explorer.losses(agent.model, start, alive, draw)["imagined/return"].item())
    assert returns[1] > returns[0]


def test_curiosity_stays_out_of_what_acts_for_reward() -> None:
    """The policy and critics of evaluations learn what they learn without it; collecting explores by others."""
    batch = experience(SPACES, 2, 5)
    plain, curious = (dreamer(replace(SMALL, disagreement_bonus=bonus), ensemble=3) for bonus in (0.0, 1000.0))
    curious.load_state_dict(plain.state_dict(), strict=False)
    for agent in (plain, curious):
        agent.training_step(batch, 0).backward()
    for part in ("policy", "critics"):
        for ours, theirs in zip(gradients(getattr(curious, part)), gradients(getattr(plain, part)), strict=True):
            torch.testing.assert_close(ours, theirs)
    assert all(grad is not None for grad in gradients(curious.explorer.policy))
    with torch.no_grad():  # critics begin at zero everywhere
        for parameter in curious.explorer.critics.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    evaluating, collecting = curious.actor(PolicyOnly()), curious.actor(PolicyOnly(), explore=True)
    assert (len(evaluating.problem.terms), len(collecting.problem.terms)) == (0, 1)
    state = {name: value + 0.3 for name, value in curious.model.initial(4).items()}
    assert torch.equal(evaluating.problem.policy(state).mean, curious._policy_of(state).mean)
    assert not torch.equal(collecting.problem.policy(state).mean, evaluating.problem.policy(state).mean)
    assert not torch.equal(collecting.problem.values(state), evaluating.problem.values(state))
    # The planner's running reward has the bonus that the exploring critics have.
    trajectory = Trajectory(torch.zeros(4, 1, 2), {k: v[None] for k, v in state.items()}, torch.ones(2, 1))
    expected = 1000.0 * curious.model.disagreement(state)
    torch.testing.assert_close(collecting.problem.terms[0](collecting.problem, trajectory), expected)


def test_a_model_without_features_is_refused() -> None:
    class Bare(nn.Module):
        spaces = SPACES

    with pytest.raises(UserError, match="agent=planet"):
        Dreamer(SMALL, Bare())


def test_planners_get_the_policy_and_the_mean_of_the_critics() -> None:
    agent = dreamer(replace(SMALL, critic=replace(SMALL.critic, members=3)))
    problem = agent.actor(PolicyOnly()).problem
    state = agent.model.initial(4)
    assert problem.policy is not None
    assert problem.values is not None
    assert problem.value is not None
    assert problem.values(state).shape == (3, 4)
    torch.testing.assert_close(problem.value(state), problem.values(state).mean(0))
    assert agent.actor(CEM()).problem.policy is not None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"gradient": "both"}, "dynamics, reinforce"),
        ({"discount": 0.0}, "agent.discount=0.0"),
        ({"imagination": 0}, "agent.imagination=0"),
        ({"entropy": -1.0}, "agent.entropy=-1.0"),
        ({"actor_learning_rate": math.nan}, "agent.actor_learning_rate=nan"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DreamerConfig(**fields)


def test_fit_and_evaluate_with_and_without_planning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    common = ["smoke=true", f"run={run}", "evaluation.video=false", "logging.progress=false"]
    assert fit(["recipe=state/cartpole_swingup", *common]) == 0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    learned = [line for line in lines if "train/loss/actor" in line]
    assert learned
    assert all(math.isfinite(line["train/loss/critic"]) for line in learned)
    assert evaluate([f"run={run}", "planner=policy,policy_grad_mpc,dream_mpc,grad_mpc", "episodes=1"]) == 2
    assert "agent.critic.members" in capsys.readouterr().err
    assert evaluate([f"run={run}", "planner=policy,policy_grad_mpc,grad_mpc", "episodes=1"]) == 0
    assert (run / "evaluations" / "eval-240-s20000-policy.json").is_file()


@pytest.mark.parametrize("recipe", [name for name, _ in configuration.recipe_names()])
@pytest.mark.parametrize("agent", ["planet", "dreamer", "dreamer_v1", "dreamer_v3"])
def test_every_recipe_takes_every_agent(recipe: str, agent: str) -> None:
    loaded = configuration.load([f"recipe={recipe}", f"agent={agent}", "smoke=true"])
    assert loaded.config.agent.name == agent.split("_")[0]
