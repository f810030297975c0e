"""Eigenvalues of general matrices, factors of low rank: results and gradients as PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch

torch = pytest.importorskip("torch")
rng = np.random.default_rng(11)


def both(program: Callable[[Any], Any]) -> tuple[Any, Any]:
    return program(graphtorch), program(torch)


def matrices(dtype: Any) -> np.ndarray:
    a = rng.standard_normal((3, 5, 5))
    return (a + 1j * rng.standard_normal(a.shape) if np.dtype(dtype).kind == "c" else a).astype(
        dtype
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_values_and_vectors(dtype: Any) -> None:
    """Order and signs are not defined, and others where PyTorch computes in single precision."""
    a = matrices(dtype)
    found, expected = both(lambda t: t.linalg.eig(t.tensor(a)))
    tolerance = 1e-10 if found[0].numpy().itemsize == 16 else 1e-4
    for k, (mine, theirs) in enumerate(zip(found[0].numpy(), expected[0].numpy(), strict=True)):
        order = np.abs(mine[:, None] - theirs).argmin(0)
        assert sorted(order) == list(range(5))
        assert tolerance > 1e-10 or list(order) == list(range(5))
        np.testing.assert_allclose(mine[order], theirs, tolerance, tolerance)
        vectors, shown = found[1].numpy()[k][:, order], expected[1].numpy()[k]
        if tolerance > 1e-10:
            vectors = vectors * np.sign((vectors.conj() * shown).sum(0).real)
        np.testing.assert_allclose(vectors, shown, tolerance, tolerance)
    assert type(found).__name__ == "linalg_eig" and found.eigenvectors is found[1]
    compiled = graphtorch.compile(lambda x: graphtorch.linalg.eigvals(x) * 2)
    for _ in range(3):
        np.testing.assert_array_equal(
            compiled(graphtorch.tensor(a)).numpy(), found.eigenvalues.numpy() * 2
        )


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_gradients(dtype: Any) -> None:
    """Of values, of vectors in a form that does not depend on their phases, and of gradients."""
    a, seed = matrices(dtype), rng.standard_normal((5, 5))

    def program(t: Any) -> list[Any]:
        x = t.tensor(a, requires_grad=True)
        values, vectors = t.linalg.eig(x)
        loss = (values**2).abs().sum() + (vectors.abs() * t.tensor(seed)).sum()
        (first,) = t.autograd.grad(loss, x, create_graph=True)
        (second,) = t.autograd.grad(first.abs().square().sum(), x)
        (alone,) = t.autograd.grad(t.linalg.eigvals(x).abs().sum(), x)
        return [g.detach().numpy() for g in (first, second, alone)]

    for mine, theirs in zip(*both(program), strict=True):
        np.testing.assert_allclose(mine, theirs, 1e-7, 1e-8 * np.abs(theirs).max())


def test_a_rotation_has_complex_values_and_no_matrix_none() -> None:
    turn = [[0.0, -2.0], [2.0, 0.0]]
    np.testing.assert_allclose(
        graphtorch.linalg.eigvals(graphtorch.tensor(turn)).numpy(), [2j, -2j]
    )
    values, vectors = graphtorch.linalg.eig(graphtorch.zeros(4, 0, 0))
    assert values.shape == (4, 0) and vectors.shape == (4, 0, 0)
    assert values.dtype is vectors.dtype is graphtorch.complex64


REFUSED: list[tuple[str, Callable[[Any], Any]]] = [
    ("an inf", lambda t: t.linalg.eig(t.tensor([[1.0, float("inf")], [0.0, 1.0]]))),
    ("a NaN", lambda t: t.linalg.eig(t.tensor([[1.0, 0.0], [float("nan"), 1.0]]))),
    ("not square", lambda t: t.linalg.eig(t.ones(2, 3))),
    ("a vector", lambda t: t.linalg.eig(t.ones(3))),
    ("integers", lambda t: t.linalg.eig(t.ones(2, 2, dtype=t.int64))),
    ("rank too large", lambda t: t.pca_lowrank(t.ones(3, 2), q=3)),
    ("negative steps", lambda t: t.pca_lowrank(t.ones(3, 2), niter=-1)),
]


@pytest.mark.parametrize("program", [p for _, p in REFUSED], ids=[n for n, _ in REFUSED])
def test_what_is_refused(program: Callable[[Any], Any]) -> None:
    raised = []
    for t in (graphtorch, torch):
        with pytest.raises((RuntimeError, ValueError)) as caught:
            program(t)
        raised.append(caught.type)
    assert raised[0] is raised[1]


def test_a_loss_that_depends_on_phases_is_refused() -> None:
    a = matrices(np.float64)[0]
    for t in (graphtorch, torch):
        x = t.tensor(a, requires_grad=True)
        with pytest.raises(RuntimeError, match="up to multiplication by e"):
            t.autograd.grad(t.linalg.eig(x).eigenvectors.imag.sum(), x)[0].tolist()


@pytest.mark.parametrize("shape", [(30, 12), (12, 30), (2, 20, 9)])
@pytest.mark.parametrize("center", [None, False, True])
def test_low_rank(shape: tuple[int, ...], center: bool | None) -> None:
    """The random vectors are PyTorch's, so that the factors are, but for signs."""
    a = rng.standard_normal((*shape[:-1], 4)) @ rng.standard_normal((*shape[:-2], 4, shape[-1]))

    def program(t: Any) -> Any:
        t.manual_seed(5)
        x = t.tensor(a)
        return t.svd_lowrank(x, q=5) if center is None else t.pca_lowrank(x, 5, center)

    (u, s, v), (tu, ts, tv) = both(program)
    np.testing.assert_allclose(s.numpy(), ts.numpy(), 1e-8, 1e-8)
    np.testing.assert_allclose(np.abs(u.numpy())[..., :4], tu.abs().numpy()[..., :4], 1e-6, 1e-8)
    product = (u * s.unsqueeze(-2)) @ v.mH
    np.testing.assert_allclose(
        product.numpy(), ((tu * ts.unsqueeze(-2)) @ tv.mH).numpy(), 1e-6, 1e-8
    )
    assert v.shape == tv.shape


@pytest.mark.parametrize("wide", [False, True])
def test_low_rank_of_sparse_matrices_and_of_less_a_mean(wide: bool) -> None:
    a = rng.standard_normal((9, 6)) * (rng.random((9, 6)) < 0.4)
    a = a.T.copy() if wide else a

    def program(t: Any) -> list[np.ndarray]:
        dense = t.tensor(a)
        found = []
        for factors in (
            t.pca_lowrank(dense.to_sparse(), 4),
            t.pca_lowrank(dense.to_sparse(), 4, center=False),
            t.svd_lowrank(dense, 4, M=dense.mean(0)),
        ):
            u, s, v = factors
            assert u.shape == (a.shape[0], 4) and v.shape == (a.shape[1], 4)
            found.append(s.numpy()[:2])
        return found

    graphtorch.manual_seed(1)
    torch.manual_seed(1)
    for mine, theirs in zip(*both(program), strict=True):
        np.testing.assert_allclose(mine, theirs, 1e-6)
