"""What the project says of itself: versions agree, dependencies are pinned, the documentation's examples run."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import lightning_wm
from lightning_wm import registry
from lightning_wm.protocols import Problem

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _name(requirement: str) -> str:
    return re.split(r"[\[<>=!~ ]", requirement)[0].lower().replace("_", "-")


def test_every_dependency_has_a_tested_version() -> None:
    """What a user or the tests install is in constraints.txt, exactly."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {_name(line) for line in lines if re.fullmatch(r"[\w.-]+==[\w.]+", line)}
    extras = PROJECT["optional-dependencies"]
    installed = ("gym", "ray", "trackio", "wandb", "test", "docs", "lint", "types")
    groups = [PROJECT["dependencies"], *(extras[extra] for extra in installed)]
    assert {_name(one) for group in groups for one in group} <= pinned


def test_one_version_everywhere() -> None:
    """CITATION.cff and the package name the same version; what is built takes the package's."""
    (cited,) = re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited == lightning_wm.__version__
    assert "version" in PROJECT["dynamic"]


def test_links_between_pages_lead_somewhere() -> None:
    """Every relative link of README, CONTRIBUTING and docs/ names a file."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    assert len(pages) > 5
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).is_file(), f"{page.relative_to(ROOT)}: {target}"


@pytest.fixture
def _unregistered() -> Iterator[None]:
    yield
    registry._classes["planner"].pop("mine", None)


@pytest.mark.usefixtures("_unregistered")
def test_the_documented_planner_plans() -> None:
    """docs/extend.md's planner, as printed: its plan is its best candidate and beats doing nothing on average."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "extend.md").read_text(), re.DOTALL)
    scope: dict[str, Any] = {}
    exec(compile(code, "docs/extend.md", "exec", dont_inherit=True), scope)
    planner = registry.lookup("planner", "mine")(scope["MineConfig"](horizon=1, candidates=500))
    problem = Problem(
        action=1,
        imagine=lambda state, action, _: {"x": state["x"] + action},
        reward=lambda state: -state["x"].square().sum(-1),
    )
    generators = [torch.Generator().manual_seed(row) for row in range(2)]
    plan = planner.plan(problem, {"x": torch.tensor([[0.5], [-0.25]])}, None, generators)
    # The optimum is to move to 0; among 500 uniform actions one is almost surely within 0.02 of it.
    torch.testing.assert_close(plan["action"], torch.tensor([[-0.5], [0.25]]), rtol=0, atol=0.02)
    torch.testing.assert_close(plan["stats", "score_best"], plan["candidates", "score"].max(1).values)
