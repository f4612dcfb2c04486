"""An ensemble that says what the model does not know."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lightning_wm import rng
from lightning_wm.errors import UserError
from lightning_wm.models.ensemble import Ensemble
from lightning_wm.models.rssm import RSSMConfig
from lightning_wm.planners.grad_mpc import GradMPC, GradMPCConfig
from lightning_wm.planning import Objective, problem_of
from tests.problems import generators
from tests.test_models import RECURRENT
from tests.worlds import experience, model_of, total, world


def ensemble(members: int = 5, inputs: int = 4, outputs: int = 3, units: int = 32) -> Ensemble:
    with rng.scope(0, "init"):
        return Ensemble(members, inputs, units, 2, outputs, "elu")


def test_every_member_is_a_perceptron_of_its_own() -> None:
    heads, deter = ensemble(), torch.randn(7, 4)
    together = heads(deter)
    assert together.shape == (5, 7, 3)
    for k in range(5):
        hidden = F.elu(deter @ heads.weights[0][k] + heads.biases[0][k])
        hidden = F.elu(hidden @ heads.weights[1][k] + heads.biases[1][k])
        torch.testing.assert_close(together[k], hidden @ heads.weights[2][k] + heads.biases[2][k])
        assert not torch.allclose(together[k], together[k - 1])


def test_loss_and_disagreement_by_hand() -> None:
    heads = ensemble(members=2)
    for parameter in heads.parameters():
        torch.nn.init.zeros_(parameter)
    heads.biases[2].data[0], heads.biases[2].data[1] = 1.0, 3.0  # they say 1 and 3 whatever they see
    deter = torch.randn(6, 4)
    assert heads.loss(deter, torch.zeros(6, 3)).item() == pytest.approx(0.5 * 3 * (1 + 9) / 2)
    assert heads.disagreement(deter).tolist() == pytest.approx([2.0] * 6)  # variance of 1 and 3


def test_members_agree_where_they_were_trained_and_not_elsewhere() -> None:
    heads = ensemble()
    draw = rng.generator(0, "replay")
    seen = torch.randn(256, 4, generator=draw) * 0.5
    target = torch.stack([seen.sum(1), seen[:, 0] * seen[:, 1], seen[:, 2].sin()], 1)
    before = heads.disagreement(seen).mean().item()
    optimiser = torch.optim.Adam(heads.parameters(), lr=3e-3)
    for _ in range(300):
        optimiser.zero_grad()
        heads.loss(seen, target).backward()
        optimiser.step()
    there, elsewhere = heads.disagreement(seen).mean().item(), heads.disagreement(seen + 4.0).mean().item()
    assert there < 0.1 * before
    assert elsewhere > 20 * there


@pytest.mark.parametrize("name", RECURRENT)
def test_it_learns_beside_the_model_and_leaves_it_alone(name: str) -> None:
    batch = experience(model_of(name).spaces, 2, 4)
    plain, more = model_of(name), model_of(name, ensemble=3)
    for key, value in plain.state_dict().items():
        assert torch.equal(value, more.state_dict()[key]), key
    gradients = []
    for model in (plain, more):
        _, measured = model.observe(batch)
        total(measured).backward()
        gradients.append({key: p.grad for key, p in model.named_parameters()})
    for key, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][key]), key
    assert "loss/ensemble" not in plain.observe(batch)[1]
    assert measured["loss/ensemble"] > 0
    assert all(gradients[1][key].abs().sum() > 0 for key in gradients[1] if key.startswith("ensemble"))


def test_it_predicts_the_posteriors_mean_from_the_deterministic_state() -> None:
    model = world(ensemble=3)
    batch = experience(model.spaces, 2, 4)
    states, measured = model.observe(batch)  # without noise the stochastic state is the posterior's mean
    wanted = model.ensemble.loss(states["deter"], states["stoch"])
    assert measured["loss/ensemble"].item() == pytest.approx(wanted.item(), rel=1e-6)


def test_disagreement_is_differentiable_in_the_state_and_no_one_elses() -> None:
    model = world(ensemble=3)
    state = {name: torch.randn_like(value).requires_grad_() for name, value in model.initial(4).items()}
    assert model.disagreement is not None
    doubt = model.disagreement(state)
    assert doubt.shape == (4,)
    assert (doubt > 0).all()
    (gradient,) = torch.autograd.grad(doubt.sum(), state["deter"])
    assert (gradient != 0).any(1).all()


def test_planners_ask_for_it_by_weight() -> None:
    with pytest.raises(UserError, match="no ensemble"):
        problem_of(world(), Objective(disagreement=0.1))
    assert world().disagreement is None
    model, plans = world(ensemble=3), []
    for weight in (0.0, 1e3):
        planner = GradMPC(GradMPCConfig(horizon=4, iterations=2, candidates=8))
        problem = problem_of(model, Objective(disagreement=weight))
        plans.append(planner.plan(problem, model.initial(2), None, generators(2)))
    assert not torch.equal(plans[0]["action"], plans[1]["action"])
    assert not plans[1]["stats", "fallback"].any()


@pytest.mark.parametrize("members", [-1, 1])
def test_one_cannot_disagree(members: int) -> None:
    with pytest.raises(ValueError, match=rf"model\.ensemble={members}: expected 0 for none, or at least 2"):
        RSSMConfig(ensemble=members)
