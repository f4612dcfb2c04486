"""Categorical latents: probabilities, divergence and gradient by hand, and the block GRU."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from lightning_wm import rng
from lightning_wm.fit import main as fit
from lightning_wm.models.block import BlockConfig, BlockLinear
from lightning_wm.models.discrete import DiscreteConfig
from lightning_wm.models.distributions import categorical_kl
from lightning_wm.models.latents import Categorical
from tests.conftest import TINY
from tests.worlds import experience, model_of

LATENT = Categorical(stoch=2, classes=3, uniform=0.01)
RAW = torch.tensor([[0.0, math.log(2.0), math.log(5.0), 1.0, 1.0, 1.0]], dtype=torch.float64)
"""Before the uniform share: 1/8, 2/8, 5/8 and three thirds."""


def test_a_hundredth_of_every_categorical_is_uniform() -> None:
    (log,) = LATENT.statistics(RAW)
    by_hand = [[0.99 / 8 + 0.01 / 3, 0.99 * 2 / 8 + 0.01 / 3, 0.99 * 5 / 8 + 0.01 / 3], [1 / 3] * 3]
    torch.testing.assert_close(log.exp()[0], torch.tensor(by_hand, dtype=torch.float64))
    torch.testing.assert_close(LATENT.mean((log,))[0], torch.tensor(by_hand, dtype=torch.float64).flatten())
    sure = LATENT.statistics(torch.tensor([[1e4, 0.0, 0.0, 0.0, 0.0, 0.0]]))[0]
    assert sure.exp()[0, 0].tolist() == pytest.approx([0.99 + 0.01 / 3, 0.01 / 3, 0.01 / 3], rel=1e-5)


def test_kl_between_categoricals_by_hand() -> None:
    q, p = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.25, 0.25, 0.5])
    by_hand = 0.5 * math.log(2) + 0.25 * math.log(0.5)
    assert categorical_kl(q.log(), p.log()).item() == pytest.approx(by_hand, rel=1e-6)
    assert categorical_kl(q.log(), q.log()).item() == 0.0


def test_kl_of_the_latent_is_the_sum_over_its_categoricals_and_never_infinite() -> None:
    q = LATENT.statistics(torch.tensor([[1e4, 0.0, 0.0, 0.0, 0.0, 0.0]]))
    p = LATENT.statistics(torch.tensor([[0.0, 1e4, 0.0, 0.0, 0.0, 0.0]]))
    high, low = 0.99 + 0.01 / 3, 0.01 / 3
    assert LATENT.kl(q, p).item() == pytest.approx((high - low) * math.log(high / low), rel=1e-4)


def test_the_gradient_of_a_draw_is_that_of_the_probabilities() -> None:
    noise = LATENT.noise((1,), rng.generator(0, "model")).double()
    weight = torch.tensor([0.3, -1.0, 2.0, 0.5, 0.0, -0.7], dtype=torch.float64)
    (log,) = LATENT.statistics(raw := RAW.clone().requires_grad_())
    (wanted,) = torch.autograd.grad((log.exp().flatten(1) * weight).sum(), raw)
    for drawn in (LATENT.draw(raw, noise), LATENT.draw(raw, None)):
        (found,) = torch.autograd.grad((drawn * weight).sum(), raw)
        torch.testing.assert_close(found, wanted)
        assert (found != 0).any()
    # d p_i / d x_j = 0.99 s_i (1{i=j} - s_j), with s before the uniform share.
    softmax = torch.tensor([1 / 8, 2 / 8, 5 / 8], dtype=torch.float64)
    by_hand = 0.99 * softmax * (weight[:3] - (softmax * weight[:3]).sum())
    torch.testing.assert_close(wanted[0, :3], by_hand)


def test_draws_are_one_hot_and_as_often_as_they_should_be() -> None:
    raws, number = RAW.expand(20_000, -1), 20_000
    drawn = LATENT.draw(raws, LATENT.noise((number,), rng.generator(0, "model")).double()).view(number, 2, 3)
    assert torch.equal(drawn.sum(-1), torch.ones(number, 2, dtype=torch.float64))
    assert drawn.unique().tolist() == [0.0, 1.0]
    frequency, wanted = drawn.mean(0), LATENT.statistics(RAW)[0].exp()[0]
    assert ((frequency - wanted).abs() < 4 * (wanted * (1 - wanted) / number).sqrt()).all()
    pairs = torch.einsum("mi,mj->ij", drawn[:, 0], drawn[:, 1]) / number
    torch.testing.assert_close(pairs, wanted[0][:, None] * wanted[1], rtol=0, atol=0.02)  # independent


def test_without_noise_the_most_likely_class() -> None:
    assert LATENT.draw(RAW + torch.tensor([0, 0, 0, 0, 0.1, 0]), None).tolist() == [[0, 0, 1, 0, 1, 0]]


def test_states_are_one_hot_wherever_they_come_from() -> None:
    for name in ("discrete_rssm", "block_rssm"):
        model = model_of(name)
        batch = experience(model.spaces, 3, 5)
        batch["is_init"][1, 2] = True
        states, _ = model.observe(batch, generator=rng.generator(0, "model"))
        after = model.imagine(states, batch["action"].flatten(0, 1), model.noise((15,), rng.generator(1, "model")))
        for state in (states, after, model.imagine(states, batch["action"].flatten(0, 1))):
            ones = state["stoch"].view(15, 5, 3)
            assert torch.equal(ones.sum(-1), torch.ones(15, 5))
            assert ones.unique().tolist() == [0.0, 1.0]


def test_kl_loss_is_balanced_and_thresholded() -> None:
    batch = experience(model_of("discrete_rssm").spaces, 2, 4)
    _, free = model_of("discrete_rssm", free_nats=0.0).observe(batch)
    assert free["loss/kl"].item() == pytest.approx(1.1 * free["kl"].item(), rel=1e-5)
    assert free["kl"] > 0
    model = model_of("discrete_rssm", free_nats=1e3)
    _, held = model.observe(batch)
    assert held["loss/kl"].item() == pytest.approx(1100.0)
    held["loss/kl"].backward()
    assert not any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_a_block_linear_layer_is_a_block_diagonal_one() -> None:
    layer, values = BlockLinear(6, 12, blocks=3), torch.randn(5, 6)
    dense = torch.block_diag(*layer.weight)  # 6, 12
    torch.testing.assert_close(layer(values).flatten(1), values @ dense + layer.bias.flatten())


@pytest.mark.parametrize("norm", [True, False])
def test_a_step_of_the_block_gru_written_out(norm: bool) -> None:
    model = model_of("block_rssm", norm=norm).double()
    core, g = model.core, 3
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.copy_(torch.randn_like(parameter))
    state = {"deter": torch.randn(4, 12).double(), "stoch": torch.randn(4, 15).double()}
    action = torch.rand(4, 2).double()
    parts = [layers(x) for layers, x in ((core.deter_in, state["deter"]), (core.stoch_in, state["stoch"]))]
    seen = torch.cat([*parts, core.action_in(action)], -1)  # 4, 3*hidden: what every block sees
    hidden = seen @ core.inputs.weight.T + core.inputs.bias
    own = torch.stack([state["deter"].view(4, g, 4)[:, k] @ core.own.weight[k] + core.own.bias[k] for k in range(g)], 1)
    hidden = hidden + own.flatten(1)
    if norm:
        hidden = hidden / (hidden.square().mean(-1, keepdim=True) + 1e-4).sqrt() * core.after[0].weight
    hidden = F.silu(hidden).view(4, g, 4)
    gates = torch.stack([hidden[:, k] @ core.gates.weight[k] + core.gates.bias[k] for k in range(g)], 1)  # 4, g, 12
    reset, candidate, update = (gates[..., i : i + 4].flatten(1) for i in (0, 4, 8))
    update = torch.sigmoid(update - 1)
    wanted = update * torch.tanh(torch.sigmoid(reset) * candidate) + (1 - update) * state["deter"]
    torch.testing.assert_close(model.imagine(state, action)["deter"], wanted)


def test_a_reward_that_begins_at_zero() -> None:
    model = model_of("discrete_rssm", zero_reward=True)
    states, _ = model.observe(experience(model.spaces, 2, 4))
    assert model.reward(states).abs().max() < 1e-5


@pytest.mark.parametrize("model", ["dreamer_v3_small", "dreamer_v3"])
def test_the_quickstart_learns_with_it(model: str, tmp_path: Path) -> None:
    assert fit([*TINY, f"model={model}", f"run={tmp_path / 'run'}", "evaluation.video=false"]) == 0
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert "train/loss/kl" in text
    assert "NaN" not in text


@pytest.mark.parametrize(
    ("config", "fields", "message"),
    [
        (DiscreteConfig, {"classes": 1}, r"model\.classes=1: expected at least 2"),
        (DiscreteConfig, {"uniform": 0.0}, "between 0 and 1"),
        (BlockConfig, {"deter": 100, "blocks": 8}, r"model\.deter=100, model\.blocks=8"),
        (BlockConfig, {"prior_layers": 0}, r"model\.prior_layers=0"),
        (BlockConfig, {"norm_kind": "batch"}, "layer or rms"),
    ],
)
def test_impossible_settings_are_refused(config: type, fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**fields)
