"""The hand-written scan is the plain loop: values and gradients, wherever a model uses it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_wm import registry, rng
from lightning_wm.agents.imagination import dream
from lightning_wm.models.behaviour import ActorConfig, PolicyHead
from lightning_wm.models.freezing import frozen
from lightning_wm.models.latents import Gaussian
from lightning_wm.models.rssm import RSSM, RSSMConfig
from lightning_wm.planning import problem_of, score
from lightning_wm.planning.objective import Objective
from lightning_wm.protocols import Follows, Spaces, State, Unrolls
from tests.worlds import SMALL, experience, model_of, total

SPACES = Spaces(action=2, observation=3)
both_latents = pytest.mark.parametrize("name", ["rssm", "discrete_rssm"])
every_dtype = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
noisy_or_not = pytest.mark.parametrize("noisy", [True, False])

Result = tuple[list[Tensor], list[Tensor]]
"""Values and gradients."""


def close(fast: Result, plain: Result, dtype: torch.dtype) -> None:
    """Values within 1e-6 and gradients within 1e-5; in float32 within what rounding makes of 20 steps."""
    value, gradient = (1e-6, 1e-5) if dtype == torch.float64 else (1e-5, 1e-3)
    assert len(fast[1]) == len(plain[1]) > 0
    for ours, theirs in zip(fast[0], plain[0], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=value, atol=value)
    for ours, theirs in zip(fast[1], plain[1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=gradient, atol=gradient)
    assert any((value != 0).any() for value in fast[1])


def pair(name: str, dtype: torch.dtype, **changes: object) -> list[Any]:
    """The same weights with the scan and with the plain loop."""
    return [model_of(name, SPACES, fast=fast, **changes).to(dtype) for fast in (True, False)]


def starts(model: Any, dtype: torch.dtype, m: int = 6) -> State:
    draw = torch.Generator().manual_seed(3)
    return {key: 0.5 * torch.randn(value.shape, generator=draw).to(dtype) for key, value in model.initial(m).items()}


@both_latents
@every_dtype
@noisy_or_not
@pytest.mark.parametrize("activation", ["elu", "relu"])
@pytest.mark.parametrize("resets", [True, False])
def test_observing(name: str, dtype: torch.dtype, noisy: bool, activation: str, resets: bool) -> None:
    batch, found = experience(SPACES, 4, 20, dtype=dtype), []
    if resets:
        batch["is_init"][0, 0] = batch["is_init"][1, 7] = batch["is_init"][1, 8] = batch["is_init"][3, 19] = True
    for model in pair(name, dtype, activation=activation):
        start = {key: value.requires_grad_() for key, value in starts(model, dtype, 4).items()}
        states, measured = model.observe(batch, start, rng.generator(0, "model") if noisy else None)
        weight = torch.arange(states["stoch"].shape[-1], dtype=dtype).cos()
        (total(measured) + states["deter"].sin().sum() + (states["stoch"] * weight).sum()).backward()
        gradients = [value.grad for value in (*model.parameters(), *start.values())]
        assert all(gradient is not None for gradient in gradients)
        found.append(([*states.values(), *measured.values()], gradients))
    close(*found, dtype)


@both_latents
@every_dtype
def test_filtering(name: str, dtype: torch.dtype) -> None:
    batch = experience(SPACES, 4, 1, dtype=dtype)
    after = [model.filter(starts(model, dtype, 4), batch["action"][:, 0], batch[:, 0]) for model in pair(name, dtype)]
    for key, value in after[0].items():
        torch.testing.assert_close(value, after[1][key], rtol=1e-6, atol=1e-6)


@both_latents
@every_dtype
@noisy_or_not
def test_planning(name: str, dtype: torch.dtype, noisy: bool) -> None:
    h, m, found = 12, 6, []
    for model in pair(name, dtype, zero_reward=False):
        problem, start = problem_of(model, Objective(continues=True), discount=0.95), starts(model, dtype)
        assert (problem.unroll is not None) == model.config.fast
        noise = model.noise((h, m), rng.generator(0, "planner")).to(dtype) if noisy else None
        actions = torch.linspace(-1, 1, m * h * 2, dtype=dtype).view(m, h, 2).requires_grad_()
        leaves = [actions, *(value.requires_grad_() for value in start.values())]
        values = score(problem, start, actions, noise)
        found.append(([values], list(torch.autograd.grad(values.sum(), leaves))))
    close(*found, dtype)


@both_latents
@every_dtype
def test_dreaming(name: str, dtype: torch.dtype) -> None:
    h, m, found = 8, 6, []
    for model in pair(name, dtype, zero_reward=False):
        assert isinstance(model, Follows) == model.config.fast
        with rng.scope(0, "init"):
            policy = PolicyHead(model.features(model.initial(1)).shape[-1], 2, ActorConfig(units=6)).to(dtype)
            drawn = 0.3 * torch.randn(h, m, 2).to(dtype)
        noise = model.noise((h, m), rng.generator(1, "model")).to(dtype)
        with frozen(model):
            seen = dream(model, policy, starts(model, dtype), drawn, noise)
            loss = model.reward(seen.states).sum() + seen.features.square().sum()
        gradients = list(torch.autograd.grad(loss, list(policy.parameters())))
        found.append(([seen.features, *seen.states.values()], gradients))
    close(*found, dtype)


def test_the_key_is_on_and_says_which_loop_is_taken() -> None:
    assert RSSMConfig().fast
    for fast in (True, False):
        model = model_of("rssm", fast=fast)
        assert isinstance(model, Unrolls) == isinstance(model, Follows) == fast
        states, _ = model.observe(experience(SPACES, 2, 3))
        assert ("_Scan" in str(ancestors(states["stoch"]))) == fast


def test_second_derivatives_need_the_plain_loop() -> None:
    for fast in (True, False):
        model, batch = model_of("rssm", fast=fast), experience(SPACES, 2, 3)
        states, _ = model.observe(batch)
        (first,) = torch.autograd.grad(states["deter"].square().sum(), model.gru.weight_hh, create_graph=True)
        if fast:
            with pytest.raises(RuntimeError, match="once_differentiable"):
                first.square().sum().backward()
        else:
            first.square().sum().backward()
            assert model.gru.weight_hh.grad.abs().sum() > 0


@dataclass(frozen=True)
class Wide(Gaussian):
    """A latent that the scan does not know."""

    def draw(self, raw: Tensor, noise: Tensor | None) -> Tensor:
        return 2.0 * super().draw(raw, noise)


@dataclass(frozen=True)
class WideConfig(RSSMConfig):
    """Its settings."""

    @property
    def latent(self) -> Gaussian:
        return Wide(self.stoch, self.min_std)


class Leaky(RSSM):
    """Another recurrent step."""

    def imagine(self, state: State, action: Tensor, noise: Tensor | None = None) -> State:
        after = super().imagine(state, action, noise)
        return {**after, "deter": 0.9 * after["deter"]}


def test_what_the_scan_does_not_know_takes_the_plain_loop() -> None:
    sizes = {key: SMALL[key] for key in ("deter", "stoch", "hidden", "units")}
    batch = experience(SPACES, 2, 3)
    for model in (RSSM(WideConfig(**sizes), SPACES), RSSM(RSSMConfig(**sizes, activation="silu"), SPACES)):
        assert not isinstance(model, Unrolls)
        assert not isinstance(model, Follows)
        assert "_Scan" not in str(ancestors(model.observe(batch)[0]["stoch"]))
    leaky = Leaky(RSSMConfig(**sizes), SPACES)
    assert not isinstance(leaky, Unrolls)
    assert problem_of(leaky).unroll is None


@both_latents
def test_autocast_takes_the_plain_loop(name: str) -> None:
    batch, found = experience(SPACES, 2, 4), []
    for model in pair(name, torch.float32):
        with torch.autocast("cpu", torch.bfloat16):
            found.append(model.observe(batch, generator=rng.generator(0, "model")))
    for fast, plain in zip(*found, strict=True):
        assert all(torch.equal(fast[key], plain[key]) for key in plain)


@both_latents
def test_export_takes_the_plain_loop(name: str) -> None:
    model, observation = model_of(name, SPACES), experience(SPACES, 1, 1)["observation"][:, 0]
    action, state = torch.ones(1, 2), model.initial(1)

    class Filter(torch.nn.Module):
        def forward(self, deter: Tensor, stoch: Tensor) -> tuple[Tensor, ...]:
            before = {"deter": deter, "stoch": stoch}
            return tuple(model.filter(before, action, {"observation": observation}).values())

    with torch.no_grad():
        program = torch.export.export(Filter(), tuple(state.values()))
        found = program.module()(*state.values())
        expected = model.filter(state, action, {"observation": observation})
    assert "gru_cell" in program.graph_module.code
    for ours, value in zip(found, expected.values(), strict=True):
        torch.testing.assert_close(ours, value)
    assert "_Scan" in str(ancestors(model.observe(experience(SPACES, 2, 3))[0]["stoch"]))  # and is as it was


def ancestors(value: Tensor) -> set[str]:
    """Names of the functions that a tensor was computed by."""
    names, waiting = set(), [value.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in names:
            names.add(node)
            waiting += [parent for parent, _ in node.next_functions]
    return {type(node).__name__ for node in names}


@pytest.fixture
def _unregistered() -> Iterator[None]:
    yield
    registry._classes["model"].pop("sight_rssm", None)


@pytest.mark.usefixtures("_unregistered")
def test_the_documented_model_learns_and_plans() -> None:
    """docs/extend.md's model, as printed: another posterior, the rest of it the RSSM's."""
    text = (Path(__file__).parent.parent / "docs" / "extend.md").read_text()
    (code,) = re.findall(r"```\{code-block\} python\n([^`]*class SightRSSM.*?)```", text, re.DOTALL)
    exec(compile(code, "docs/extend.md", "exec"), {})
    model, batch = model_of("sight_rssm", SPACES).double(), experience(SPACES, 3, 6, dtype=torch.float64)
    batch["is_init"][1, 3] = True
    _, measured = model.observe(batch, generator=rng.generator(0, "model"))
    total(measured).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    over_time = {key: value.unflatten(0, (3, 6)) for key, value in model.observe(batch)[0].items()}
    state = model.initial(3)
    for step in range(3):
        state = model.filter(state, batch["action"][:, step], batch[:, step])
        for key, value in state.items():
            torch.testing.assert_close(value, over_time[key][:, step])
    assert isinstance(model, Unrolls)
    whole = model.unroll(state, batch["action"][:, 3:4])
    torch.testing.assert_close(whole["deter"][0], model.imagine(state, batch["action"][:, 3])["deter"])
