"""Draws the pictures of the index page and the curves of learning.md from what ships: models, and results/curves.csv.

From the root of a checkout: `python -m docs.figures.gallery`. The films need a machine that renders.
"""

from __future__ import annotations

import csv
import tempfile
from collections import defaultdict
from contextlib import closing
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from lightning_wm.playing.play import play
from lightning_wm.registry import build
from lightning_wm.runs.loading import load_run, planner_config
from lightning_wm.training.films import as_gif
from lightning_wm.training.open_loop import FPS, frames, predict
from lightning_wm.training.posed import Posed
from lightning_wm.training.video import film

HERE = Path(__file__).parent
CURVES = HERE.parent / "results" / "curves.csv"


def draw_learning() -> None:
    """Evaluations of every training seed, a panel a task; runs with changed settings have a dashed line."""
    runs: dict[str, dict[tuple[str, str, str], list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    with CURVES.open() as file:
        for row in csv.DictReader(file):
            if row["kind"] == "evaluation":
                run = (row["agent"], row["run_seed"], row["settings"])
                runs[f"{row['recipe']} ({row['observation']})"][run].append(
                    (int(row["env_steps"]), float(row["return"]))
                )
    shown = sorted(runs)
    rows = -(-len(shown) // 3)
    figure = Figure(figsize=(12, 2.7 * rows), layout="constrained")
    axes = list(figure.subplots(rows, 3, squeeze=False).flat)
    agents = sorted({agent for by_run in runs.values() for agent, _, _ in by_run})
    for axis, recipe in zip(axes, shown, strict=False):
        for (agent, seed, settings), points in sorted(runs[recipe].items()):
            steps, returns = zip(*sorted(points), strict=True)
            style = "o-" if settings in ("", "{}", f'{{"agent":"{agent}"}}') else "o--"
            axis.plot(
                steps, returns, style, markersize=3, color=f"C{agents.index(agent)}", label=f"{agent}, seed {seed}"
            )
        axis.set(title=recipe, xlabel="env steps", ylabel="return", ylim=(0, 1000))
        axis.grid(alpha=0.3)
        axis.legend(fontsize="x-small")
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    figure.savefig(HERE / "learning.png", dpi=90)


def draw_open_loop() -> None:
    """An open-loop film: the quickstart's model on an episode that it plays with some noise."""
    loaded = load_run("zoo:cartpole_swingup")
    actor = loaded.agent.actor(build("planner", loaded.config.planner), noise=0.3)
    posed = Posed(lambda: loaded.environments(1))
    with closing(loaded.environments(1)) as env, closing(posed):
        (episode,) = play(env, actor, [3], keep=True)
        assert episode.transitions is not None
        prediction = predict(loaded.agent.model, episode.transitions[None, :50], seen=5)
        assert prediction is not None
        first, *others = map(Image.fromarray, frames(prediction, loaded.interface.layout, posed))
    # A GIF would be three times as large.
    first.save(HERE / "open_loop.webp", save_all=True, append_images=others, duration=1000 // FPS, loop=0, quality=60)


def draw_episodes() -> None:
    """An episode of two models that ship, as moving pictures."""
    for name, planner in (("cartpole_swingup", "grad_mpc"), ("ball_in_cup_catch", "policy_grad_mpc")):
        loaded = load_run(f"zoo:{name}")
        actor = loaded.agent.actor(build("planner", planner_config(loaded, planner, {})), seed=20_000)
        with closing(loaded.environments(1)) as env, tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "film.mp4"
            film(env, actor, 20_000, path)
            (HERE / f"{name}.gif").write_bytes(as_gif(path).content)


if __name__ == "__main__":
    draw_learning()
    draw_open_loop()
    draw_episodes()
