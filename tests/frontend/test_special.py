"""Incomplete gamma functions, zeta and the gradients of gamma and Dirichlet samples."""

from __future__ import annotations

import math

import numpy as np
import pytest

import graphtorch as torch
from graphtorch.autograd import gradcheck, gradgradcheck

A = torch.tensor([0.3, 0.8, 1.0, 2.5, 7.0, 30.0], dtype=torch.float64)
X = torch.tensor([0.1, 1.1, 0.4, 4.0, 6.0, 33.0], dtype=torch.float64)


@pytest.mark.parametrize("function", [torch.igamma, torch.igammac])
def test_incomplete_gamma(function: object) -> None:
    a, x = A.clone().requires_grad_(), X.clone().requires_grad_()
    assert gradcheck(function, (a, x))
    assert gradgradcheck(lambda x: function(A, x), (x,))  # type: ignore[operator]
    whole = torch.igamma(A, X) + torch.igammac(A, X)
    assert torch.allclose(whole, torch.ones_like(whole))
    one = torch.igamma(torch.tensor(1.0), torch.tensor(2.0)).item()
    assert math.isclose(one, 1 - math.exp(-2), rel_tol=1e-6)


def test_zeta_has_a_gradient_by_its_second_argument() -> None:
    q = X.clone().requires_grad_()
    assert gradcheck(lambda q: torch.special.zeta(A + 1.5, q), (q,))
    assert math.isclose(
        torch.special.zeta(2.0, torch.tensor(1.0)).item(), math.pi**2 / 6, rel_tol=1e-6
    )
    with pytest.raises(RuntimeError, match="not implemented"):
        torch.special.zeta(A.clone().requires_grad_(), X)


def test_orders_of_polygamma() -> None:
    assert torch.equal(torch.polygamma(0, A), A.digamma())
    assert torch.equal(A.polygamma(2), torch.polygamma(2, A))
    filled = A.clone()
    assert filled.polygamma_(1) is filled and torch.equal(filled, torch.polygamma(1, A))
    with pytest.raises(RuntimeError, match="negative n"):
        torch.polygamma(-1, A)


def test_gradients_of_gamma_numbers_are_implicit() -> None:
    """dx/da = -(dF/da) / (dF/dx), by differences of the distribution function."""
    a = torch.exp(torch.linspace(-2, 7.5, 60, dtype=torch.float64))
    for quantile in (-1.5, 0.0, 2.0):
        x = torch.clamp(a + quantile * a.sqrt(), min=0.05)
        h = 1e-5 * a
        slope = (torch.igamma(a + h, x) - torch.igamma(a - h, x)) / (2 * h)
        density = torch.exp((a - 1) * x.log() - x - a.lgamma())
        found = torch._standard_gamma_grad(a, x)
        assert torch.allclose(found, -slope / density, rtol=3e-5)


def test_gradients_of_dirichlet_numbers() -> None:
    """For b = 1 the distribution function is x^a."""
    a, x = A, torch.tensor([0.05, 0.2, 0.4, 0.6, 0.8, 0.95], dtype=torch.float64)
    found = torch._dirichlet_grad(x, a, a + 1)
    assert torch.allclose(found, -x * x.log() / a / (1 - x))
    turned = torch._dirichlet_grad(1 - x, torch.ones_like(a), a + 1)  # of 1 - y for y of the same
    h = 1e-5
    moved = [torch.distributions.Beta(1 + s * h, a) for s in (1, -1)]
    slope = (
        moved[0]._dirichlet.concentration[..., 0] - moved[1]._dirichlet.concentration[..., 0]
    ) / (2 * h)
    assert torch.allclose(slope, torch.ones_like(a)) and bool((turned > 0).all())


def test_gradient_of_gamma_numbers_in_the_mean() -> None:
    """The mean of a gamma number is its concentration, so the mean gradient is 1."""
    torch.manual_seed(0)
    a = torch.tensor([0.2, 0.9, 3.0, 600.0], requires_grad=True)
    torch._standard_gamma(a.expand(20000, 4)).mean(0).sum().backward()
    np.testing.assert_allclose(a.grad.numpy(), 1, atol=0.05)


def test_counts_compile_and_refuse() -> None:
    rates = torch.tensor([0.0, 0.5, 9.9, 10.1, 1e4]).expand(4000, 5)
    draw = torch.compile(lambda r: torch.poisson(r), fullgraph=True)
    for function in (torch.poisson, draw, draw):
        drawn = function(rates)
        mean, spread = drawn.mean(0).numpy(), drawn.var(0).numpy()
        np.testing.assert_allclose(mean, rates[0].numpy(), rtol=0.1)
        np.testing.assert_allclose(spread, rates[0].numpy(), rtol=0.15)
        assert torch.equal(drawn, drawn.floor())
    with pytest.raises(RuntimeError, match="non-negative"):
        draw(-rates)
    n = torch.tensor([0.0, 3.0, 100.0, 1e6])
    drawn = torch.binomial(n.expand(4000, 4), torch.tensor([0.5, 0.2, 0.9, 0.3]))
    np.testing.assert_allclose(drawn.mean(0).numpy(), [0, 0.6, 90, 3e5], rtol=0.1)
    with pytest.raises(RuntimeError, match="expected"):
        torch.binomial(n, torch.tensor(0.5, dtype=torch.float64))
