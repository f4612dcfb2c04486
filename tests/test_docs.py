"""Every code block of README and docs does what it says: programs run, commands are accepted, recipes are recipes."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_wm import registry
from lightning_wm.__main__ import COMMANDS
from lightning_wm.__main__ import main as command
from lightning_wm.errors import NumericsError
from tests.conftest import TINY

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NO_CODE = {"{eval-rst}", "{toctree}", "{include} ../SECURITY.md", "{code-cell} python3", "{raw} html"}
"""What Sphinx runs by itself, the notebooks' cells included; an error there ends the build."""
OTHERS = re.compile(
    r"pip install|nox -s|\.ci/run$|python -m venv|\. \.venv|pre-commit install|apt-get install|tensorboard --logdir"
)
"""Commands that are not ours and change the machine."""


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: str
    line: int
    kind: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks() -> Iterator[Block]:
    for page in PAGES:
        lines: list[str] = []
        kind, start, fence = None, 0, ""
        for number, line in enumerate(page.read_text().splitlines(), 1):
            opening = re.match(r"\s*(`{3,})(.*)", line)
            if kind is None and opening:
                fence, kind, start, lines = opening[1], opening[2].strip(), number, []
            elif kind is not None and line.strip() == fence:
                yield Block(page.relative_to(ROOT).as_posix(), start, kind, "\n".join(lines) + "\n")
                kind = None
            elif kind is not None:
                lines.append(line)
        assert kind is None, f"{page}:{start} is not closed"


ALL = [block for block in blocks() if block.kind not in NO_CODE]
PROGRAMS = [block for block in ALL if "python" in block.kind and block.page != "README.md"]  # test_readme.py has those
SHELL = [block for block in ALL if block.kind == "bash" or ("python -m" in block.code and "python" not in block.kind)]
YAML = [block for block in ALL if block.kind == "yaml"]
DRAWINGS = [block for block in ALL if block not in SHELL + YAML and "python" not in block.kind]


def test_nothing_is_left_out() -> None:
    """A block of a kind that no test here knows has to be looked at."""
    assert len(PROGRAMS) >= 8
    assert len(SHELL) >= 20
    drawn = [("docs/architecture.md", ""), ("docs/report.md", "text")]
    assert [(block.page, block.kind) for block in DRAWINGS] == drawn


@pytest.fixture
def workspace(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the pages speak of: runs/mine and others, and a model folder."""
    for name in ("runs/mine", "runs/a", "RUN"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(trained) if name != "runs/mine" else shutil.copytree(trained, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "plugins_example"))
    assert command(["export", "run=runs/mine", "out=my_model"]) == 0
    return tmp_path


# ---- commands


HERE = {
    "run=hub:me/my_model": "run=my_model",  # tests/test_sources.py has a hub
    "push=hub:me/my_model": "checkpoint=last",
    "run=runs/state-walker_walk-s0": "run=runs/mine",
}
"""What the workspace has in place of what takes a network, or half an hour of training."""


def spoken(block: Block) -> Iterator[list[str]]:
    """The words of every command of ours in a block; what stands in [brackets] may be left out, and is."""
    for line in block.code.splitlines():
        for part in re.sub(r" #.*| \[.*?\]", "", f" {line}").removeprefix(" srun").split("&&"):
            words = shlex.split(part.strip(), comments=True)
            if words[:2] == ["python", "-m"] and words[2].startswith("lightning_wm."):
                yield [words[2].removeprefix("lightning_wm."), *(HERE.get(word, word) for word in words[3:])]
            elif words[:1] == ["lightning_wm"]:
                yield [words[1], *(HERE.get(word, word) for word in words[2:])]
            elif words:
                assert OTHERS.match(part.strip()), f"{block}: {part}"


COMMAND_LINES = [(str(block), words) for block in SHELL for words in spoken(block)]


@pytest.mark.parametrize(("place", "words"), COMMAND_LINES, ids=lambda value: value if isinstance(value, str) else "")
def test_commands(place: str, words: list[str], workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, rest = words[0], words[1:]
    assert name in COMMANDS, place
    checks: dict[str, Callable[[list[str]], int]] = {"fit": fit, "evaluate": evaluate, "bench": bench, "report": report}
    checks |= {"export": export, "study": study}
    code = checks[name](rest) if name in checks else command([name, *rest])
    assert code == 0, f"{place}: {capsys.readouterr().err}"


def fit(rest: list[str]) -> int:
    """What a run would be made of; a recipe list and help as they are."""
    rest = [
        word.replace("planner=mine", "planner=my_shooting").replace("my_package.planners", "my_package")
        for word in rest
    ]
    seeds = next((word for word in rest if word.startswith("seed=") and "," in word), None)
    rest = [word for word in rest if word != seeds]
    shown = {"--help", "--print", "recipe=list"} & {*rest}
    return command(["fit", *rest] if shown else ["fit", *rest, "--print"])


def evaluate(rest: list[str]) -> int:
    """Everything but the episodes: the run is loaded and every planner is built. A policy's need a run that has one."""
    from lightning_wm import config as configuration
    from lightning_wm.config.shipped import choices
    from lightning_wm.evaluate import EvaluateOptions, _load

    known = {*registry.names("planner"), *choices("planner")}
    planners = [word for word in rest if word.startswith("planner=")]
    for planner in (name for word in planners for name in word.removeprefix("planner=").split(",")):
        assert planner in known
    rest = [re.sub(r"policy\w*,?", "", word) if word.startswith("planner=") else word for word in rest]
    _load(configuration.options(rest, EvaluateOptions))
    return 0


def bench(rest: list[str]) -> int:
    """Everything but the measuring."""
    from lightning_wm import config as configuration
    from lightning_wm.bench import BenchOptions, _word
    from lightning_wm.benchmarks.returns import planner_of
    from lightning_wm.runs.loading import load_run

    _, given = _word(rest)
    options = configuration.options(given, BenchOptions)
    if options.run is not None:
        loaded = load_run(options.run)
        assert [planner_of(loaded, written) for written in options.planners]
    return 0


def report(rest: list[str]) -> int:
    """Two runs of one recipe and seed would be refused, which is right; pages are written in copies."""
    code = command(["report", "runs=runs/a", "out=results"])
    rest = [word.replace("runs/a,runs/b", "runs/a") for word in rest]
    pages = [word for word in rest if word.startswith("pages=")]
    assert all((ROOT / page).is_file() for word in pages for page in word.removeprefix("pages=").split(","))
    return code or command(["report", *[word for word in rest if word not in pages]])


def export(rest: list[str]) -> int:
    shutil.rmtree("my_model")
    best = not any(Path("runs/mine/checkpoints").glob("best.ckpt"))
    return command(["export", *[word for word in rest if not (best and word == "checkpoint=best")]])


def study(rest: list[str]) -> int:
    """Every cell is made and checked; none is started."""
    return command(["study", "status", *[word for word in rest if word != "status"]])


# ---- recipes and studies


@pytest.mark.parametrize("block", YAML, ids=str)
def test_files(block: Block, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "shown.yaml"
    path.write_text(block.code)
    if block.code.startswith(("overrides", "bench")) or "arms:" in block.code:
        assert command(["study", "status", f"study={path}", f"out={tmp_path}"]) == 0
        assert command(["study", "status", f"study={path}", f"out={tmp_path}", "size=small"]) == 0
    else:
        assert command(["fit", f"recipe={path}", "--print"]) == 0
    assert "error" not in capsys.readouterr().err


# ---- programs


@pytest.fixture
def unregistered() -> Iterator[None]:
    before = {kind: dict(names) for kind, names in registry._classes.items()}
    yield
    for kind, names in before.items():
        registry._classes[kind].clear()
        registry._classes[kind].update(names)


def observed() -> dict[str, Any]:
    return {"observation": {"observation": torch.zeros(5)}}


def bad_batch() -> dict[str, Any]:
    """A run that has ended with exit code 3 has left its last batch."""
    from tests.test_guard import train

    with suppress(NumericsError):
        train(Path("runs/mine"), bad_losses=[0, 1, 2, 3])
    return {}


def latent_env() -> dict[str, Any]:
    from tests.test_planner_torchrl import PointEnv

    return {"env": PointEnv()}


NEEDS: dict[str, Callable[[], dict[str, Any]]] = {
    "load_actor": observed,
    "bad_batch-rank0": bad_batch,
    "TorchRLPlanner": latent_env,
}
"""What a program takes from around it, by a word of it."""
SMALLER = {
    "max_epochs=-1": 'accelerator="cpu", logger=False, max_epochs=-1',
    "limit_train_batches=100": "limit_train_batches=2",
    "seed_episodes=5": "seed_episodes=1",
    "env_steps=20_000": "env_steps=2_000",
    "updates=100)": "updates=2)",
    "max_epochs=100": 'accelerator="cpu", logger=False, enable_checkpointing=False, max_epochs=1',
    "rollout(100": "rollout(2",
}
"""What would take minutes."""


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*smaller than the logging interval")
@pytest.mark.usefixtures("workspace", "unregistered")
@pytest.mark.parametrize("block", PROGRAMS, ids=str)
def test_programs(block: Block) -> None:
    code = block.code
    for shown, small in SMALLER.items():
        code = code.replace(shown, small)
    names = {name: value for word, make in NEEDS.items() if word in code for name, value in make().items()}
    exec(compile(code, str(block), "exec", dont_inherit=True), names)
    if "action = actor.act" in code:
        assert names["action"].shape == (1,)
        assert names["action"].abs().max() <= 1


@pytest.mark.usefixtures("unregistered")
def test_what_extends_it_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The planner, the model and the callback of docs/extend.md, typed in as they are, in one run with a bar."""
    monkeypatch.syspath_prepend(str(tmp_path))
    shown = [block for block in PROGRAMS if block.page == "docs/extend.md" and "@register(" in block.code]
    assert len(shown) == 3
    for number, block in enumerate(shown):
        (tmp_path / f"shown_{number}.py").write_text(block.code)
    plugins = ",".join(f"shown_{number}" for number in range(len(shown)))
    chosen = [f"plugins=[{plugins}]", "planner=mine", "model=sight_rssm", "callbacks.notes.every=1"]
    line = [word for word in TINY if word != "logging.progress=false"]
    assert command(["fit", *line, *chosen, f"run={tmp_path}/run", "evaluation.video=false"]) == 0
    assert "2 updates\n" in capsys.readouterr().out
