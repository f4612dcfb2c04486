"""`scan` with a backward pass by hand.

Autograd would add up the gradient of every weight step by step: T small
matrix products each. Here the steps only carry the state's gradient, and each
weight's gradient is one product over all `T*B` rows. The result is that of
`scan` up to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_OUTPUT_SLOPE = {
    "elu": lambda out: out.clamp(max=0.0).add_(1.0),
    "relu": lambda out: (out > 0).to(out.dtype),
}
"""Slopes of activations as functions of their outputs."""
_APPLY = {"elu": F.elu_, "relu": F.relu_}

ACTIVATIONS = tuple(_APPLY)
"""Activations that `fused_scan` has."""


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        activation: str,
        min_std: float,
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
    ) -> tuple[Tensor, Tensor, Tensor]:
        act = _APPLY[activation]
        t, b, _ = action_half.shape
        d, s = deter.shape[1], stoch.shape[1]
        new = action_half.new_empty
        previous_d, previous_s = new(t, b, d), new(t, b, s)
        hidden_in, hidden_out = new(t, b, state_in.shape[0]), new(t, b, deter_in.shape[0])
        gates, candidate, recurrent = new(t, b, 2 * d), new(t, b, d), new(t, b, d)
        deters, stochs, raws = new(t, b, d), new(t, b, s), new(t, b, out_weight.shape[0])
        into, ih, hh, post, out = state_in.t(), weight_ih.t(), weight_hh.t(), deter_in.t(), out_weight.t()
        for i in range(t):
            if keep is None:
                previous_d[i], previous_s[i] = deter, stoch
            else:
                deter = torch.mul(deter, keep[i], out=previous_d[i])
                stoch = torch.mul(stoch, keep[i], out=previous_s[i])
            hidden = act(torch.addmm(action_half[i], stoch, into, out=hidden_in[i]))
            from_input = torch.addmm(bias_ih, hidden, ih)
            from_state = torch.addmm(bias_hh, deter, hh)
            gate = torch.add(from_input[:, : 2 * d], from_state[:, : 2 * d], out=gates[i]).sigmoid_()
            recurrent[i] = from_state[:, 2 * d :]
            new_d = torch.addcmul(from_input[:, 2 * d :], gate[:, :d], recurrent[i], out=candidate[i]).tanh_()
            deter = torch.lerp(new_d, deter, gate[:, d:], out=deters[i])
            hidden = act(torch.addmm(observation_half[i], deter, post, out=hidden_out[i]))
            raw = torch.addmm(out_bias, hidden, out, out=raws[i])
            if noise is None:
                stoch = stochs[i].copy_(raw[:, :s])
            else:
                std = F.softplus(raw[:, s:]).add_(min_std)
                stoch = torch.addcmul(raw[:, :s], std, noise[i], out=stochs[i])
        ctx.activation = activation
        ctx.save_for_backward(
            keep, noise, previous_d, previous_s, hidden_in, hidden_out, gates, candidate, recurrent, deters, raws,
            state_in, weight_ih, weight_hh, deter_in, out_weight,
        )  # fmt: skip
        return deters, stochs, raws

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_deters: Tensor, grad_stochs: Tensor, grad_raws: Tensor) -> tuple[Tensor | None, ...]:
        (
            keep, noise, previous_d, previous_s, hidden_in, hidden_out, gates, candidate, recurrent, deters, raws,
            state_in, weight_ih, weight_hh, deter_in, out_weight,
        ) = ctx.saved_tensors  # fmt: skip
        t, b, d = deters.shape
        s = previous_s.shape[2]
        slope_in, slope_out = (_OUTPUT_SLOPE[ctx.activation](h) for h in (hidden_in, hidden_out))
        # Everything that needs no gradient from a later step, for all steps at once.
        reset, update = gates[..., :d], gates[..., d:]
        into_candidate = (1 - update) * (1 - candidate * candidate)
        into_update = (previous_d - candidate) * update * (1 - update)
        into_reset = recurrent * reset * (1 - reset)
        into_scale = None if noise is None else noise * raws[..., s:].sigmoid()
        new = deters.new_empty
        grad_raw, grad_post, grad_in = grad_raws.clone(), new(t, b, hidden_out.shape[2]), new(t, b, hidden_in.shape[2])
        grad_ih, grad_hh = new(t, b, 3 * d), new(t, b, 3 * d)
        carry_d, carry_s = deters.new_zeros(b, d), deters.new_zeros(b, s)
        for i in range(t - 1, -1, -1):
            carry_s = carry_s + grad_stochs[i]
            grad_raw[i, :, :s] += carry_s
            if into_scale is not None:
                grad_raw[i, :, s:].addcmul_(carry_s, into_scale[i])
            torch.mm(grad_raw[i], out_weight, out=grad_post[i]).mul_(slope_out[i])
            carry_d = torch.addmm(carry_d, grad_post[i], deter_in).add_(grad_deters[i])
            gate = grad_ih[i]
            to_candidate = torch.mul(carry_d, into_candidate[i], out=gate[:, 2 * d :])
            torch.mul(to_candidate, into_reset[i], out=gate[:, :d])
            torch.mul(carry_d, into_update[i], out=gate[:, d : 2 * d])
            grad_hh[i, :, : 2 * d] = gate[:, : 2 * d]
            torch.mul(to_candidate, reset[i], out=grad_hh[i, :, 2 * d :])
            torch.mm(gate, weight_ih, out=grad_in[i]).mul_(slope_in[i])
            carry_d = torch.addmm(carry_d.mul_(update[i]), grad_hh[i], weight_hh)
            carry_s = torch.mm(grad_in[i], state_in)
            if keep is not None:
                carry_d.mul_(keep[i])
                carry_s.mul_(keep[i])
        if not any(ctx.needs_input_grad[8:]):
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
    min_std: float,
    action_half: Tensor,
    observation_half: Tensor,
    keep: Tensor | None,
    noise: Tensor | None,
    deter: Tensor,
    stoch: Tensor,
    *weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Deterministic states, stochastic states and raw statistics, each `[T, B, ...]`.

    Args:
        activation: one of `ACTIVATIONS`.
        keep: `[T, B, 1]`, or None where no episode begins.
        weights: `state_in`, the GRU's `weight_ih, weight_hh, bias_ih, bias_hh`, `deter_in`, the posterior's
            output weight and bias (of `2S` rows, or of the mean's `S` without noise). The others: see `scan`.
    """
    result: tuple[Tensor, Tensor, Tensor] = _Scan.apply(  # type: ignore[no-untyped-call]
        activation, min_std, action_half, observation_half, keep, noise, deter, stoch, *weights
    )
    return result
