"""Two-hot heads: the default bins hold common rewards, and what lies beyond the bins is said."""

from __future__ import annotations

import math
import warnings

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lightning_wm.agents.dreamer import Dreamer, DreamerConfig
from lightning_wm.agents.planet import PlaNet
from lightning_wm.agents.saturation import Saturation
from lightning_wm.models.behaviour import ActorConfig, CriticConfig
from lightning_wm.models.config import ModelConfig
from lightning_wm.models.heads import TwoHotHead, reward_head
from lightning_wm.protocols import Spaces
from tests.worlds import experience, world

SPACES = Spaces(action=2, observation=3)


def learn(agent: pl.LightningModule, rewards: float, updates: int = 2) -> list[str]:
    """What a Trainer warns of on batches whose largest reward is `rewards`."""
    batch = experience(SPACES, 4, 8)
    batch["reward"][1, 2] = rewards
    loader = DataLoader([batch] * updates, batch_size=None, collate_fn=lambda whole: whole)
    trainer = pl.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(agent, loader)
    return [str(w.message) for w in caught if "outermost bin" in str(w.message)]


def test_a_reward_beyond_the_bins_is_said_once_with_what_to_type() -> None:
    said = learn(PlaNet(model=world(SPACES, bins=41, bin_limit=4.0)), -100.0, updates=60)
    assert len(said) == 1
    assert "reach 100.0" in said[0]
    assert "model.bin_limit=4 the outermost bin is 53.6" in said[0]
    assert "model.bin_limit=5 model.bins=51" in said[0]  # as fine as before: 0.2 between bins


def test_what_is_said_is_enough() -> None:
    assert learn(PlaNet(model=world(SPACES, bins=51, bin_limit=5.0)), -100.0) == []


def test_the_default_holds_common_rewards() -> None:
    assert learn(PlaNet(model=world(SPACES, bins=ModelConfig().bins, bin_limit=ModelConfig().bin_limit)), -100.0) == []


@pytest.mark.parametrize("target", [-100.0, -0.01, 0.0, 300.0, 1e4])
def test_the_default_reads_back_what_it_learned(target: float) -> None:
    """The loss is least at the two-hot code, whose expectation is the target."""
    config = ModelConfig()
    head = reward_head(config, 1)
    assert isinstance(head, TwoHotHead)
    logits = torch.zeros(1, config.bins, dtype=torch.float64, requires_grad=True)
    head = TwoHotHead(nn.Identity(), config.bins, config.bin_limit).double()
    optimiser = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = head.loss(logits, torch.tensor([target], dtype=torch.float64)).sum()
        loss.backward()
        return loss

    optimiser.step(closure)  # type: ignore[arg-type]
    assert head(logits).item() == pytest.approx(target, rel=0.02, abs=1e-2)


def test_returns_beyond_the_critics_bins_name_the_critics_key() -> None:
    critic = CriticConfig(units=8, bins=3, bin_limit=1e-6)
    config = DreamerConfig(actor=ActorConfig(units=8), critic=critic, imagination=4, imagine_starts=6)
    (said,) = learn(Dreamer(config, world(SPACES)), 1.0)
    assert "type agent.critic.bin_limit=" in said
    assert "agent.critic.bins=" in said


def test_a_target_that_is_not_finite_is_the_guards() -> None:
    head = TwoHotHead(nn.Identity(), 3, 1.0)
    head.loss(torch.zeros(1, 3), torch.tensor([math.nan]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Saturation().check(head)
