"""The card of a model folder: what it is, how it was judged, how it is used."""

from __future__ import annotations

import html
import json
import shlex
from collections.abc import Mapping
from typing import Any

import lightning_wm
from lightning_wm.config import Config
from lightning_wm.errors import printable
from lightning_wm.playing.results import decimal, interval

_CARD = """\
---
library_name: lightning_wm
tags: [{tags}]
{header}---

# {title}

{what}, exported by `lightning_wm` {version}.

| | |
|---|---|
| task | `{task}`, {repeat} env steps per action |
| observation | `{observation}` |
| {parts} |
| planner | `{planner}` |
| trained for | {env_steps:,} env steps, seed {seed}, checkpoint `{checkpoint}` |
| parameters | {parameters:,} |

## Returns

{returns}

## Use

```python
from lightning_wm import load_actor

actor = load_actor({folder}{plugins})
actor.reset()
action = actor.act(observation)  # in [-1, 1], to be held for {repeat} env steps
```

```bash
python -m lightning_wm.evaluate {run} episodes=10{typed}
```

`config.yaml` has every setting; given as `recipe=` it trains anew with them.
{needs}
## Licence

{licence}
"""
_UNLICENSED = "Not chosen yet: name one here, and in the header as `license:`, before you share this folder."
_RESULTS = """\
model-index:
- name: {name}
  results:
  - task: {{type: reinforcement-learning, name: reinforcement-learning}}
    dataset: {{name: {task}, type: {task}}}
    metrics:
    - {{type: mean_reward, name: mean_reward, value: "{mean}{spread}"}}
"""
_TABLE = """\
| planner | episodes | episode seeds | mean return | 95 % interval | IQM |
|---|---:|---|---:|---|---:|
| `{planner}` | {episodes} | {first} to {last} | {mean} | {interval} | {iqm} |

The sum of rewards of an episode, over episodes that were played after training; the interval is Student's of their
mean. `evaluation.json` has every return and the planner's settings."""
_NONE = "Not evaluated yet; the command below does it."


def card(
    config: Config,
    folder: str,
    env_steps: int,
    checkpoint: str,
    parameters: int,
    world_model: bool,
    evaluation: Mapping[str, Any] | None,
    licence: str | None = None,
) -> str:
    """The text of `README.md`.

    Args:
        config: the run's.
        folder: the model folder's name.
        env_steps: of the checkpoint.
        checkpoint: `last` or `best`.
        parameters: how many numbers the weights have.
        world_model: whether there is one among what was learned.
        evaluation: content of `evaluation.json`, or None.
        licence: its identifier (mit, apache-2.0); None for not chosen yet.
    """
    plugins = ",".join(config.plugins)
    agent = _text(config.agent.name)
    parts = f"model, agent | `{_text(config.model.name)}`, `{agent}`" if world_model else f"agent | `{agent}`"
    needs = f"\nIt needs the Python packages {_text(plugins)}, which are code of their own: look at them first.\n"
    return _CARD.format(
        title=f"{_text(config.task.name)}, {env_steps:,} env steps",
        version=lightning_wm.__version__,
        task=_text(config.task.name),
        repeat=config.task.action_repeat,
        observation=_text(config.observation.kind),
        what="A world model and what learned it" if world_model else "A policy, learned without a world model",
        tags="world-model, model-based-reinforcement-learning, planning" if world_model else "reinforcement-learning",
        parts=parts,
        planner=_text(config.planner.name),
        env_steps=env_steps,
        seed=config.seed,
        checkpoint=_text(checkpoint),
        parameters=parameters,
        returns=_NONE if evaluation is None else _table(evaluation),
        folder=json.dumps(folder, ensure_ascii=False),
        run=shlex.quote(f"run={folder}"),
        plugins=f", plugins={config.plugins!r}" if plugins else "",
        typed=f" {shlex.quote(f'plugins=[{plugins}]')}" if plugins else "",
        needs=needs if plugins else "",
        header=_header(config, folder, evaluation, licence),
        licence=_UNLICENSED if licence is None else f"`{licence}`",
    )


def _header(config: Config, folder: str, evaluation: Mapping[str, Any] | None, licence: str | None) -> str:
    """What a hub reads: licence and results."""
    lines = "" if licence is None else f"license: {licence}\n"
    if evaluation is None:
        return lines
    name, task = (json.dumps(printable(text)) for text in (folder, config.task.name))
    low, high = evaluation["interval95"]
    spread = "" if low is None else f" +/- {decimal((high - low) / 2)}"
    return lines + _RESULTS.format(name=name, task=task, mean=decimal(evaluation["mean"]), spread=spread)


def _text(value: str) -> str:
    """What may come from anybody as one line that is text and nothing else, inside of code and tables too."""
    line = html.escape(" ".join(printable(value).split()), quote=False)
    return line.replace("`", "'").replace("|", "\\|").replace("[", "\\[")


def _table(evaluation: Mapping[str, Any]) -> str:
    return _TABLE.format(
        planner=_text(evaluation["planner"]),
        episodes=evaluation["episodes"],
        first=evaluation["seed"],
        last=evaluation["seed"] + evaluation["episodes"] - 1,
        mean=decimal(evaluation["mean"]),
        interval=interval(*evaluation["interval95"]),
        iqm=decimal(evaluation["iqm"]),
    )
