"""What the benchmarks compare is comparable: sizes, sums and scaling, checked without a clock."""

from __future__ import annotations

import csv
import dataclasses
import time
from itertools import count
from pathlib import Path

import pytest
import torch
from torch import nn
from torchrl.modules.planners.cem import _PrecomputedActionsSequentialSetter

from lightning_wm import rng
from lightning_wm.benchmarks import budget, update
from lightning_wm.benchmarks.pareto import front, write_rows
from lightning_wm.benchmarks.planners import LatentEnv
from lightning_wm.benchmarks.returns import Played
from lightning_wm.benchmarks.split import measured
from lightning_wm.benchmarks.timing import clock_of, interleaved
from lightning_wm.benchmarks.torchrl_world import dreamer_loss, peer_batch
from lightning_wm.models.rssm import RSSM, RSSMConfig
from lightning_wm.planners.cem import CEMConfig
from lightning_wm.planners.grad_mpc import GradMPC, GradMPCConfig
from lightning_wm.planners.random import RandomConfig
from lightning_wm.planners.random_shooting import RandomShootingConfig
from lightning_wm.planning import problem_of, score
from lightning_wm.planning.search import Search
from lightning_wm.playing.results import Evaluation
from tests.worlds import total, world


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_torchrls_world_model_has_as_many_weights_as_ours() -> None:
    config = RSSMConfig(**update.PLAIN)
    assert size(dreamer_loss(config, update.STATE)) == size(RSSM(config, update.STATE))


def test_torchrls_loss_is_ours_where_the_two_agree() -> None:
    """Reconstruction and reward of TorchRL lack the likelihood's 1/2; with all outputs zero both are known."""
    config = RSSMConfig(**{**update.PLAIN, **update.TINY})
    batch = update.experience(update.STATE, 2, 3)
    ours, theirs = RSSM(config, update.STATE), dreamer_loss(config, update.STATE)
    for module in (ours, theirs):
        for parameter in module.parameters():
            nn.init.zeros_(parameter)
    batch["is_init"].zero_()  # ours does not learn an episode's first reward
    _, measured_ours = ours.observe(batch)
    losses, _ = theirs(peer_batch(batch, config))
    assert losses["loss_model_reco"].item() == pytest.approx(2 * measured_ours["loss/reconstruction"].item(), rel=1e-6)
    assert losses["loss_model_reward"].item() == pytest.approx(2 * measured_ours["loss/reward"].item(), rel=1e-6)


def test_both_sides_of_the_update_learn() -> None:
    config = RSSMConfig(**{**update.PLAIN, **update.TINY})
    batch = update.experience(update.STATE, 2, 3)
    module, theirs, model = dreamer_loss(config, update.STATE), peer_batch(batch, config), RSSM(config, update.STATE)

    def peer_loss(number: int) -> torch.Tensor:
        losses, _ = module(theirs.copy())
        return sum(losses.values()).squeeze()

    for parameters, loss in ((model.parameters(), update.model_loss(model, batch)), (module.parameters(), peer_loss)):
        step, before = update.updates(list(parameters), loss), loss(0).item()
        for number in range(30):
            step(number)
        assert loss(0).item() < before


def test_the_latent_environment_predicts_what_our_objective_sums() -> None:
    model = world()
    actions = torch.rand(5, 4, 2, generator=rng.generator(0, "planner")) * 2 - 1
    env, problem = LatentEnv(model), problem_of(model)
    start = env.reset().expand(5).clone()
    rolled = env.rollout(4, _PrecomputedActionsSequentialSetter(actions), auto_reset=False, tensordict=start)
    state = {name: value.repeat_interleave(5, 0) for name, value in model.initial(1).items()}
    torch.testing.assert_close(rolled["next", "reward"].sum((1, 2)), score(problem, state, actions))


def test_calls_take_turns_and_warm_rounds_do_not_count() -> None:
    said: list[str] = []
    times = interleaved(lambda i: said.append(f"a{i}"), lambda i: said.append(f"b{i}"), repeats=2, warm=1)
    assert said == ["a0", "b0", "a1", "b1", "a2", "b2"]
    assert len(times) == 2


def test_the_split_sees_gradients_and_puts_everything_back() -> None:
    model = world()
    before = torch.autograd.grad
    with measured() as split:
        GradMPC(GradMPCConfig(horizon=3, iterations=2)).plan(
            problem_of(model), model.initial(1), None, [rng.generator(0, "planner")]
        )
    assert split.inference > 0 < split.optimisation
    assert torch.autograd.grad is before
    seen = split.inference
    GradMPC(GradMPCConfig(horizon=3, iterations=2)).plan(
        problem_of(model), model.initial(1), None, [rng.generator(0, "planner")]
    )
    assert split.inference == seen


def test_what_draws_of_the_latents_cost_is_imagining() -> None:
    """Not the rest, where Grad-MPC asks what its model is sure of."""
    model = world()
    search = Search(problem_of(model), model.initial(1), [rng.generator(0, "planner")], 3)
    plans, after = torch.zeros(1, 1, 3, 2), [0.0]
    with measured() as split:
        for ask in (search.unroll, lambda plans: search.doubt(plans[:, 0]), lambda plans: search.expected(plans, 2)):
            ask(plans)
            after.append(split.inference)
    assert after == sorted(set(after))


def cost(config: object) -> float:
    """A model step costs a microsecond: 12x10x1000 takes 120 ms."""
    return config.horizon * getattr(config, "iterations", 1) * config.candidates / 1e3  # type: ignore[attr-defined]


@pytest.mark.parametrize("limit", [5.0, 30.0, 100.0, 300.0])
@pytest.mark.parametrize("config", [CEMConfig(), GradMPCConfig(candidates=64), RandomShootingConfig()])
def test_scaled_settings_use_most_of_the_budget(config: object, limit: float) -> None:
    scaled = budget.within(config, limit, cost)
    assert 0.85 * limit <= cost(scaled) <= limit


def test_time_is_what_the_clock_says() -> None:
    """Half a second between any two looks, of which the first round does not count."""
    ticks, told = count(0, 0.5), []
    assert interleaved(told.append, repeats=2, warm=1, clock=lambda: next(ticks)) == [500.0]
    assert told == [0, 1, 2]
    assert clock_of(torch.device("cpu")) is time.process_time
    assert clock_of(torch.device("cuda")) is time.perf_counter


def test_sizes_in_words() -> None:
    written = [budget.sizes(config) for config in (CEMConfig(), RandomShootingConfig(candidates=7), RandomConfig())]
    assert written == ["1000x10", "7", "-"]


def test_what_is_scaled() -> None:
    cem = budget.within(CEMConfig(), 30.0, cost)
    assert (cem.iterations, cem.elites) == (10, round(cem.candidates / 10))
    climbing = budget.within(GradMPCConfig(), 4.0, cost)
    assert climbing.candidates == GradMPCConfig().candidates
    assert climbing.iterations > GradMPCConfig().iterations
    tight = budget.within(CEMConfig(), 1.0, cost)  # 32 candidates take 3.84 ms, in two iterations 0.77: 40 take 0.96
    assert (tight.candidates, tight.iterations, tight.elites) == (40, 2, 4)
    assert budget.within(CEMConfig(), 1e-6, cost).iterations == 1


def played(milliseconds: float, mean: float) -> Played:
    about = {"agent": "planet", "observation": "state", "settings": {}, "env_steps": 1, "checkpoint": "last"}
    numbers = {"run_seed": 0, "seed": 0, "environments": 1, "returns": [mean], "milliseconds": [milliseconds]}
    evaluation = Evaluation(task="dmc/x", planner="cem", **about, **numbers)
    return Played("cem", evaluation, {}, busy_ms=milliseconds)


def test_the_front_holds_what_no_faster_one_beats() -> None:
    slow, best, fast, worse = played(100, 5), played(30, 9), played(3, 4), played(10, 4)
    assert front([slow, best, fast, worse]) == [fast, best]


def test_rows_of_the_picture(tmp_path: Path) -> None:
    one = dataclasses.replace(played(30, 9), budget_ms=40.0)
    write_rows([one], tmp_path / "rows.csv")
    (row,) = csv.DictReader((tmp_path / "rows.csv").read_text().splitlines())
    assert (row["planner"], row["budget_ms"], row["busy_ms"], row["return"]) == ("cem", "40.0", "30.0", "9.0")
    write_rows([played(30, 0.034)], tmp_path / "small.csv")
    assert next(csv.DictReader((tmp_path / "small.csv").read_text().splitlines()))["return"] == "0.034"
    assert (row["candidates"], row["low95"], row["episodes"]) == ("", "", "1")  # neither is known of one episode


# torch.compile looks at .grad of the tensors it is given; it hides the warning, but not where warnings are errors.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.slow
@pytest.mark.parametrize("fields", [{}, update.PLAIN])
def test_a_compiled_update_has_the_same_losses_and_gradients(fields: dict[str, object]) -> None:
    batch = update.experience(update.STATE, 2, 5)
    batch["is_init"][1, 3] = True
    found = []
    for compiled in (False, True):
        model = world(update.STATE, **fields)
        if compiled:
            model.compile_update()
        _, losses = model.observe(batch, generator=rng.generator(0, "model"))
        total(losses).backward()
        found.append((losses, {name: value.grad for name, value in model.named_parameters()}))
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-6)
    with torch.no_grad():  # another shape, without gradients: not compiled again
        _, alone = model.observe(batch[:1, :2])
    assert alone["loss/kl"].isfinite()
