"""The policy as one file that runs without this package: ONNX, or a program of torch.export.

One step: what is seen, what was done before, and the belief go in; the action and the new belief come out. Planners
search and stay behind; what they would start from is what is written.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from lightning_wm.agents.planet import PlaNet
from lightning_wm.errors import UserError
from lightning_wm.planning.policy_rollouts import mode
from lightning_wm.playing.actor import WorldModelActor
from lightning_wm.registry import build
from lightning_wm.runs.disk import write_atomically
from lightning_wm.runs.loading import planner_config
from lightning_wm.runs.untrusted import reason

if TYPE_CHECKING:
    from lightning_wm.runs.loading import LoadedRun

Format = Literal["onnx", "pt2"]
ABOUT = "lightning_wm.json"
"""Name of what the file says of itself: an ONNX model's metadata, an extra file of torch.export's."""
PREVIOUS, ACTION = "previous_action", "action"


class PolicyStep(nn.Module):
    """A filter's step and the policy's mode, of tensors alone, batch 1.

    Inputs, in the order of `inputs`: what is seen by its names, `previous_action` `[1, A]`, `state_NAME` for every
    tensor of the belief. Outputs, in the order of `outputs`: `action` `[1, A]` in [-1, 1] and `next_NAME`. An episode
    begins with zeros for the belief and the previous action.

    Raises:
        UserError: there is no policy, or the belief does not begin with zeros.
    """

    def __init__(self, agent: nn.Module, actor: WorldModelActor) -> None:
        super().__init__()
        self.agent, self.model, self.policy = agent, actor.model, actor.problem.policy
        self.seen = actor.intake.shapes
        initial = self.model.initial(1)
        if any(bool(value.any()) for value in initial.values()):
            raise UserError("the model's belief does not begin with zeros, which a policy's file has no place for")
        self.inputs = [*self.seen, PREVIOUS, *(f"state_{name}" for name in initial)]
        self.outputs = [ACTION, *(f"next_{name}" for name in initial)]
        like = next(iter(initial.values()))
        kinds = {"observation": torch.float32, "pixels": torch.uint8}
        shown = [torch.zeros(1, *shape, dtype=kinds[name]) for name, shape in self.seen.items()]
        self.example = (*shown, like.new_zeros(1, actor.problem.action), *initial.values())
        """Inputs to trace with, which are those of an episode's beginning."""

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        count = len(self.seen)
        seen = dict(zip(self.seen, tensors[:count], strict=True))
        names = (name.removeprefix("state_") for name in self.inputs[count + 1 :])
        state = dict(zip(names, tensors[count + 1 :], strict=True))
        after = self.model.filter(state, tensors[count], seen)  # it asks by name alone
        assert self.policy is not None
        return mode(self.policy(after)).clamp(-1.0, 1.0), *after.values()


def policy_step(loaded: LoadedRun) -> PolicyStep:
    """A run's policy.

    Raises:
        UserError: it has learned none.
    """
    if isinstance(loaded.agent, PlaNet) and "policy" not in loaded.agent.learned():
        raise UserError(
            f"a policy's file needs a policy, but this run learned none (agent={loaded.config.agent.name}); type "
            "format=folder for the model, or train with agent=dreamer"
        )
    actor = loaded.agent.actor(build("planner", planner_config(loaded, "policy", {})))
    if not isinstance(actor, WorldModelActor):
        raise UserError(f"agent={loaded.config.agent.name} acts by code of its own; expected a model and a policy")
    return PolicyStep(loaded.agent.cpu(), actor).eval()


def write_policy(loaded: LoadedRun, out: Path, kind: Format) -> None:
    """Write the file, whole or not at all.

    Raises:
        UserError: there is no policy, it cannot be traced, or what writes ONNX is not installed.
        DiskError: the file cannot be written.
    """
    step = policy_step(loaded)
    about = {
        **loaded.interface.as_json(),
        "task": loaded.config.task.name,
        "action_repeat": loaded.config.task.action_repeat,
        "env_steps": loaded.env_steps,
        "inputs": {name: list(value.shape) for name, value in zip(step.inputs, step.example, strict=True)},
        "outputs": step.outputs,
    }
    content = (_onnx if kind == "onnx" else _pt2)(step, about)
    write_atomically(out, lambda file: file.write(content))


def _pt2(step: PolicyStep, about: Mapping[str, Any]) -> bytes:
    program, buffer = _traced(step), BytesIO()
    with warnings.catch_warnings():
        # Weights that are views of one tensor, as TorchRL keeps them; a trouble of other devices than the CPU.
        warnings.filterwarnings("ignore", message="No complete tensor found")
        torch.export.save(program, buffer, extra_files={ABOUT: json.dumps(about)})
    return buffer.getvalue()


def _onnx(step: PolicyStep, about: Mapping[str, Any]) -> bytes:
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"format=onnx needs {error.name}, which is not installed; type `pip install 'lightning_wm[onnx]'`"
        ) from error
    # It warns of a library that is nowhere needed, and reports on its optimiser.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with redirect_stdout(StringIO()):
        written = torch.onnx.export(_traced(step), input_names=step.inputs, output_names=step.outputs, dynamo=True)
    assert written is not None
    model = written.model_proto
    onnx.helper.set_model_props(model, {ABOUT: json.dumps(about)})
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def _traced(step: PolicyStep) -> torch.export.ExportedProgram:
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's own pytree's
            return torch.export.export(step, step.example)
    except Exception as error:
        raise UserError(f"the policy cannot be traced ({reason(error)}); expected tensors' operations alone") from error
