"""What holds for every registered world model; a new one is tested by being registered."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_wm import registry, rng
from lightning_wm.models.rssm import RSSM
from lightning_wm.planning import problem_of
from lightning_wm.protocols import Decodes, Spaces, State, Unrolls, WorldModel
from tests.problems import generators
from tests.worlds import experience, model_of, total

VECTOR = Spaces(action=2, observation=3)
IMAGE = Spaces(action=2, pixels=(3, 64, 64))
BOTH = Spaces(action=2, observation=3, pixels=(3, 64, 64))
MODELS = registry.names("model")
every_model = pytest.mark.parametrize("name", MODELS)
RECURRENT = [name for name in MODELS if issubclass(registry.lookup("model", name), RSSM)]
recurrent = pytest.mark.parametrize("name", RECURRENT)
"""Those with a deterministic and a stochastic state that decode what they see."""
WHOLE = [name for name in MODELS if isinstance(model_of(name), Unrolls)]
unrolling = pytest.mark.parametrize("name", WHOLE)
"""Those with a time loop that has a backward pass by hand."""
PLANNERS = [name for name in registry.names("planner") if not registry.lookup("planner", name).needs_policy]


def in_time(states: State, b: int) -> State:
    """`[B*T, ...]` as `[B, T, ...]`."""
    return {name: value.unflatten(0, (b, -1)) for name, value in states.items()}


@pytest.mark.parametrize(
    ("name", "spaces"), [*((n, VECTOR) for n in MODELS), *((n, s) for n in RECURRENT for s in (IMAGE, BOTH))]
)
def test_contract(name: str, spaces: Spaces) -> None:
    model, batch = model_of(name, spaces), experience(spaces, 2, 4)
    assert isinstance(model, WorldModel)
    states, measured = model.observe(batch, generator=rng.generator(0, "model"))
    start = model.initial(8)
    assert {key: value.shape for key, value in states.items()} == {key: value.shape for key, value in start.items()}
    assert all(value.ndim == 0 and value.isfinite() for value in measured.values())
    assert "loss/reward" in measured
    total(measured).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    state = model.filter(model.initial(2), batch["action"][:, 0], batch[:, 0])
    after = model.imagine(state, batch["action"][:, 1], model.noise((2,), rng.generator(0, "model")))
    assert model.reward(after).shape == model.continues(after).shape == (2,)
    assert model.observation_error(after, batch[:, 1]).shape == (2,)
    if name not in RECURRENT:
        assert not isinstance(model, Decodes)
        return
    assert {"loss/reconstruction", "loss/continue", "loss/kl"} <= set(measured)
    decoded = model.decode(after)
    assert {key: value.shape[1:] for key, value in decoded.items()} == {
        key: batch[key].shape[2:] for key in ("observation", "pixels") if key in batch
    }


@every_model
def test_filtering_step_by_step_is_observing(name: str) -> None:
    model, batch = model_of(name).double(), experience(VECTOR, 3, 6, dtype=torch.float64)
    states = in_time(model.observe(batch)[0], 3)
    state = model.initial(3)
    for step in range(6):
        state = model.filter(state, batch["action"][:, step], batch[:, step])
        for key, value in state.items():
            torch.testing.assert_close(value, states[key][:, step])


@every_model
def test_a_reset_inside_a_sequence_forgets_everything_before_it(name: str) -> None:
    model, batch = model_of(name).double(), experience(VECTOR, 2, 8, dtype=torch.float64)
    batch["is_init"][:, 4] = True
    whole = in_time(model.observe(batch)[0], 2)
    alone = in_time(model.observe(batch[:, 4:])[0], 2)
    for key in whole:
        torch.testing.assert_close(whole[key][:, 4:], alone[key])
    batch["observation"][:, :4] += 1.0
    changed = in_time(model.observe(batch)[0], 2)
    for key in whole:
        assert torch.equal(changed[key][:, 4:], whole[key][:, 4:])
    assert any(not torch.equal(changed[key][:, :4], whole[key][:, :4]) for key in whole)


@every_model
def test_the_first_reward_of_an_episode_is_not_learned(name: str) -> None:
    model, batch = model_of(name), experience(VECTOR, 2, 4)
    batch["is_init"][:, 0] = True
    _, before = model.observe(batch)
    batch["reward"][:, 0] = 100.0
    _, after = model.observe(batch)
    assert before["loss/reward"] == after["loss/reward"]


@recurrent
def test_noise_is_all_that_is_random(name: str) -> None:
    model = model_of(name)
    state = {key: torch.randn_like(value) for key, value in model.initial(64).items()}
    action = torch.zeros(64, 2)
    noise = model.noise((64,), rng.generator(0, "model"))
    assert torch.equal(noise, model.noise((64,), rng.generator(0, "model")))
    first, again = (model.imagine(state, action, noise)["stoch"] for _ in range(2))
    other = model.imagine(state, action, model.noise((64,), rng.generator(1, "model")))["stoch"]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, model.imagine(state, action)["stoch"])
    states = [model.observe(experience(VECTOR, 2, 4), generator=rng.generator(0, "model"))[0] for _ in range(2)]
    assert torch.equal(states[0]["stoch"], states[1]["stoch"])


@unrolling
@pytest.mark.parametrize("noisy", [True, False])
def test_unrolling_a_plan_is_imagining_it_step_by_step(name: str, noisy: bool) -> None:
    model, h, m = model_of(name).double(), 5, 3
    assert isinstance(model, Unrolls)
    start = {key: torch.randn_like(value) for key, value in model.initial(m).items()}
    noise = model.noise((h, m), rng.generator(0, "model")).double() if noisy else None
    ways: list[list[Tensor]] = []
    for whole in (True, False):
        actions = torch.linspace(-1, 1, m * h * 2, dtype=torch.float64).view(m, h, 2).requires_grad_()
        if whole:
            states = model.unroll(start, actions, noise)
        else:
            state, steps = start, []
            for step in range(h):
                state = model.imagine(state, actions[:, step], None if noise is None else noise[step])
                steps.append(state)
            states = {key: torch.stack([one[key] for one in steps]) for key in start}
        weight = torch.arange(states["stoch"].shape[-1], dtype=torch.float64).sin()
        score = model.reward({k: v.flatten(0, 1) for k, v in states.items()}).sum() + (states["stoch"] * weight).sum()
        ways.append([*states.values(), torch.autograd.grad(score, actions)[0]])
    for fast, slow in zip(*ways, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-12)
    assert (ways[0][-1] != 0).all()


@unrolling
def test_following_a_policy_is_unrolling_what_it_chose(name: str) -> None:
    model, h, m = model_of(name).double(), 4, 6
    start = {key: torch.randn_like(value) for key, value in model.initial(m).items()}
    noise = model.noise((h, m), rng.generator(0, "model")).double()
    chosen = torch.linspace(-1, 1, h * m * 2, dtype=torch.float64).view(h, m, 2)
    found, attach = model.follow(start, lambda step, _: chosen[step], noise)
    weight, ways = torch.arange(start["stoch"].shape[-1], dtype=torch.float64).sin(), []
    for follow in (True, False):
        actions = chosen.clone().requires_grad_()
        states = attach(actions) if follow else model.unroll(start, actions.transpose(0, 1), noise)
        score = (states["stoch"] * weight).sum() + states["deter"].sin().sum()
        ways.append([*states.values(), torch.autograd.grad(score, actions)[0]])
    for mine, wanted in zip(*ways, strict=True):
        torch.testing.assert_close(mine, wanted)
    for key, value in found.items():
        torch.testing.assert_close(value, ways[1][list(found).index(key)])


@unrolling
@pytest.mark.parametrize("activation", ["elu", "relu"])
@pytest.mark.parametrize("noisy", [True, False])
def test_the_hand_written_backward_pass_is_autograds(name: str, activation: str, noisy: bool) -> None:
    batch = experience(VECTOR, 3, 7, dtype=torch.float64)
    batch["is_init"][1, 3] = True
    gradients = []
    for fast in (False, True):
        model = model_of(name, activation=activation, fast=fast).double()
        states, measured = model.observe(batch, generator=rng.generator(0, "model") if noisy else None)
        weight = torch.arange(states["stoch"].shape[-1], dtype=torch.float64).cos()
        (total(measured) + states["deter"].sin().sum() + (states["stoch"] * weight).sum()).backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for auto, hand in zip(*gradients, strict=True):
        torch.testing.assert_close(hand, auto, rtol=1e-10, atol=1e-12)


@every_model
@pytest.mark.parametrize("planner", PLANNERS)
@pytest.mark.parametrize("latents", ["mean", "sample"])
def test_every_planner_plays_on_it(name: str, planner: str, latents: str) -> None:
    model, cls = model_of(name, zero_reward=False), registry.lookup("planner", planner)
    wanted: dict[str, Any] = {"horizon": 4, "iterations": 2, "candidates": 8, "elites": 3, "latents": latents}
    known = {field.name for field in fields(cls.Config)}
    settings = replace(cls.Config(), **{key: value for key, value in wanted.items() if key in known})
    state = model.filter(model.initial(2), torch.zeros(2, 2), experience(VECTOR, 2, 1)[:, 0])
    plan = cls(settings).plan(problem_of(model), state, None, generators(2))
    assert plan["action"].shape == (2, 2)
    assert plan["action"].abs().max() <= 1
    assert plan["candidates", "score"].isfinite().all()
    assert not plan["stats", "fallback"].any()
    assert all(parameter.grad is None for parameter in model.parameters())


@every_model
def test_what_was_saved_says_the_same(name: str, tmp_path: Path) -> None:
    model, other = (model_of(name, seed=seed, normalise=True, ensemble=3) for seed in (0, 1))
    batch = experience(VECTOR, 2, 4)
    model.observe(batch)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    for mine, theirs in zip(model.eval().observe(batch), other.eval().observe(batch), strict=True):
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)


# torch.compile looks at .grad of the tensors it is given; it hides the warning, but not where warnings are errors.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@recurrent
def test_compiled_losses_are_the_eager_ones(name: str) -> None:
    model, batch = model_of(name, ensemble=2), experience(VECTOR, 2, 4)
    ways = []
    for compiled in (False, True):
        model.zero_grad()
        if compiled:
            model.compile_update()
        _, measured = model.observe(batch, generator=rng.generator(0, "model"))
        total(measured).backward()
        ways.append([*measured.values(), *(parameter.grad.clone() for parameter in model.parameters())])
    for eager, fast in zip(*ways, strict=True):
        torch.testing.assert_close(fast, eager, rtol=1e-4, atol=1e-5)


@every_model
def test_losses_are_float32_in_half_precision(name: str) -> None:
    model, batch = model_of(name, normalise=True, ensemble=2), experience(VECTOR, 2, 4)
    _, full = model.observe(batch)
    with torch.autocast("cpu", torch.bfloat16):
        _, half = model.observe(batch)
        total(half).backward()
    for key, value in half.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(full[key].item(), rel=0.1, abs=0.1)


@recurrent
def test_it_overfits_one_batch(name: str) -> None:
    model, batch = model_of(name, deter=32, hidden=32, units=32, blocks=4), experience(VECTOR, 4, 8)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    history = []
    for update in range(200):
        _, measured = model.observe(batch, generator=rng.generator(0, "model", update))
        optimiser.zero_grad()
        total(measured).backward()
        optimiser.step()
        history.append({key: value.item() for key, value in measured.items()})
    assert history[-1]["loss/reconstruction"] < 0.25 * history[0]["loss/reconstruction"]
    states, _ = model.observe(batch)
    error = (model.reward(states) - batch["reward"].flatten()).abs().mean()
    assert error < 0.5 * (batch["reward"] - batch["reward"].mean()).abs().mean()


@every_model
def test_spaces_are_asked_for(name: str) -> None:
    with pytest.raises(TypeError, match=r"lightning_wm\.envs\.spaces"):
        registry.lookup("model", name)()
