"""The matrix exponential, Householder products, orthogonal parametrizations, shifts in ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphtorch as gt
from against_torch import compare

torch = pytest.importorskip("torch")
rng = np.random.default_rng(3)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 8.0])
def test_matrix_exp(scale: float) -> None:
    a = rng.standard_normal((2, 4, 4)) * scale
    compare(
        lambda t, _, x: t.linalg.matrix_exp(x) / t.linalg.matrix_exp(x).detach().abs().amax(),
        (a,),
        tolerance=1e-9,
    )
    found = gt.compile(gt.matrix_exp, fullgraph=True)(gt.tensor(a)).numpy()
    np.testing.assert_allclose(found, torch.matrix_exp(torch.tensor(a)).numpy(), 1e-9)
    assert gt.tensor(a).matrix_exp().shape == (2, 4, 4)


@pytest.mark.parametrize("triangle", ["L", "U"])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_gradient_of_eigenvectors_of_a_triangle(triangle: str, dtype: Any) -> None:
    """The matrix has any numbers on the other side; the gradient is symmetric, as PyTorch's."""
    a = rng.standard_normal((3, 4, 4)).astype(dtype)
    if dtype is np.complex128:
        a += 1j * rng.standard_normal((3, 4, 4))
    seed, found = rng.standard_normal((4, 4)), []
    for t in (torch, gt):
        x = t.tensor(a, requires_grad=True)
        values, vectors = t.linalg.eigh(x, UPLO=triangle)
        (values.sin().sum() + (vectors.abs() * t.tensor(seed)).sum()).backward()
        found.append(x.grad.numpy())
    np.testing.assert_allclose(found[1], found[0], 1e-9, 1e-11)


@pytest.mark.parametrize("power", [-2, 0, 1, 3])
def test_matrix_power(power: int) -> None:
    """All powers have a gradient, also the zeroth."""
    a = rng.standard_normal((2, 3, 3))
    compare(lambda t, _, x: t.linalg.matrix_power(x, power), (a,), tolerance=1e-9)
    x = gt.tensor(a, requires_grad=True)
    gt.linalg.matrix_power(x, power).sum().backward()
    assert x.grad.any() == (power != 0)


def test_householder_product() -> None:
    a, tau = rng.standard_normal((2, 5, 3)), rng.standard_normal((2, 2))
    compare(lambda t, _, x, s: t.linalg.householder_product(x, s), (a, tau), tolerance=1e-9)
    for wrong in (
        lambda t: t.linalg.householder_product(t.ones(2, 3), t.ones(3)),
        lambda t: t.linalg.householder_product(t.ones(3, 2), t.ones(3)),
        lambda t: t.linalg.matrix_exp(t.ones(2, 3)),
        lambda t: t.matrix_exp(t.ones(2, 2, dtype=t.int64)),
    ):
        for t in (torch, gt):
            with pytest.raises(RuntimeError):
                wrong(t)


low = rng.standard_normal((4, 2)) @ rng.standard_normal((2, 3))
turned = np.linalg.qr(rng.standard_normal((2, 3, 3)))[0]


@pytest.mark.parametrize(
    "a",
    [
        np.eye(3),
        low,
        low.T.copy(),
        turned,
        turned[:, :2] * 2,
        np.zeros((2, 3)),
        np.zeros((2, 0, 3)),
    ],
)
def test_pseudo_inverses_whose_singular_values_coincide(a: np.ndarray) -> None:
    """Their gradient does not divide by differences, nor by what counts as zero."""
    compare(lambda t, _, x: t.linalg.pinv(x, rtol=1e-8), (a,), tolerance=1e-8)
    weight = gt.tensor(rng.standard_normal((a.shape[-1], a.shape[-2])))
    # nearby matrices have its rank
    if a.size and np.linalg.matrix_rank(a).min() == min(a.shape[-2:]):
        x = gt.tensor(a, requires_grad=True)
        assert gt.autograd.gradgradcheck(lambda x: (gt.linalg.pinv(x) * weight).sum(), x)


def test_pseudo_inverses_of_symmetric_matrices() -> None:
    a = low @ low.T
    compare(lambda t, _, x: t.linalg.pinv(x, hermitian=True, rtol=1e-8), (a,), tolerance=1e-8)


@pytest.mark.parametrize("driver", [None, "gelsy", "gels", "gelsd", "gelss"])
@pytest.mark.parametrize("sizes", [(4, 3), (3, 3), (2, 3)])
def test_least_squares(sizes: tuple[int, int], driver: str | None) -> None:
    """Which results are empty and which have a gradient depends on the driver."""
    a, b = rng.standard_normal((2, *sizes)), rng.standard_normal((2, sizes[0], 2))
    compare(lambda t, _, x, y: t.linalg.lstsq(x, y, driver=driver)[:2], (a, b), tolerance=1e-8)
    results = [
        t.linalg.lstsq(t.tensor(a, requires_grad=True), t.tensor(b), driver=driver)
        for t in (torch, gt)
    ]
    theirs, mine = ([(list(x.shape), x.requires_grad) for x in r] for r in results)
    assert mine == theirs


def test_statistics_of_one_variable_and_of_too_few_elements() -> None:
    x = rng.standard_normal(3)
    compare(lambda t, _, x: t.cov(x[None]), (x,), tolerance=1e-9)
    compare(lambda t, _, x: t.combinations(x, 4), (x,), tolerance=1e-9)
    compare(lambda t, _, x: t.linalg.householder_product(x[None].mT, x[:0]), (x,), tolerance=1e-9)


@pytest.mark.parametrize("sizes", [(4, 4), (5, 3), (3, 5)])
@pytest.mark.parametrize("how", [None, "matrix_exp", "cayley", "householder"])
def test_orthogonal(sizes: tuple[int, int], how: str | None) -> None:
    start = np.linalg.qr(rng.standard_normal((max(sizes), min(sizes))))[0]
    start = (start if sizes[0] >= sizes[1] else start.T).astype(np.float32)

    def call(t: Any, _: Any, moved: Any) -> Any:
        layer = t.nn.Linear(sizes[1], sizes[0], bias=False)
        made = t.nn.utils.parametrizations.orthogonal(layer, orthogonal_map=how)
        made.weight = t.tensor(start)
        return t.tensor(made.weight.detach().numpy()), made.parametrizations.weight[0].forward(
            made.parametrizations.weight.original.detach() + moved
        )[:, : min(sizes)] * (sizes[0] >= sizes[1])

    square = sizes[0] == sizes[1]
    moved = rng.standard_normal(sizes).astype(np.float32) * (0.1 if square else 0.0)
    if square or how == "householder":
        compare(call, (moved,), tolerance=2e-5)
    layer = gt.nn.utils.parametrizations.orthogonal(
        gt.nn.Linear(sizes[1], sizes[0]), orthogonal_map=how
    )
    optimizer = gt.optim.SGD(layer.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        layer(gt.ones(2, sizes[1])).square().sum().backward()
        optimizer.step()
        w = layer.weight.detach()
        small = w.T @ w if sizes[0] >= sizes[1] else w @ w.T
        np.testing.assert_allclose(small.numpy(), np.eye(min(sizes)), atol=2e-5)


def test_orthogonal_without_a_base() -> None:
    q = np.linalg.qr(rng.standard_normal((4, 4)))[0].astype(np.float32)
    found = []
    for t in (torch, gt):
        layer = t.nn.Linear(4, 4)
        with t.no_grad():
            layer.weight.copy_(t.tensor(q))
        make = t.nn.utils.parametrizations.orthogonal
        made = make(layer, orthogonal_map="householder", use_trivialization=False)
        found.append(
            (made.weight.detach().numpy(), made.parametrizations.weight.original.detach().numpy())
        )
        with pytest.raises(ValueError, match="has to be one of"):
            make(t.nn.Linear(2, 2), orthogonal_map="other")
        with pytest.raises(ValueError, match="Expected a matrix"):
            make(t.nn.BatchNorm1d(3))
    np.testing.assert_allclose(found[1][0], q, atol=1e-5)
    np.testing.assert_allclose(found[1][1], found[0][1], atol=1e-5)


def test_small_names() -> None:
    for t in (torch, gt):
        x = t.tensor([1.5, -2.0])
        assert t.ldexp(x, t.tensor([2, -1])).tolist() == [6, -1] and t.positive(x) is not None
        assert x.ldexp_(t.tensor([1, 1])).tolist() == [3, -4]
        with pytest.raises(RuntimeError, match="bool tensor"):
            t.positive(t.tensor([True]))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "int64"])
def test_shifts_in_onnx(dtype: str) -> None:
    runtime = pytest.importorskip("onnxruntime")
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    x = np.array([low, low + 1, high, 5, 7, 1, 0, high // 3] * 4).astype(dtype)
    bits = np.iinfo(dtype).bits
    s = np.repeat(np.array([0, 1, bits - 1, bits // 2]), 8).astype(dtype)
    for shift in (lambda a, b: a << b, lambda a, b: a >> b):

        class Shift(gt.nn.Module):
            def forward(self, a: Any, b: Any, shift: Any = shift) -> Any:
                return shift(a, b)

        model = gt.onnx.export(Shift(), (gt.tensor(x), gt.tensor(s)), input_names=["a", "b"])
        session = runtime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        found = session.run(None, {"a": x, "b": s})[0]
        assert found.tolist() == shift(torch.tensor(x), torch.tensor(s)).tolist()
