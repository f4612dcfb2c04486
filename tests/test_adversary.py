"""Actions moved to where the model foretells worst: by hand, who is left alone, and that it is learned from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor, nn

from lightning_wm import rng
from lightning_wm.agents.adversary import challenged
from lightning_wm.agents.dreamer import DreamerConfig
from lightning_wm.agents.planet import PlaNet, PlaNetConfig
from lightning_wm.fit import main as fit
from lightning_wm.protocols import Spaces, State
from tests.conftest import TINY
from tests.test_dreamer import dreamer
from tests.test_tdmpc import agent as tdmpc
from tests.worlds import Outside, experience, model_of, total

SPACES = Spaces(action=2, observation=3)


class Alone(Outside, PlaNet):  # type: ignore[misc]
    """Outside a Trainer."""


class Line(nn.Module):
    """Foretells the reward w a: its loss is (w a - r)^2."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([2.0, 0.0]))
        self.seen = 0

    def observe(
        self, batch: Any, state: Any = None, generator: Any = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        self.seen += int(self.training)
        return {}, {"loss/reward": (batch["action"] @ self.w - batch["reward"].squeeze(-1)).square().sum()}


def test_actions_go_uphill_on_the_loss_and_stay_within_bounds() -> None:
    batch = TensorDict(
        {
            "action": torch.tensor([[[0.0, 0.5], [0.9, 0.5], [1.7, 0.5]]]),
            "reward": torch.tensor([[[1.0], [0.0], [9.0]]]),
        },
        [1, 3],
    )
    model: Any = Line()
    length = 0.4 * torch.rand(1, 1, 1, generator=rng.generator(0, "model")).item()
    moved = challenged(model, batch, 0.4, rng.generator(0, "model"))
    # d/da (2a - r)^2 = 4 (2a - r): down where too little is foretold, up where too much; nothing for what is not read.
    expected = torch.tensor([[[-length, 0.5], [min(1.0, 0.9 + length), 0.5], [1.7, 0.5]]])
    torch.testing.assert_close(moved["action"], expected)
    torch.testing.assert_close(moved["reward"], batch["reward"])
    assert (model.seen, model.training, model.w.grad, model.w.requires_grad) == (0, True, None, True)


@pytest.mark.parametrize("name", ["rssm", "joint_embedding"])  # of categories only the slope is smooth, not the loss
def test_a_models_loss_grows(name: str) -> None:
    model, batch = model_of(name), experience(SPACES, 8, 6)
    with torch.no_grad():
        before = total(model.observe(batch)[1])
        after = total(model.observe(challenged(model, batch, 0.05, rng.generator(0, "model")))[1])
    assert after > before
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_statistics_see_a_batch_once() -> None:
    one = Alone(PlaNetConfig(adversary=0.1), model_of("rssm", normalise=True))
    one.losses(experience(SPACES, 2, 5), rng.generator(0, "model"))
    assert one.model.normaliser.count == 10


def test_zero_is_the_agent_without_it() -> None:
    batch = experience(SPACES, 2, 5)
    plain, none, some = (
        Alone(PlaNetConfig(**fields), model_of("rssm")).losses(batch, rng.generator(0, "model"))
        for fields in ({}, {"adversary": 0.0}, {"adversary": 0.3})
    )
    assert total(plain) == total(none) != total(some)


def test_who_learns_beside_the_model_learns_from_what_was_done() -> None:
    """The planner's actions are imitated, and a reward belongs to the action that earned it."""
    batch = experience(SPACES, 4, 6)
    one = dreamer(DreamerConfig(adversary=0.5, imitation=1.0, imagination=2), model_of("rssm"))
    seen: list[Tensor] = []
    found: list[State] = []

    def imitated(states: State, batch: TensorDict) -> Tensor:
        seen.append(batch["action"])
        found.append(states)
        return torch.zeros(())

    one.imitated = imitated
    one.losses(batch, rng.generator(0, "model"))
    assert torch.equal(seen[0], batch["action"])
    states, _ = one.model.observe(batch, generator=rng.generator(0, "model", 0, 0))
    assert all(torch.equal(found[0][name], value) for name, value in states.items())
    critics = []
    for radius in (0.0, 0.5):
        critics.append(tdmpc(SPACES, adversary=radius).losses(batch, rng.generator(0, "model")))
    assert torch.equal(critics[0]["loss/critic"], critics[1]["loss/critic"])
    assert not torch.equal(critics[0]["loss/consistency"], critics[1]["loss/consistency"])


@pytest.mark.parametrize("agent", ["planet", "dreamer", "tdmpc"])
def test_a_run_learns_with_it(agent: str, tmp_path: Path) -> None:
    assert (
        fit([*TINY, f"agent={agent}", "agent.adversary=0.1", f"run={tmp_path / agent}", "evaluation.video=false"]) == 0
    )


def test_a_share_beyond_the_actions_range_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit([*TINY, "agent.adversary=1.5"]) == 2
    assert "agent.adversary=1.5: expected a share between 0 and 1" in capsys.readouterr().err
