"""What a policy's values are held to in replay: lambda-returns of the rewards that were earned."""

from __future__ import annotations

from torch import Tensor

from lightning_wm.agents.imagination import lambda_returns


def replayed_returns(
    reward: Tensor, ends: Tensor, terminated: Tensor, value: Tensor, discount: float, lam: float
) -> tuple[Tensor, Tensor]:
    """lambda-returns along windows of replay, and where there is one (the replay loss of arXiv:2301.04104v2).

    The actions are those that were taken, by the planners and policies of the time. A window ends in the value
    of its last state, and so does an episode that time ended: what follows is another one, or was not stored.

    Args:
        reward: of arriving at each state, `[B, T]`.
        ends: the next state begins another episode, `[B, T-1]`.
        terminated: the episode ended for good at this state, `[B, T]`.
        value: V of the states, `[B, T]`, without gradients.
        discount: factor per agent step.
        lam: lambda, in [0, 1].

    Returns:
        G of the states 0..T-2, and 1 where the next state followed from it, each `[B, T-1]`.
    """
    goes_on = discount * (1.0 - terminated[:, 1:].to(value))
    # At a seam a return is the state's own value, so that the one before ends in it.
    earned = value[:, :-1].where(ends, reward[:, 1:].to(value))
    returns = lambda_returns(earned.T, goes_on.masked_fill(ends, 0.0).T, value[:, 1:].T, lam).T
    return returns, (~ends).to(value)
