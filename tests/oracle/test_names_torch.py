"""Functions that stand in modules of their own, and lists of tensors, beside PyTorch's."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest

import graphtorch as gt

torch = pytest.importorskip("torch")
warnings.filterwarnings("ignore", "Sparse CSR|index_reduce|Sparse invariant|SparseTensor")
NUMBERS = np.array([-2.5, -1.0, 0.0, 0.2, 0.7, 1.0, 3.0, math.nan], np.float32)


@pytest.mark.parametrize(
    "name",
    [
        "digamma",
        "entr",
        "erf",
        "erfc",
        "erfcx",
        "erfinv",
        "exp2",
        "expit",
        "expm1",
        "gammaln",
        "i0",
        "i0e",
        "i1",
        "i1e",
        "log1p",
        "log_ndtr",
        "logit",
        "ndtr",
        "ndtri",
        "psi",
        "sinc",
    ],
)
def test_special_functions(name: str) -> None:
    mine, theirs = (getattr(t.special, name)(t.tensor(NUMBERS)).numpy() for t in (gt, torch))
    np.testing.assert_allclose(mine, theirs, 2e-5, 1e-6)


def test_special_functions_of_two() -> None:
    found = []
    for t in (gt, torch):
        x, y = t.tensor(NUMBERS), t.tensor(NUMBERS[::-1].copy())
        found.append(
            [
                t.special.xlog1py(x, y),
                t.special.xlog1py(0, y),
                t.special.xlogy(x, y.abs()),
                t.special.multigammaln(t.tensor([3.0, 4.5]), 3),
                t.special.softmax(x[:4], 0),
            ]
        )
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs.numpy(), 2e-5, 1e-6)


SOME = np.concatenate([np.exp(np.linspace(-4, 4, 40)), [0.0, math.inf, math.nan, 1.0]])


@pytest.mark.parametrize("name", ["gammainc", "gammaincc", "zeta"])
def test_special_functions_with_loops(name: str) -> None:
    a, b = np.meshgrid(SOME[np.isfinite(SOME)] if name == "zeta" else SOME, SOME)
    mine, theirs = (getattr(t.special, name)(t.tensor(a), t.tensor(b)).numpy() for t in (gt, torch))
    np.testing.assert_allclose(mine, theirs, 1e-7, 1e-12)
    compiled = gt.compile(getattr(gt.special, name), fullgraph=True)
    np.testing.assert_allclose(compiled(gt.tensor(a), gt.tensor(b)).numpy(), mine, 1e-12, 1e-12)


def test_polygamma() -> None:
    x = np.concatenate([SOME[:40], -SOME[:40] + 0.123])
    for n in (0, 1, 2, 3, 5):
        mine, theirs = (t.special.polygamma(n, t.tensor(x)).numpy() for t in (gt, torch))
        np.testing.assert_allclose(mine, theirs, 1e-8, 1e-12)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "int64"])
def test_divisors_and_multiples(dtype: str) -> None:
    rng = np.random.default_rng(0)
    low = 0 if dtype == "uint8" else -120
    a, b = (rng.integers(low, 120, (30, 1)[: 2 - i]).astype(dtype) for i in range(2))
    a[:3] = 0
    for name in ("gcd", "lcm"):
        mine, theirs = (getattr(t, name)(t.tensor(a), t.tensor(b)) for t in (gt, torch))
        assert mine.tolist() == theirs.tolist() and str(mine.dtype) == str(theirs.dtype)
        compiled = gt.compile(getattr(gt, name))
        assert compiled(gt.tensor(a), gt.tensor(b)).tolist() == theirs.tolist()


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("reduce", ["prod", "mean", "amax", "amin"])
def test_index_reduce(reduce: str, include_self: bool) -> None:
    found = []
    for t in (gt, torch):
        x, index = t.arange(8.0).reshape(4, 2), t.tensor([0, 1, 0])
        source = t.arange(6.0).reshape(3, 2) + 1
        found.append(x.index_reduce_(0, index, source, reduce, include_self=include_self).tolist())
    assert found[0] == found[1]


def lists(t: Any) -> list[Any]:
    x, y = [t.ones(2), t.arange(3.0)], [t.full((2,), 0.5), t.arange(3.0) - 1]
    made = [
        *t._foreach_add(x, 1),
        *t._foreach_add(x, y, alpha=2),
        *t._foreach_mul(x, [2.0, 3.0]),
        *t._foreach_sqrt(x),
        *t._foreach_maximum(x, y),
        *t._foreach_minimum(x, 0.5),
        *t._foreach_norm(x),
        *t._foreach_addcdiv(x, y, x, value=0.5),
        *t._foreach_lerp(x, y, 0.25),
        *t._foreach_clamp_min(x, 1.0),
    ]
    assert t._foreach_mul_(x, y)[0] is x[0]
    t._foreach_addcmul_(x, y, y, [1.0, 2.0])
    t._foreach_neg_(y)
    t._foreach_copy_(y[:1], x[:1])
    return [v.tolist() for v in (*made, *x, *y)]


def test_operations_on_lists() -> None:
    mine, theirs = lists(gt), lists(torch)
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(a, b, 1e-6)
    unequal = lambda t: t._foreach_add([t.ones(1)], [t.ones(1), t.ones(1)])  # noqa: E731
    for wrong in (unequal, lambda t: t._foreach_neg([])):
        for t in (gt, torch):
            with pytest.raises(RuntimeError):
                wrong(t)


def rows(t: Any) -> list[Any]:
    m = t.tensor([[0, 1.0, 0], [2, 0, 3], [0, 0, 0]]).to_sparse_csr()
    made = t.sparse_csr_tensor([0, 1, 3, 3], [1, 0, 2], [1.0, 2.0, 3.0], (3, 4))
    old = t.sparse.FloatTensor(t.tensor([[0, 1], [1, 0]]), t.tensor([1.0, 2.0]), t.Size([2, 3]))
    return [
        str(m.layout),
        m._nnz(),
        *(
            x.tolist()
            for x in (
                m.crow_indices(),
                m.col_indices(),
                m.values(),
                m @ t.ones(3, 2),
                m @ t.arange(3.0),
                m.to_dense(),
                made.to_dense(),
                made @ t.ones(4, 1),
                old.to_dense(),
                t.sparse.mm(m, t.ones(3, 1)),
            )
        ),
    ]


def test_compressed_rows_and_older_constructors() -> None:
    assert rows(gt) == rows(torch)
    assert isinstance(gt.sparse.FloatTensor(gt.Size([2, 3])), gt.sparse.FloatTensor)
    with pytest.raises(RuntimeError, match="crow_indices"):
        gt.sparse_csr_tensor([0, 2, 1], [0, 1], [1.0, 2.0])
    weight = gt.tensor([[0.0, 2.0], [3.0, 0.0]])
    values = gt.ones(2, requires_grad=True)
    gt.sparse_csr_tensor([0, 1, 2], [1, 0], values, (2, 2)).matmul(weight).sum().backward()
    assert values.grad.tolist() == [3, 2]
