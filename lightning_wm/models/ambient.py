"""torch's ambient modes, which the caller's program may have set for its own ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from lightning_wm.errors import UserError

AUTOCAST = ("cpu", "cuda", "mps", "xpu")


@contextmanager
def settled() -> Iterator[None]:
    """No inference mode, no autocast, float32 and the CPU as defaults: what loads, plays and commands computes so.

    What the caller had set is set again afterwards. Modules and tensors keep their own type and device.
    """
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            # It enables gradients too, which the caller of inference mode did not want either.
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
        for device in AUTOCAST:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        default = torch.get_default_dtype()
        if default != torch.float32:
            stack.callback(torch.set_default_dtype, default)
            torch.set_default_dtype(torch.float32)
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield


def refuse_where_nothing_learns(module: torch.nn.Module) -> None:
    """Before a Trainer's first update.

    Raises:
        UserError: inference mode is on or has made the weights, or the weights are of half precision.
    """
    if torch.is_inference_mode_enabled():
        raise UserError("nothing can be learned inside torch.inference_mode(); call Trainer.fit outside of it")
    for name, weight in module.named_parameters():
        if weight.is_inference():
            raise UserError(
                f"{name} was made inside torch.inference_mode() and cannot learn; make the model outside of it"
            )
        if weight.dtype in (torch.float16, torch.bfloat16):
            kind = str(weight.dtype).removeprefix("torch.")
            raise UserError(
                f"{name} is of {kind}, in which updates of Adam's size and running statistics are lost; expected "
                "float32 weights: type Trainer(precision='bf16-mixed') (trainer.precision=bf16-mixed)"
            )
