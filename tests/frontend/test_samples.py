"""Derivatives of samples, histograms and windows against NumPy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphtorch as torch

SAMPLES = np.random.default_rng(3).standard_normal((5, 6)) * 2


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("dim", [None, 0, (1, 0)])
@pytest.mark.parametrize("spacing", [1, 0.5])
def test_derivatives_of_samples(order: int, dim: Any, spacing: float) -> None:
    found = torch.gradient(torch.tensor(SAMPLES), spacing=spacing, dim=dim, edge_order=order)
    expected = np.gradient(SAMPLES, spacing, axis=dim, edge_order=order)
    for ours, theirs in zip(found, expected if len(found) > 1 else [expected], strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2])
def test_derivatives_of_samples_at_given_places(order: int) -> None:
    places = [np.array([0.0, 1.0, 1.5, 4.0, 4.5]), np.array([-1.0, 0.0, 2.0, 3.0, 7.0, 8.0])]
    given = [torch.tensor(p) for p in places]
    found = torch.gradient(torch.tensor(SAMPLES), spacing=given, edge_order=order)
    for ours, theirs in zip(found, np.gradient(SAMPLES, *places, edge_order=order), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-12, atol=1e-12)


def test_derivatives_of_samples_have_gradients() -> None:
    x = torch.tensor(SAMPLES, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: torch.gradient(t, spacing=0.3, edge_order=2), (x,))


def test_samples_without_derivatives_are_refused() -> None:
    with pytest.raises(RuntimeError, match=r"at least edge_order\+1, but dim 0 has 2"):
        torch.gradient(torch.ones(2, 3), edge_order=2)
    with pytest.raises(RuntimeError, match="one for each of 2 dims, but got 3"):
        torch.gradient(torch.ones(3, 3), spacing=[1.0, 2.0, 3.0])
    with pytest.raises(RuntimeError, match="edge_order=1 and edge_order=2"):
        torch.gradient(torch.ones(3), edge_order=3)


@pytest.mark.parametrize("density", [False, True])
@pytest.mark.parametrize("bins", [1, 7, np.array([-2.0, -0.5, 0.0, 3.0])])
@pytest.mark.parametrize("weighted", [False, True])
def test_histograms(bins: Any, weighted: bool, density: bool) -> None:
    weight = np.abs(SAMPLES) if weighted else None
    hist, edges = torch.histogram(
        torch.tensor(SAMPLES),
        torch.tensor(bins) if isinstance(bins, np.ndarray) else bins,
        weight=None if weight is None else torch.tensor(weight),
        density=density,
    )
    counted, ends = np.histogram(SAMPLES, bins, weights=weight, density=density)
    np.testing.assert_allclose(hist.numpy(), counted, rtol=1e-12)
    np.testing.assert_allclose(edges.numpy(), ends, rtol=1e-12, atol=1e-12)


def test_a_histogram_of_equal_elements_has_room_around_them() -> None:
    hist, edges = torch.ones(3).histogram(2, range=(1, 1))
    assert hist.tolist() == [0.0, 3.0] and edges.tolist() == [0.5, 1.0, 1.5]


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"bins": 0}, RuntimeError, "bins must be > 0"),
        ({"bins": 3, "range": (2.0, 1.0)}, RuntimeError, "finite and in order"),
        ({"bins": 3, "weight": torch.ones(2)}, RuntimeError, "same shape and dtype"),
        ({"bins": torch.ones(2, 2)}, RuntimeError, "as a vector"),
    ],
)
def test_histograms_that_are_refused(
    given: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        torch.histogram(torch.ones(3), **given)


@pytest.mark.parametrize("length", [1, 2, 7])
def test_windows(length: int) -> None:
    for ours, theirs in (
        (torch.bartlett_window(length, periodic=False), np.bartlett(length)),
        (torch.kaiser_window(length, False, 5.0), np.kaiser(length, 5.0)),
        (torch.hamming_window(length, False), np.hamming(length)),
    ):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-6, atol=1e-7)
    periodic = torch.kaiser_window(length)
    if length > 1:
        np.testing.assert_allclose(periodic.numpy(), np.kaiser(length + 1, 12.0)[:-1], atol=1e-7)


def test_windows_that_are_refused() -> None:
    with pytest.raises(RuntimeError, match="non-negative window_length, got window_length=-1"):
        torch.bartlett_window(-1)
    with pytest.raises(RuntimeError, match="expects floating point dtypes"):
        torch.kaiser_window(3, dtype=torch.int64)
