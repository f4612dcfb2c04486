"""Films of episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import lightning.pytorch as pl
import numpy as np
from pydantic import Field
from torchrl.envs import EnvBase

from lightning_wm.config.fields import Count, settings
from lightning_wm.envs import make_env
from lightning_wm.envs.batched import SimulatorEnv
from lightning_wm.errors import DiskError, Interrupted, LightningWMError, UserError
from lightning_wm.playing.episode import Episode
from lightning_wm.playing.play import in_eval_mode, play
from lightning_wm.protocols import Actor
from lightning_wm.registry import register
from lightning_wm.runs.disk import write_atomically
from lightning_wm.runs.untrusted import reason
from lightning_wm.training.evaluation import Evaluate
from lightning_wm.training.state import acting_agent
from lightning_wm.training.trackers import trackers

FPS = 25


def film(
    env: EnvBase,
    actor: Actor,
    seed: int,
    path: Path,
    size: Annotated[int, Field(ge=16)] = 256,
    on_decision: Callable[[], None] | None = None,
) -> Episode:
    """Play one episode and write it as a video, one frame per decision.

    Args:
        env: environments of batch `[E]`; the first is filmed.
        actor: what acts.
        seed: of the filmed episode.
        path: an .mp4 file; its folder is made.
        size: height and width in pixels.
        on_decision: called after every decision.

    Raises:
        UserError: this machine cannot render.
        DiskError: the film cannot be written; nothing is left of it.
    """
    frames: list[np.ndarray[Any, Any]] = []

    def shoot() -> None:
        frames.append(np.asarray(env.frame(0, size)))
        if on_decision is not None:
            on_decision()

    seeds = [seed + row for row in range(env.batch_size[0])]
    episode = play(env, actor, seeds, on_decision=shoot, first=0)[0]
    write_film(path, frames[: episode.length])
    return episode


def write_film(path: Path, frames: Sequence[np.ndarray[Any, Any]], fps: int = FPS) -> None:
    """Write frames `[X, Y, 3]` uint8 as an .mp4.

    Raises:
        DiskError: it does not fit; nothing is left of it, and an older film stays.
        UserError: there is no ffmpeg, or the folder cannot be written to.
    """
    try:
        write_atomically(path, lambda file: _encode(path, file.name, frames, fps))
    except (RuntimeError, ImportError) as error:
        raise UserError(f"{path}: {reason(error)}; expected ffmpeg; type pip install 'imageio[ffmpeg]'") from error


def _encode(path: Path, into: str, frames: Sequence[np.ndarray[Any, Any]], fps: int) -> None:
    """Let ffmpeg write the file `into`, which is to become `path`; its own words are on standard error."""
    from imageio_ffmpeg import write_frames  # imageio itself goes by the suffix

    height, width = frames[0].shape[:2]
    try:
        writer = write_frames(into, (width, height), fps=fps, macro_block_size=16, output_params=["-f", "mp4"])
        with closing(writer):
            writer.send(None)
            for frame in frames:
                writer.send(np.ascontiguousarray(frame))
        if b"moov" not in Path(into).read_bytes():  # written last; ffmpeg's exit code is not passed on
            raise OSError("ffmpeg did not finish it")
    except OSError as error:
        raise DiskError(f"{path} could not be written: {str(error).splitlines()[0]}; free some space") from error


@settings("callbacks.video")
class VideoConfig:
    """When to film."""

    every: Count = 10_000
    """Env steps between two films."""
    size: Annotated[int, Field(ge=16)] = 256
    """Height and width in pixels."""


@register("callback", "video")
class Video(pl.Callback):
    """Films an evaluation episode every so many env steps; says once why it cannot."""

    Config = VideoConfig

    def __init__(self, config: VideoConfig | None = None) -> None:
        self.config = config or VideoConfig()
        self._done = 0
        self._fails = False
        self._env: EnvBase | None = None

    def state_dict(self) -> dict[str, int]:
        """How many films are done."""
        return {"done": self._done}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on from there."""
        self._done = state_dict["done"]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        evaluate = next((c for c in trainer.callbacks if isinstance(c, Evaluate)), None)  # type: ignore[attr-defined]
        if evaluate is None or not trainer.is_global_zero or self._fails:
            return
        reached = evaluate.state.counters.env_steps
        if reached // self.config.every == self._done:
            return
        self._done = reached // self.config.every
        actor = acting_agent(pl_module).actor(evaluate.planner, seed=evaluate.config.seed)
        path = Path(trainer.default_root_dir) / "videos" / f"{reached}.mp4"
        try:
            with in_eval_mode(pl_module):
                film(
                    self._stage(evaluate.env),
                    actor,
                    evaluate.config.seed,
                    path,
                    self.config.size,
                    evaluate.state.signals.poll,
                )
            for tracker in trackers(trainer.loggers):
                tracker.log_film("evaluation/video", path)
        except Interrupted:
            pass  # without this film: the turn's checkpoint follows
        except LightningWMError as error:
            self._fails = True  # for this process: whoever goes on may have mended it
            pl_module.print(f"no video: {error}")

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._env is not None:
            self._env.close()
            self._env = None

    def _stage(self, env: EnvBase) -> EnvBase:
        """What is filmed: one environment of the evaluation's task, so that nothing is played beside it."""
        if not isinstance(env, SimulatorEnv) or env.batch_size[0] == 1:
            return env
        if self._env is None:
            self._env = make_env(env.task, env.shown, 1)
        return self._env
