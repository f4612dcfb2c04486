"""Actor and critics: densities, bounds, codes and the slow copy, against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal

from lightning_wm.models.behaviour import ActorConfig, CriticConfig, Critics, PolicyHead, log_slope
from lightning_wm.planning.policy_rollouts import draw, mode


def head(**fields: object) -> PolicyHead:
    torch.manual_seed(0)
    policy = PolicyHead(3, 2, ActorConfig(units=8, **fields)).double()  # type: ignore[arg-type]
    with torch.no_grad():
        policy.network[-1].weight.normal_()
    return policy


@pytest.mark.parametrize("distribution", ["clipped_normal", "tanh_normal"])
def test_actions_stay_in_the_bounds_and_the_deviation_in_its_own(distribution: str) -> None:
    policy, features = head(distribution=distribution), 100 * torch.randn(50, 3).double()
    mean, std = policy.statistics(features)
    assert bool((std >= 0.1).all())
    assert bool((std <= 1.0).all())
    assert bool((policy.bound(mean + std * torch.randn_like(mean)).abs() <= 1).all())


def test_a_clipped_action_passes_its_gradient_through() -> None:
    raw = torch.tensor([-3.0, 0.5, 2.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(head().bound(raw).sum(), raw)
    assert gradient.tolist() == [1.0, 1.0, 1.0]


def test_the_entropy_of_a_normal_is_its_closed_form() -> None:
    std = torch.tensor([[0.5, 0.2]], dtype=torch.float64)
    by_hand = sum(0.5 * math.log(2 * math.pi * math.e * s * s) for s in (0.5, 0.2))
    assert head().entropy(std, torch.zeros_like(std)).item() == pytest.approx(by_hand)


def test_the_entropy_of_a_squashed_normal_is_that_of_its_density() -> None:
    policy = head(distribution="tanh_normal")
    std, mean = torch.full((200_000, 1), 0.4, dtype=torch.float64), 0.3
    raw = mean + std * torch.randn(std.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    action = raw.tanh()
    density = Normal(mean, 0.4).log_prob(raw) - torch.log(1 - action.square())
    assert policy.entropy(std, raw).mean().item() == pytest.approx(-density.mean().item(), abs=5e-3)


def test_the_slope_of_tanh_does_not_overflow() -> None:
    assert log_slope(torch.tensor([0.0])).item() == pytest.approx(0.0, abs=1e-6)
    assert log_slope(torch.tensor([1.0])).item() == pytest.approx(math.log(1 - math.tanh(1.0) ** 2), rel=1e-5)
    assert log_slope(torch.tensor([60.0, -60.0])).isfinite().all()


@pytest.mark.parametrize("distribution", ["clipped_normal", "tanh_normal"])
def test_planners_draw_what_imagination_draws(distribution: str) -> None:
    policy, features = head(distribution=distribution), torch.randn(4, 3).double()
    noise = torch.randn(4, 2).double()
    mean, std = policy.statistics(features)
    drawn = draw(policy(features), noise).clamp(-1, 1)
    torch.testing.assert_close(drawn, policy.bound(mean + std * noise), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(mode(policy(features)).clamp(-1, 1), policy.bound(mean), rtol=1e-6, atol=1e-6)


def test_the_log_density_is_that_of_the_normal_before_the_bound() -> None:
    policy, features = head(), torch.randn(4, 3).double()
    mean, std = policy.statistics(features)
    raw = torch.randn(4, 2).double()
    torch.testing.assert_close(policy.log_prob(mean, std, raw), Normal(mean, std).log_prob(raw).sum(-1))


def test_what_was_bounded_can_be_undone() -> None:
    action = torch.tensor([[-0.9, 0.3]], dtype=torch.float64)
    for distribution in ("clipped_normal", "tanh_normal"):
        policy = head(distribution=distribution)
        torch.testing.assert_close(policy.bound(policy.unbound(action)), action)


def test_new_critics_have_no_opinion_and_differ_where_they_learn() -> None:
    critics = Critics(3, CriticConfig(units=8, members=3))
    features = torch.randn(5, 3)
    torch.testing.assert_close(critics(features), torch.zeros(3, 5), rtol=0, atol=1e-5)
    optimiser = torch.optim.Adam(critics.parameters(), 1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        critics.loss(features, torch.full((5,), 7.0)).mean().backward()
        optimiser.step()
    torch.testing.assert_close(critics(features), torch.full((3, 5), 7.0), rtol=0, atol=0.7)
    elsewhere = critics(4 * torch.randn(50, 3)).detach()
    assert float(elsewhere.std(0).mean()) > 0.01


def test_a_critic_is_trained_on_the_two_hot_code_of_its_target() -> None:
    critics = Critics(3, CriticConfig(units=8, bins=5, bin_limit=2.0))
    # Bins at symexp(-2, -1, 0, 1, 2) = (-6.389, -1.718, 0, 1.718, 6.389); uniform logits: log 5 nats whatever the code.
    nats = critics.loss(torch.zeros(2, 3), torch.tensor([0.859, 100.0]))
    torch.testing.assert_close(nats, torch.full((2,), math.log(5.0)), rtol=1e-4, atol=1e-4)
    last = critics.members[0].network[-1]  # type: ignore[union-attr, index]
    with torch.no_grad():
        last.bias.copy_(torch.tensor([0.0, 0.0, 1.0, 3.0, 0.0]))
    log_p = torch.tensor([0.0, 0.0, 1.0, 3.0, 0.0]).log_softmax(0)
    share = 0.859 / (math.e - 1)
    by_hand = -((1 - share) * log_p[2] + share * log_p[3])
    assert critics.loss(torch.zeros(1, 3), torch.tensor([0.859])).item() == pytest.approx(by_hand.item(), rel=1e-4)


def test_the_slow_copy_moves_by_its_share() -> None:
    online, slow = Critics(3, CriticConfig(units=8)), Critics(3, CriticConfig(units=8, decay=0.9))
    before = [p.clone() for p in slow.parameters()]
    slow.follow(online)
    for now, was, goal in zip(slow.parameters(), before, online.parameters(), strict=True):
        torch.testing.assert_close(now, 0.9 * was + 0.1 * goal)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (lambda: ActorConfig(distribution="beta"), "clipped_normal"),
        (lambda: ActorConfig(min_std=2.0), "min_std < max_std"),
        (lambda: ActorConfig(units=0), "agent.actor.units=0"),
        (lambda: CriticConfig(bins=4), "odd"),
        (lambda: CriticConfig(bootstrap="none"), "slow or online"),
        (lambda: CriticConfig(decay=1.0), "agent.critic.decay=1.0"),
        (lambda: CriticConfig(members=0), "agent.critic.members=0"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(config: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        config()  # type: ignore[operator]
