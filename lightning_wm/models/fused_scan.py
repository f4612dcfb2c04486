"""`scan` with a backward pass by hand.

Autograd would add up the gradient of every weight step by step: T small
matrix products each. Here the steps only carry the state's gradient, and each
weight's gradient is one product over all `T*B` rows. The result is that of
`scan` up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_wm.models.latents import Latent

_OUTPUT_SLOPE = {
    "elu": lambda out: out.clamp(max=0.0).add_(1.0),
    "relu": lambda out: (out > 0).to(out.dtype),
}
"""Slopes of activations as functions of their outputs."""
_APPLY = {"elu": F.elu_, "relu": F.relu_}

ACTIVATIONS = tuple(_APPLY)
"""Activations that `fused_scan` has."""


Saved = tuple[Tensor | None, ...]
Fill = Callable[[int, Tensor, Tensor, Tensor], None]


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, activation: str, latent: Latent, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        outputs, saved = _forward(activation, latent, *inputs)
        ctx.activation, ctx.latent = activation, latent
        ctx.save_for_backward(*saved)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _backward(ctx.activation, ctx.latent, ctx.saved_tensors, grads, any(ctx.needs_input_grad[8:]))


class _Recorded(torch.autograd.Function):
    """Steps that were taken already, as a function of the action's share."""

    @staticmethod
    def forward(
        ctx: Any,
        activation: str,
        latent: Latent,
        outputs: tuple[Tensor, Tensor, Tensor],
        saved: Saved,
        action_half: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.activation, ctx.latent, ctx.saved = activation, latent, saved
        deters, stochs, raws = (one.detach() for one in outputs)
        return deters, stochs, raws

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, None, _backward(ctx.activation, ctx.latent, ctx.saved, grads, False)[2]


def _forward(
    activation: str,
    latent: Latent,
    action_half: Tensor,
    observation_half: Tensor,
    keep: Tensor | None,
    noise: Tensor | None,
    deter: Tensor,
    stoch: Tensor,
    state_in: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    deter_in: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    *,
    fill: Fill | None = None,
) -> tuple[tuple[Tensor, Tensor, Tensor], Saved]:
    act = _APPLY[activation]
    t, b, _ = action_half.shape
    d, s = deter.shape[1], stoch.shape[1]
    new = action_half.new_empty
    hidden_in, hidden_out = new(t, b, state_in.shape[0]), new(t, b, deter_in.shape[0])
    gates, candidate, from_state = new(t, b, 2 * d), new(t, b, d), new(t, b, 3 * d)
    deters, stochs, raws = new(t, b, d), new(t, b, s), new(t, b, out_weight.shape[0])
    into, ih, hh, post, out = state_in.t(), weight_ih.t(), weight_hh.t(), deter_in.t(), out_weight.t()
    before = deter, stoch
    from_input = new(b, 3 * d)
    input_gates, input_candidate = from_input.split((2 * d, d), 1)
    # Taking rows of a tensor in the loop costs as much as the arithmetic on them: they are all taken here.
    rows = zip(
        action_half.unbind(), observation_half.unbind(), hidden_in.unbind(), hidden_out.unbind(),
        gates.unbind(), gates[..., :d].unbind(), gates[..., d:].unbind(), candidate.unbind(),
        from_state.unbind(), from_state[..., : 2 * d].unbind(), from_state[..., 2 * d :].unbind(),
        deters.unbind(), stochs.unbind(), raws.unbind(), latent.rows(raws),
        strict=True,
    )  # fmt: skip
    keeps = [None] * t if keep is None else keep.unbind()
    noises = [None] * t if noise is None else noise.unbind()
    for step, ((
        action, observation, h_in, h_out, gate, reset, update, new_d, recurrent, recurrent_gates, recurrent_d,
        next_d, next_s, raw, said,
    ), kept, drawn) in enumerate(zip(rows, keeps, noises, strict=True)):  # fmt: skip
        if fill is not None:
            fill(step, deter, stoch, action)
        if kept is not None:
            deter, stoch = deter * kept, stoch * kept
        act(torch.addmm(action, stoch, into, out=h_in))
        torch.addmm(bias_ih, h_in, ih, out=from_input)
        torch.addmm(bias_hh, deter, hh, out=recurrent)
        torch.add(input_gates, recurrent_gates, out=gate).sigmoid_()
        torch.addcmul(input_candidate, reset, recurrent_d, out=new_d).tanh_()
        deter = torch.lerp(new_d, deter, update, out=next_d)
        act(torch.addmm(observation, deter, post, out=h_out))
        torch.addmm(out_bias, h_out, out, out=raw)
        stoch = latent.draw_(said, drawn, next_s)
    previous_d, previous_s = (
        torch.cat([first[None], later[:-1]]) for first, later in zip(before, (deters, stochs), strict=True)
    )
    if keep is not None:
        previous_d, previous_s = previous_d * keep, previous_s * keep
    recurrent = from_state[..., 2 * d :]
    saved = (
        keep, noise, previous_d, previous_s, hidden_in, hidden_out, gates, candidate, recurrent, deters, raws,
        state_in, weight_ih, weight_hh, deter_in, out_weight,
    )  # fmt: skip
    return (deters, stochs, raws), saved


def _backward(
    activation: str,
    latent: Latent,
    saved: Any,
    grads: tuple[Tensor, ...],
    of_weights: bool,
) -> tuple[Tensor | None, ...]:
    (
        keep, noise, previous_d, previous_s, hidden_in, hidden_out, gates, candidate, recurrent, deters, raws,
        state_in, weight_ih, weight_hh, deter_in, out_weight,
    ) = saved  # fmt: skip
    grad_deters, grad_stochs, grad_raws = grads
    t, b, d = deters.shape
    s = previous_s.shape[2]
    slope_in, slope_out = (_OUTPUT_SLOPE[activation](h) for h in (hidden_in, hidden_out))
    # Everything that needs no gradient from a later step, for all steps at once.
    reset, update = gates[..., :d], gates[..., d:]
    into_candidate = (1 - update) * (1 - candidate * candidate)
    into_update = (previous_d - candidate) * update * (1 - update)
    into_reset = recurrent * reset * (1 - reset)
    new = deters.new_empty
    grad_raw, grad_post, grad_in = grad_raws.clone(), new(t, b, hidden_out.shape[2]), new(t, b, hidden_in.shape[2])
    grad_ih, grad_hh = new(t, b, 3 * d), new(t, b, 3 * d)
    carry_d, carry_s = deters.new_zeros(b, d), deters.new_zeros(b, s)
    rows = zip(
        grad_stochs.unbind(), grad_raw.unbind(), latent.rows(grad_raw), latent.slopes(raws, noise),
        grad_post.unbind(), slope_out.unbind(), grad_deters.unbind(), grad_ih.unbind(),
        grad_ih[..., :d].unbind(), grad_ih[..., d : 2 * d].unbind(), grad_ih[..., 2 * d :].unbind(),
        into_candidate.unbind(), into_reset.unbind(), into_update.unbind(), reset.unbind(), update.unbind(),
        grad_hh.unbind(), grad_hh[..., : 2 * d].unbind(), grad_hh[..., 2 * d :].unbind(),
        grad_ih[..., : 2 * d].unbind(), grad_in.unbind(), slope_in.unbind(),
        strict=True,
    )  # fmt: skip
    keeps = [None] * t if keep is None else keep.unbind()
    for (
        g_stoch, g_raw, g_said, to_said, g_post, s_out, g_deter, g_ih, g_reset, g_update, g_candidate,
        to_candidate, to_reset, to_update, r, z, g_hh, g_hh_gates, g_hh_candidate, g_ih_gates, g_in, s_in,
    ), kept in reversed(list(zip(rows, keeps, strict=True))):  # fmt: skip
        carry_s = carry_s.add_(g_stoch)
        latent.pull_(g_said, carry_s, to_said)
        torch.mm(g_raw, out_weight, out=g_post).mul_(s_out)
        carry_d = torch.addmm(carry_d, g_post, deter_in).add_(g_deter)
        torch.mul(carry_d, to_candidate, out=g_candidate)
        torch.mul(g_candidate, to_reset, out=g_reset)
        torch.mul(carry_d, to_update, out=g_update)
        g_hh_gates.copy_(g_ih_gates)
        torch.mul(g_candidate, r, out=g_hh_candidate)
        torch.mm(g_ih, weight_ih, out=g_in).mul_(s_in)
        carry_d = torch.addmm(carry_d.mul_(z), g_hh, weight_hh)
        carry_s = torch.mm(g_in, state_in)
        if kept is not None:
            carry_d.mul_(kept)
            carry_s.mul_(kept)
    if not of_weights:
        return (None, None, grad_in, grad_post, None, None, carry_d, carry_s, *[None] * 8)

    def product(gradient: Tensor, inputs: Tensor) -> Tensor:
        return gradient.flatten(0, 1).t() @ inputs.flatten(0, 1)

    return (
        None,
        None,
        grad_in,
        grad_post,
        None,
        None,
        carry_d,
        carry_s,
        product(grad_in, previous_s),
        product(grad_ih, hidden_in),
        product(grad_hh, previous_d),
        grad_ih.sum((0, 1)),
        grad_hh.sum((0, 1)),
        product(grad_post, deters),
        product(grad_raw, hidden_out),
        grad_raw.sum((0, 1)),
    )


def fused_scan(
    activation: str,
    latent: Latent,
    action_half: Tensor,
    observation_half: Tensor,
    keep: Tensor | None,
    noise: Tensor | None,
    deter: Tensor,
    stoch: Tensor,
    *weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Deterministic states, stochastic states and what was said about them, each `[T, B, ...]`.

    Args:
        activation: one of `ACTIVATIONS`.
        latent: the distribution of the stochastic state.
        keep: `[T, B, 1]`, or None where no episode begins.
        weights: `state_in`, the GRU's `weight_ih, weight_hh, bias_ih, bias_hh`, `deter_in`, the posterior's
            output weight and bias (without noise, those rows that the mode depends on). The others: see `scan`.
    """
    result: tuple[Tensor, Tensor, Tensor] = _Scan.apply(  # type: ignore[no-untyped-call]
        activation, latent, action_half, observation_half, keep, noise, deter, stoch, *weights
    )
    return result


def recorded(
    activation: str,
    latent: Latent,
    fill: Fill,
    prior_half: Tensor,
    noise: Tensor,
    deter: Tensor,
    stoch: Tensor,
    width: int,
    *weights: Tensor,
) -> tuple[tuple[Tensor, Tensor], Callable[[Tensor], tuple[Tensor, Tensor]]]:
    """Take steps whose actions are found on the way, and hand out how the result depends on them.

    Args:
        fill: `fill(step, deter, stoch, out)` writes the action's share of the recurrent input `[M, hidden]` to `out`.
        prior_half: `[H, M, hidden]`, as `observation_half` of `fused_scan`.
        noise: `[H, M, S]`.
        deter: `[M, D]`.
        stoch: `[M, S]`.
        width: of the recurrent input.
        weights: as in `fused_scan`, detached.

    Returns:
        Deterministic and stochastic states `[H, M, ...]`, and a function from the action's shares
        `[H, M, hidden]` (the values that were written) to the same states with a gradient.
    """
    action_half = prior_half.new_empty(*prior_half.shape[:2], width)
    with torch.no_grad():
        outputs, saved = _forward(
            activation, latent, action_half, prior_half, None, noise, deter, stoch, *weights, fill=fill
        )

    def attach(shares: Tensor) -> tuple[Tensor, Tensor]:
        deters, stochs, _ = _Recorded.apply(activation, latent, outputs, saved, shares)  # type: ignore[no-untyped-call]
        return deters, stochs

    return outputs[:2], attach
