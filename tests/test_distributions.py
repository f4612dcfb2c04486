"""Densities and codes against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lightning_wm.models.distributions import gaussian_kl, symexp, symlog, widen
from lightning_wm.models.heads import NormalHead, TwoHotHead


def test_kl_of_two_gaussians_by_hand() -> None:
    # log(2/1) + (1 + (1-0)^2) / (2*4) - 1/2 for the first dimension; equal ones add nothing.
    mean_q, std_q = torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 0.5]])
    mean_p, std_p = torch.tensor([[0.0, 3.0]]), torch.tensor([[2.0, 0.5]])
    expected = math.log(2) + 2 / 8 - 0.5
    assert gaussian_kl(mean_q, std_q, mean_p, std_p).item() == pytest.approx(expected, rel=1e-6)


def test_kl_agrees_with_torch() -> None:
    mean_q, mean_p = torch.randn(2, 5, 7)
    std_q, std_p = torch.rand(2, 5, 7) + 0.1
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean_q, std_q), normal(mean_p, std_p)).sum(-1)
    torch.testing.assert_close(gaussian_kl(mean_q, std_q, mean_p, std_p), expected)


def test_symlog_by_hand_and_back() -> None:
    values = torch.tensor([-(math.e - 1), 0.0, math.e**2 - 1])
    torch.testing.assert_close(symlog(values), torch.tensor([-1.0, 0.0, 2.0]))
    torch.testing.assert_close(symexp(symlog(values)), values)


def test_two_hot_loss_by_hand() -> None:
    # Bins symexp(-1, 0, 1) = -(e-1), 0, e-1; a target of half the last bin is half of each neighbour.
    head = TwoHotHead(nn.Identity(), bins=3, limit=1.0)
    logits = torch.tensor([[0.0, 1.0, 2.0]])
    target = torch.tensor([(math.e - 1) / 2])
    log_normaliser = math.log(1 + math.e + math.e**2)
    expected = 0.5 * (log_normaliser - 1) + 0.5 * (log_normaliser - 2)
    assert head.loss(logits, target).item() == pytest.approx(expected, rel=1e-5)


def test_two_hot_reads_back_what_it_was_told() -> None:
    head = TwoHotHead(nn.Identity(), bins=41, limit=4.0)
    sure = torch.full((1, 41), -1e9)
    sure[0, 20] = 0.0
    assert head(sure).item() == pytest.approx(0.0, abs=1e-6)
    even = torch.zeros(1, 41)
    assert head(even).item() == pytest.approx(0.0, abs=1e-4)


def test_normal_loss_by_hand() -> None:
    head = NormalHead(nn.Identity())
    assert head.loss(torch.tensor([[3.0]]), torch.tensor([1.0])).item() == pytest.approx(2.0)


def test_half_precision_is_widened_and_double_kept() -> None:
    assert widen(torch.zeros(1, dtype=torch.bfloat16)).dtype is torch.float32
    assert widen(torch.zeros(1, dtype=torch.float64)).dtype is torch.float64
