"""Imagined behaviour: lambda-returns by hand, gradients against finite differences, nothing leaks into the model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchrl.objectives.value.functional import td_lambda_return_estimate

from lightning_wm.agents.imagination import Dream, dream, lambda_returns, survival
from lightning_wm.models.behaviour import ActorConfig, PolicyHead
from lightning_wm.models.freezing import frozen
from tests.worlds import world


def test_lambda_returns_by_hand() -> None:
    reward, value = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[10.0], [20.0], [30.0]])
    discount = torch.tensor([[0.5], [0.5], [0.0]])
    # G_2 = 3 + 0 * V = 3;  G_1 = 2 + .5 (.2*20 + .8*3) = 5.2;  G_0 = 1 + .5 (.2*10 + .8*5.2) = 4.08
    found = lambda_returns(reward, discount, value, 0.8)
    torch.testing.assert_close(found, torch.tensor([[4.08], [5.2], [3.0]]))


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95, 1.0])
def test_lambda_returns_are_those_of_torchrl(lam: float) -> None:
    draw = torch.Generator().manual_seed(0)
    reward, value = (torch.randn(7, 4, generator=draw, dtype=torch.float64) for _ in range(2))
    ours = lambda_returns(reward, torch.full_like(reward, 0.9), value, lam)
    never = torch.zeros(4, 7, 1, dtype=torch.bool)
    theirs = td_lambda_return_estimate(0.9, lam, value.T[..., None], reward.T[..., None], never)
    torch.testing.assert_close(ours.T, theirs.squeeze(-1))


def test_what_may_have_ended_counts_less() -> None:
    discount = torch.tensor([[0.5], [0.9], [0.8]], requires_grad=True)
    found = survival(discount)
    torch.testing.assert_close(found, torch.tensor([[1.0], [0.5], [0.45]]))
    assert not found.requires_grad


def latent_noise() -> Tensor:
    """`[H, M, S]`."""
    return torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def sketch(through: bool = True, follow: bool = True, distribution: str = "clipped_normal") -> tuple[Any, Any, Any]:
    """A model, a policy with some spread and a function that dreams with both."""
    model = world().double()
    torch.manual_seed(1)
    policy = PolicyHead(17, 2, ActorConfig(units=6, distribution=distribution)).double()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    start = {"deter": 0.3 * torch.randn(4, 12).double(), "stoch": torch.randn(4, 5).double()}
    drawn, noise = 0.5 * torch.randn(6, 4, 2).double(), latent_noise()
    model_or_steps: Any = model if follow else Stepwise(model)

    def run() -> Dream:
        return dream(model_or_steps, policy, start, drawn, noise, through)

    return model, policy, run


class Stepwise:
    """The same model without its fast ways, as another model would be."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def features(self, state: Any) -> Tensor:
        return self.model.features(state)  # type: ignore[no-any-return]

    def imagine(self, state: Any, action: Tensor, noise: Tensor | None = None) -> Any:
        return self.model.imagine(state, action, noise)


def test_both_ways_to_imagine_give_the_same_states_and_gradients() -> None:
    found = []
    for follow in (True, False):
        model, policy, run = sketch(follow=follow)
        with frozen(model):
            seen = run()
            loss = model.reward(seen.states).sum() + seen.features.square().sum()
        found.append((seen.features, *torch.autograd.grad(loss, list(policy.parameters()))))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_the_actors_gradient_is_that_of_finite_differences() -> None:
    """Only through the actions: the policy's inputs are held where they are, as the gradient holds them."""
    # Of tanh: where an action is clipped, the gradient that passes straight through is not the function's own.
    model, policy, run = sketch(distribution="tanh_normal")
    with frozen(model):
        seen = run()
        (gradient,) = torch.autograd.grad(model.reward(seen.states).sum(), policy.network[-1].bias)
    inputs, noise = seen.features[:-1].detach(), latent_noise()
    start = {"deter": inputs[0, :, :12], "stoch": inputs[0, :, 12:]}
    drawn = ((seen.raw - seen.mean) / seen.std).detach()

    def total() -> float:
        mean, std = policy.statistics(inputs)
        actions = policy.bound(mean + std * drawn)
        states = model.unroll(start, actions.transpose(0, 1), noise)
        return float(model.reward({k: v.flatten(0, 1) for k, v in states.items()}).sum())

    with torch.no_grad():
        bias = policy.network[-1].bias
        for index in range(4):
            values = []
            for step in (1e-5, -1e-5):
                bias[index] += step
                values.append(total())
                bias[index] -= step
            assert gradient[index].item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4, abs=1e-8)


def test_without_the_dynamics_states_have_no_graph() -> None:
    _, policy, run = sketch(through=False)
    seen = run()
    assert not seen.features.requires_grad
    assert seen.mean.requires_grad
    assert not any(value.requires_grad for value in seen.states.values())
    assert [p.grad for p in policy.parameters()] == [None] * len(list(policy.parameters()))
    assert all(g.isfinite().all() for g in torch.autograd.grad(seen.mean.sum(), list(policy.parameters())))


def test_frozen_modules_keep_their_gradients_and_thaw_after_an_error() -> None:
    model, _, run = sketch()
    with frozen(model):
        loss = model.reward(run().states).sum()
    loss.backward()
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    with pytest.raises(RuntimeError, match="inside"), frozen(model):
        raise RuntimeError("inside")
    assert all(p.requires_grad for p in model.parameters())
