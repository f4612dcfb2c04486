"""One step of a GRU model after the other, without autograd's bookkeeping.

Autograd would add up the gradient of every weight step by step: T small matrix products each. Here the steps only
carry the state's gradient, and each weight's gradient is one product over all `T*B` rows (`backward.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_wm.models.fast.backward import Cell, Tape, backward, weight_gradients

_APPLY = {"elu": F.elu_, "relu": F.relu_}

ACTIVATIONS = tuple(_APPLY)
"""Activations that the scan knows."""


class Inputs(NamedTuple):
    """What a scan begins with and takes in on the way."""

    action_share: Tensor
    """`[T, B, hidden]`: the action's share of the GRU's input layer, bias included."""
    head_share: Tensor
    """`[T, B, hidden]`: the observation's share of the posterior's hidden layer, bias included; the prior's bias."""
    keep: Tensor | None
    """`[T, B, 1]`, 0 where an episode begins and the state is forgotten, else 1; None where none begins."""
    noise: Tensor | None
    """`[T, B, S]`, as the latent draws it; None takes the mode."""
    deter: Tensor
    """`[B, D]` before the first step."""
    stoch: Tensor
    """`[B, S]` before the first step."""


class Weights(NamedTuple):
    """What a step multiplies with."""

    state_in: Tensor  # [hidden, S]: the stochastic state's part of the GRU's input layer
    weight_ih: Tensor  # [3D, hidden], the GRU's, as the next three
    weight_hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor
    deter_in: Tensor  # [hidden, D]: the deterministic state's part of the prior's or posterior's hidden layer
    out_weight: Tensor  # [outputs, hidden] to `raw`; without noise, those rows that the mode depends on
    out_bias: Tensor


class Steps(NamedTuple):
    """What a scan gives, each differentiable in inputs and weights."""

    deters: Tensor  # [T, B, D]
    stochs: Tensor  # [T, B, S]
    raws: Tensor  # [T, B, outputs], what the stochastic states were drawn from


Fill = Callable[[int, Tensor, Tensor, Tensor], None]
"""`fill(step, deter, stoch, out)` writes the action's share of a step `[B, hidden]` to `out`."""


def scan(cell: Cell, inputs: Inputs, weights: Weights) -> Steps:
    """All T steps, differentiable once."""
    return Steps(*_Scan.apply(cell, *inputs, *weights))  # type: ignore[no-untyped-call]


def record(cell: Cell, inputs: Inputs, weights: Weights, fill: Fill) -> tuple[Steps, Callable[[Tensor], Steps]]:
    """Take steps whose actions are chosen on the way, and hand out how the result depends on them.

    Args:
        cell: the activation and the latent.
        inputs: `action_share` is written by `fill`; nothing of it is forgotten (`keep` is None).
        weights: detached.
        fill: chooses the actions.

    Returns:
        The steps without a graph, and a function from the action's shares `[T, B, hidden]` (the values that were
        written) to the same steps with a gradient.
    """
    with torch.no_grad():
        steps, tape = forward(cell, inputs, weights, fill)

    def attach(shares: Tensor) -> Steps:
        return Steps(*_Recorded.apply(cell, steps, tape, shares))  # type: ignore[no-untyped-call]

    return steps, attach


def forward(cell: Cell, inputs: Inputs, weights: Weights, fill: Fill | None = None) -> tuple[Steps, Tape]:
    """The steps, and what their gradient needs."""
    w, act, draws = weights, _APPLY[cell.activation], cell.draws
    deter, stoch, keep = inputs.deter, inputs.stoch, inputs.keep
    t, b, _ = inputs.action_share.shape
    d, s = deter.shape[1], stoch.shape[1]
    new = inputs.action_share.new_empty
    hidden_in, hidden_out = new(t, b, len(w.state_in)), new(t, b, len(w.deter_in))
    gates, candidate, from_state, from_input = new(t, b, 2 * d), new(t, b, d), new(t, b, 3 * d), new(b, 3 * d)
    deters, stochs, raws = new(t, b, d), new(t, b, s), new(t, b, len(w.out_weight))
    into, ih, hh, head, out = (m.t() for m in (w.state_in, w.weight_ih, w.weight_hh, w.deter_in, w.out_weight))
    input_gates, input_candidate = from_input.split((2 * d, d), 1)
    # Taking rows of a tensor in the loop costs as much as the arithmetic on them: they are all taken here.
    rows = zip(
        inputs.action_share.unbind(), inputs.head_share.unbind(), hidden_in.unbind(), hidden_out.unbind(),
        gates.unbind(), gates[..., :d].unbind(), gates[..., d:].unbind(), candidate.unbind(),
        from_state.unbind(), from_state[..., : 2 * d].unbind(), from_state[..., 2 * d :].unbind(),
        deters.unbind(), stochs.unbind(), raws.unbind(), draws.rows(raws), _or_none(keep, t), _or_none(inputs.noise, t),
        strict=True,
    )  # fmt: skip
    for step, (
        action, observation, h_in, h_out, gate, reset, update, new_d, recurrent, recurrent_gates, recurrent_d,
        next_d, next_s, raw, raw_row, kept, noise,
    ) in enumerate(rows):  # fmt: skip
        if fill is not None:
            fill(step, deter, stoch, action)
        if kept is not None:
            deter, stoch = deter * kept, stoch * kept
        act(torch.addmm(action, stoch, into, out=h_in))
        torch.addmm(w.bias_ih, h_in, ih, out=from_input)
        torch.addmm(w.bias_hh, deter, hh, out=recurrent)
        torch.add(input_gates, recurrent_gates, out=gate).sigmoid_()
        torch.addcmul(input_candidate, reset, recurrent_d, out=new_d).tanh_()
        deter = torch.lerp(new_d, deter, update, out=next_d)
        act(torch.addmm(observation, deter, head, out=h_out))
        torch.addmm(w.out_bias, h_out, out, out=raw)
        stoch = draws.draw_(raw_row, noise, next_s)
    before_d, before_s = _before(inputs.deter, deters, keep), _before(inputs.stoch, stochs, keep)
    tape = Tape(
        inputs.noise, keep, before_d, before_s, hidden_in, hidden_out, gates, candidate, from_state[..., 2 * d :],
        deters, raws, w.state_in, w.weight_ih, w.weight_hh, w.deter_in, w.out_weight,
    )  # fmt: skip
    return Steps(deters, stochs, raws), tape


def _or_none(values: Tensor | None, steps: int) -> Sequence[Tensor | None]:
    return [None] * steps if values is None else values.unbind()


def _before(first: Tensor, later: Tensor, keep: Tensor | None) -> Tensor:
    """What each step came from, `[T, B, ...]`."""
    before = torch.cat([first[None], later[:-1]])
    return before if keep is None else before * keep


class _Context(Protocol):
    """What a forward pass leaves for its backward pass."""

    cell: Cell
    tape: Tape
    needs_input_grad: Sequence[bool]

    @property
    def saved_tensors(self) -> tuple[Tensor, ...]:
        """What was saved, in order."""

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """For `saved_tensors`."""


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Context, cell: Cell, *flat: Any) -> tuple[Tensor, ...]:
        count = len(Inputs._fields)
        steps, tape = forward(cell, Inputs(*flat[:count]), Weights(*flat[count:]))
        ctx.cell = cell
        ctx.save_for_backward(*tape)
        return tuple(steps)

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, *grads: Tensor) -> tuple[Tensor | None, ...]:
        tape, first = Tape(*ctx.saved_tensors), 1 + len(Inputs._fields)
        g = backward(ctx.cell, tape, grads)
        of_weights = any(ctx.needs_input_grad[first:])
        weights = weight_gradients(tape, g) if of_weights else [None] * len(Weights._fields)
        return (None, g.action_share, g.head_share, None, None, g.deter, g.stoch, *weights)


class _Recorded(torch.autograd.Function):
    """Steps that were taken already, as a function of the action's share."""

    @staticmethod
    def forward(ctx: _Context, cell: Cell, steps: Steps, tape: Tape, shares: Tensor) -> tuple[Tensor, ...]:
        ctx.cell, ctx.tape = cell, tape
        return tuple(values.detach() for values in steps)

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, backward(ctx.cell, ctx.tape, grads).action_share
