"""The gradient of `scan.forward`, written out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_wm.models.fast.draws import Draws

_OUTPUT_SLOPE = {
    "elu": lambda out: out.clamp(max=0.0).add_(1.0),
    "relu": lambda out: (out > 0).to(out.dtype),
}
"""Slopes of activations as functions of their outputs."""


class Cell(NamedTuple):
    """What a step does beside multiplying."""

    activation: str
    """Of the hidden layers, one of `scan.ACTIVATIONS`."""
    draws: Draws
    """How the stochastic state is drawn."""


class Tape(NamedTuple):
    """What the gradient needs of the steps that were taken, each `[T, B, ...]`, and of the weights."""

    noise: Tensor | None
    keep: Tensor | None
    before_d: Tensor  # D: the deterministic states that the steps came from
    before_s: Tensor  # S
    hidden_in: Tensor  # the GRU's inputs
    hidden_out: Tensor  # the prior's or posterior's hidden layer
    gates: Tensor  # 2D: the GRU's reset and update gates
    candidate: Tensor  # D: the GRU's new state, before it is mixed with the old one
    recurrent: Tensor  # D: what the old state adds to the candidate, before the reset gate
    deters: Tensor
    raws: Tensor
    state_in: Tensor
    weight_ih: Tensor
    weight_hh: Tensor
    deter_in: Tensor
    out_weight: Tensor


class Gradients(NamedTuple):
    """With respect to what each step computed, `[T, B, ...]`, and to the state before the first."""

    action_share: Tensor  # hidden; the same for all that the GRU's input layer adds up
    head_share: Tensor  # hidden; the same for all that the prior's or posterior's hidden layer adds up
    ih: Tensor  # 3D: the GRU's input products
    hh: Tensor  # 3D: the GRU's recurrent products
    raw: Tensor  # outputs
    deter: Tensor  # [B, D]
    stoch: Tensor  # [B, S]


def backward(cell: Cell, tape: Tape, grads: tuple[Tensor, ...]) -> Gradients:
    """From the gradients of `Steps`, last step first: the loop holds only what needs a later step's gradient."""
    grad_deters, grad_stochs, grad_raws = grads
    t, b, d = tape.deters.shape
    new, draws = tape.deters.new_empty, cell.draws
    slope_in, slope_out = (_OUTPUT_SLOPE[cell.activation](hidden) for hidden in (tape.hidden_in, tape.hidden_out))
    to_candidate, to_update, to_reset = _gate_slopes(tape)
    raw, head, share = grad_raws.clone(), new(tape.hidden_out.shape), new(tape.hidden_in.shape)
    ih, hh = new(t, b, 3 * d), new(t, b, 3 * d)
    carry_d, carry_s = tape.deters.new_zeros(b, d), tape.deters.new_zeros(b, tape.before_s.shape[2])
    rows = zip(
        grad_stochs.unbind(), raw.unbind(), draws.rows(raw), draws.slopes(tape.raws, tape.noise),
        head.unbind(), slope_out.unbind(), grad_deters.unbind(), ih.unbind(),
        ih[..., :d].unbind(), ih[..., d : 2 * d].unbind(), ih[..., 2 * d :].unbind(),
        to_candidate.unbind(), to_reset.unbind(), to_update.unbind(),
        tape.gates[..., :d].unbind(), tape.gates[..., d:].unbind(),
        hh.unbind(), hh[..., : 2 * d].unbind(), hh[..., 2 * d :].unbind(),
        ih[..., : 2 * d].unbind(), share.unbind(), slope_in.unbind(),
        [None] * t if tape.keep is None else tape.keep.unbind(),
        strict=True,
    )  # fmt: skip
    for (
        g_stoch, g_raw, g_raw_row, draw_slope, g_head, s_out, g_deter, g_ih, g_reset, g_update, g_candidate,
        into_candidate, into_reset, into_update, reset, update, g_hh, g_hh_gates, g_hh_candidate, g_ih_gates,
        g_share, s_in, kept,
    ) in reversed(list(rows)):  # fmt: skip
        carry_s = carry_s.add_(g_stoch)
        draws.pull_(g_raw_row, carry_s, draw_slope)
        torch.mm(g_raw, tape.out_weight, out=g_head).mul_(s_out)
        carry_d = torch.addmm(carry_d, g_head, tape.deter_in).add_(g_deter)
        torch.mul(carry_d, into_candidate, out=g_candidate)
        torch.mul(g_candidate, into_reset, out=g_reset)
        torch.mul(carry_d, into_update, out=g_update)
        g_hh_gates.copy_(g_ih_gates)
        torch.mul(g_candidate, reset, out=g_hh_candidate)
        torch.mm(g_ih, tape.weight_ih, out=g_share).mul_(s_in)
        carry_d = torch.addmm(carry_d.mul_(update), g_hh, tape.weight_hh)
        carry_s = torch.mm(g_share, tape.state_in)
        if kept is not None:
            carry_d.mul_(kept)
            carry_s.mul_(kept)
    return Gradients(share, head, ih, hh, raw, carry_d, carry_s)


def weight_gradients(tape: Tape, g: Gradients) -> list[Tensor]:
    """In the order of `scan.Weights`: one product over all `T*B` rows each."""

    def product(gradient: Tensor, inputs: Tensor) -> Tensor:
        return gradient.flatten(0, 1).t() @ inputs.flatten(0, 1)

    return [
        product(g.action_share, tape.before_s),
        product(g.ih, tape.hidden_in),
        product(g.hh, tape.before_d),
        g.ih.sum((0, 1)),
        g.hh.sum((0, 1)),
        product(g.head_share, tape.deters),
        product(g.raw, tape.hidden_out),
        g.raw.sum((0, 1)),
    ]


def _gate_slopes(tape: Tape) -> tuple[Tensor, Tensor, Tensor]:
    """What the gradient is multiplied by on its way to candidate, update and reset gate, for all steps at once."""
    reset, update = tape.gates.chunk(2, -1)
    to_candidate = (1 - update) * (1 - tape.candidate * tape.candidate)
    to_update = (tape.before_d - tape.candidate) * update * (1 - update)
    return to_candidate, to_update, tape.recurrent * reset * (1 - reset)
