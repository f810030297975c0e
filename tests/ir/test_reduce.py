"""Reductions, positions and running reductions, against PyTorch and finite differences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from evaluation import apply, decomposed, differences, gradients
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, bf16, boolean, c64, f16, f32, f64, i32, i64, u8
from graphtorch.ir.evaluate import evaluate
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.op import OPS
from graphtorch.ir.ops import reduce
from graphtorch.ir.ops.common import number
from graphtorch.ir.passes.autodiff import vjp
from graphtorch.ir.shape import symbol

torch = pytest.importorskip("torch")
inf, nan = math.inf, math.nan

SHAPED = [
    ((), ()),
    ((3,), (0,)),
    ((2, 3), (1,)),
    ((2, 3, 4), (0, 2)),
    ((2, 3, 4), (0, 1, 2)),
    ((2, 3), ()),
    ((1, 4), (0,)),
]
EMPTY = [((0,), (0,)), ((2, 0), (1,)), ((0, 3), (0, 1)), ((0, 3), (1,))]


def oracle(name: str, x: Any, dims: tuple[int, ...], keepdim: bool, correction: float = 1.0) -> Any:
    if not dims:  # PyTorch takes no dims for all dims
        x, dims, keepdim = x[None], (0,), False
    if name == "prod":
        for dim in sorted(dims, reverse=True):
            x = torch.prod(x, dim, keepdim)
        return x
    if name == "var":
        return torch.var(x, dims, correction=correction, keepdim=keepdim)
    named = {"max": "amax", "min": "amin"}.get(name, name)
    return getattr(torch, named)(x, dims, keepdim)


def attrs_of(name: str, dims: tuple[int, ...], keepdim: bool) -> dict[str, Any]:
    return {"dims": dims, "keepdim": keepdim, **({"correction": 1.0} if name == "var" else {})}


def sample(shape: tuple[int, ...], dtype: DType = f64, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape)
    if dtype.is_complex:
        values = values + 1j * rng.normal(size=shape)
    return np.asarray(values * 3 if dtype.is_integer else values).astype(dtype.numpy)


def to_torch(x: np.ndarray) -> Any:
    return (
        torch.from_numpy(x.astype(np.float32)).bfloat16()
        if DType.of(x.dtype) is bf16
        else torch.from_numpy(x.copy())
    )


REDUCTIONS = ("sum", "prod", "max", "min", "mean", "var", "logsumexp")
TOLERANCE = {f64: 1e-12, f32: 2e-5, f16: 5e-3, bf16: 3e-2, c64: 2e-5}


def test_every_op_of_the_module_is_tested() -> None:
    tested = {
        *REDUCTIONS,
        "any",
        "all",
        "argmax",
        "argmin",
        "cumsum",
        "cumprod",
        "cummax",
        "cummin",
        "size",
    }
    assert set(reduce.__all__) == tested


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize(("shape", "dims"), SHAPED + EMPTY, ids=str)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_forward_is_pytorchs(
    name: str, shape: tuple[int, ...], dims: tuple[int, ...], keepdim: bool
) -> None:
    if name in ("max", "min") and any(shape[d] == 0 for d in dims):
        with pytest.raises(IndexError, match="non-zero size"):
            apply(OPS[name], sample(shape), dims=dims, keepdim=keepdim)
        return
    for dtype in (f64, f32, f16, bf16):
        x = sample(shape, dtype)
        (found,) = apply(OPS[name], x, **attrs_of(name, dims, keepdim))
        expected = oracle(name, to_torch(x), dims, keepdim).double().numpy()
        np.testing.assert_allclose(
            found.astype(np.float64), expected, TOLERANCE[dtype], TOLERANCE[dtype]
        )
        assert found.dtype == dtype.numpy


@pytest.mark.parametrize("dtype", [u8, i32, i64], ids=str)
@pytest.mark.parametrize("name", ["sum", "prod", "max", "min"])
def test_integers_keep_their_dtype_and_wrap(name: str, dtype: DType) -> None:
    x = sample((3, 5), dtype)
    (found,) = apply(OPS[name], x, dims=(1,), keepdim=False)
    expected = (
        oracle(name, torch.from_numpy(x.astype(np.int64)), (1,), False).numpy().astype(dtype.numpy)
    )
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["sum", "prod", "mean", "var"])
def test_complex_is_pytorchs(name: str) -> None:
    x = sample((2, 3), c64)
    (found,) = apply(OPS[name], x, **attrs_of(name, (1,), False))
    np.testing.assert_allclose(found, oracle(name, torch.from_numpy(x), (1,), False).numpy(), 1e-5)


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("name", ["any", "all"])
def test_any_all(name: str, keepdim: bool) -> None:
    x = np.array([[True, False], [True, True], [False, False]])
    for array, dims in (
        (x, (1,)),
        (x, (0, 1)),
        (x, ()),
        (np.zeros((0, 2), bool), (0,)),
        (np.array(True), ()),
    ):
        (found,) = apply(OPS[name], array, dims=dims, keepdim=keepdim)
        np.testing.assert_array_equal(found, getattr(np, name)(array, axis=dims, keepdims=keepdim))


def test_nan_and_infinity() -> None:
    x = np.array([[1, nan, 3], [inf, 1, 2], [-inf, -inf, -inf], [inf, -inf, 0]])
    for name in ("max", "min", "sum", "logsumexp", "mean"):
        for run in (apply, decomposed) if not OPS[name].is_core else (apply,):
            (found,) = run(OPS[name], x, dims=(1,), keepdim=False)
            np.testing.assert_allclose(
                found, oracle(name, torch.from_numpy(x), (1,), False).numpy()
            )


def test_sums_of_half_precision_accumulate_in_f32() -> None:
    for dtype in (f16, bf16):
        ones = np.ones(5000, dtype.numpy)
        assert float(apply(OPS["sum"], ones, dims=(0,), keepdim=False)[0]) == float(
            dtype.numpy.type(5000)
        )
        huge = np.full(5000, 100, dtype.numpy)
        assert float(decomposed(OPS["mean"], huge, dims=(0,), keepdim=False)[0]) == 100


@pytest.mark.parametrize("dtype", [f64, f32, f16, bf16], ids=str)
@pytest.mark.parametrize(("shape", "dims"), SHAPED + EMPTY, ids=str)
@pytest.mark.parametrize("name", ["mean", "var", "logsumexp"])
def test_decomposition_is_the_reference(
    name: str, shape: tuple[int, ...], dims: tuple[int, ...], dtype: DType
) -> None:
    x = sample(shape, dtype)
    for keepdim in (False, True):
        attrs = attrs_of(name, dims, keepdim)
        found, expected = decomposed(OPS[name], x, **attrs)[0], apply(OPS[name], x, **attrs)[0]
        np.testing.assert_allclose(
            found.astype(float), expected.astype(float), TOLERANCE[dtype], TOLERANCE[dtype]
        )


# ------------------------------ gradients


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize(("shape", "dims"), SHAPED, ids=str)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_gradient_is_the_difference_quotient(
    name: str, shape: tuple[int, ...], dims: tuple[int, ...], keepdim: bool
) -> None:
    if name == "var" and math.prod(shape[d] for d in dims) < 2:
        pytest.skip("no freedom")
    x, attrs = sample(shape), attrs_of(name, dims, keepdim)
    cotangent = np.asarray(sample(apply(OPS[name], x, **attrs)[0].shape, seed=1))
    (found,) = gradients(OPS[name], [x], [cotangent], **attrs)
    expected = differences(lambda v: apply(OPS[name], v, **attrs)[0], [x], 0, cotangent)
    np.testing.assert_allclose(found, expected, 1e-6, 1e-8)


@pytest.mark.parametrize(("shape", "dims"), EMPTY, ids=str)
@pytest.mark.parametrize("name", ["sum", "prod", "mean", "logsumexp"])
def test_gradient_of_nothing(name: str, shape: tuple[int, ...], dims: tuple[int, ...]) -> None:
    x, attrs = sample(shape), attrs_of(name, dims, False)
    cotangent = np.ones(apply(OPS[name], x, **attrs)[0].shape)
    assert gradients(OPS[name], [x], [cotangent], **attrs)[0].shape == shape


@pytest.mark.parametrize("name", ["sum", "prod", "mean", "var"])
def test_complex_gradient_is_pytorchs(name: str) -> None:
    x = sample((2, 3)) + 1j * sample((2, 3), seed=2)
    tensor = torch.from_numpy(x.copy()).requires_grad_()
    result = oracle(name, tensor, (1,), False)
    cotangent = sample(tuple(result.shape), seed=3) + (1j if result.is_complex() else 0)
    (expected,) = torch.autograd.grad(result, tensor, torch.from_numpy(cotangent))
    (found,) = gradients(OPS[name], [x], [cotangent], **attrs_of(name, (1,), False))
    np.testing.assert_allclose(found, expected.resolve_conj().numpy(), 1e-10)


def test_ties_share_the_gradient() -> None:
    x = np.array([[1.0, 3, 3, 3], [5, 2, 5, 1]])
    (found,) = gradients(OPS["max"], [x], [np.array([3.0, 4.0])], dims=(1,), keepdim=False)
    np.testing.assert_allclose(found, [[0, 1, 1, 1], [2, 0, 2, 0]])


ZEROS = [[2.0, 3, 4], [2, 0, 4], [0, 0, 4], [0, 0, 0], [5, 7, 0]]


def reference_gradient(
    function: Any, x: np.ndarray, cotangent: np.ndarray, order: int
) -> np.ndarray:
    """PyTorch's gradient, or that of the sum of squares of the gradient."""
    tensor = torch.from_numpy(x.copy()).requires_grad_()
    (first,) = torch.autograd.grad(
        function(tensor), tensor, torch.from_numpy(cotangent), create_graph=order > 1
    )
    return (first if order == 1 else torch.autograd.grad((first * first).sum(), tensor)[0]).numpy()


def our_gradient(function: Any, x: np.ndarray, cotangent: np.ndarray, order: int) -> np.ndarray:
    inputs = [Value(Type(f64, a.shape), name=n) for n, a in (("x", x), ("g", cotangent))]
    (first,) = vjp([function(inputs[0])], [inputs[1]], [inputs[0]])
    if order == 2:
        total = ops.sum(ops.mul(first, first), dims=tuple(range(x.ndim)), keepdim=False)
        (first,) = vjp([total], [number(1.0, f64)], [inputs[0]])
    return evaluate(Graph("gradient", inputs, [first]), [x, cotangent])[0]


@pytest.mark.parametrize("order", [1, 2])
def test_gradient_of_products_with_zeros(order: int) -> None:
    x = np.array(ZEROS)
    g = np.array([1.0, 2, 3, 4, 5])
    found = our_gradient(lambda v: ops.prod(v, dims=(1,), keepdim=False), x, g, order)
    np.testing.assert_allclose(found, reference_gradient(lambda v: v.prod(1), x, g, order))
    g = sample(x.shape)
    found = our_gradient(lambda v: ops.cumprod(v, dim=1), x, g, order)
    np.testing.assert_allclose(
        found, reference_gradient(lambda v: v.cumprod(1), x, g, order), 1e-12, 1e-12
    )


@pytest.mark.parametrize("length", [0, 1, 2, 3, 7, 8, 9])
def test_gradient_of_running_products_of_any_length(length: int) -> None:
    x, g = sample((2, length)), sample((2, length), seed=1)
    found = our_gradient(lambda v: ops.cumprod(v, dim=1), x, g, 1)
    np.testing.assert_allclose(found, reference_gradient(lambda v: v.cumprod(1), x, g, 1), 1e-10)


# ------------------------------ symbolic sizes


@pytest.mark.parametrize("name", [*REDUCTIONS, "cumsum", "cumprod", "cummax"])
def test_symbolic_size(name: str) -> None:
    """One graph of values and gradients serves every size."""
    n = symbol("n", 1, 64)
    x = Value(Type(f64, (2, n)), name="x")
    result = ops.__dict__[name](
        x, **({"dim": 1} if name.startswith("cum") else attrs_of(name, (1,), False))
    )
    result = result[0] if isinstance(result, tuple) else result
    g = Value(result.type, name="g")
    graph = Graph("g", [x, g], [result, *vjp([result], [g], [x])])
    for size in (2, 5):
        array = sample((2, size))
        cotangent = sample((2, size) if name.startswith("cum") else (2,), seed=1)
        value, gradient = evaluate(graph, [array, cotangent])
        tensor = torch.from_numpy(array).requires_grad_()
        expected = (
            torch.cummax(tensor, 1)[0]
            if name == "cummax"
            else getattr(torch, name)(tensor, 1)
            if name.startswith("cum")
            else oracle(name, tensor, (1,), False)
        )
        np.testing.assert_allclose(value, expected.detach().numpy(), 1e-10)
        (wanted,) = torch.autograd.grad(expected, tensor, torch.from_numpy(cotangent))
        np.testing.assert_allclose(gradient, wanted.numpy(), 1e-9, 1e-12)


def test_size_is_a_value() -> None:
    x = np.zeros((2, 0, 5), np.float32)
    assert [int(apply(OPS["size"], x, dim=d)[0]) for d in range(3)] == [2, 0, 5]
    with pytest.raises(IndexError, match="no dimensions"):
        apply(OPS["size"], np.array(1.0), dim=0)


def test_extremum_of_a_symbolic_size_that_is_zero() -> None:
    n = symbol("n")
    x = Value(Type(f32, (2, n)), name="x")
    graph = Graph(
        "g", [x], [ops.max(x, dims=(1,)), ops.argmax(x, dim=1), ops.logsumexp(x, dims=(1,))]
    )
    values, places, sums = evaluate(graph, [np.zeros((2, 0), np.float32)])
    assert values.tolist() == sums.tolist() == [-inf, -inf] and places.tolist() == [0, 0]


# ------------------------------ positions and running reductions


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_positions(name: str, keepdim: bool) -> None:
    for x in (
        sample((2, 5)),
        np.array([[1, 3, 3, 2], [nan, 5, nan, 1]]),
        sample((2, 3), i32),
        sample((3, 2), f16),
    ):
        (found,) = apply(OPS[name], x, dim=1, keepdim=keepdim)
        expected = (
            np.expand_dims(getattr(np, name)(x, 1), 1) if keepdim else getattr(np, name)(x, 1)
        )
        np.testing.assert_array_equal(found, expected)
    assert apply(OPS[name], np.array(3.0), dim=0, keepdim=keepdim)[0].shape == ()


@pytest.mark.parametrize("dtype", [f64, f32, bf16, i64, c64], ids=str)
@pytest.mark.parametrize("name", ["cumsum", "cumprod"])
def test_running_sums_and_products(name: str, dtype: DType) -> None:
    for shape, dim in (((5,), 0), ((2, 3, 4), 1), ((2, 0), 1), ((), 0)):
        x = sample(shape, dtype)
        (found,) = apply(OPS[name], x, dim=dim)
        expected = getattr(torch, name)(to_torch(x), dim)
        expected = (expected.float() if dtype is bf16 else expected).numpy()
        tolerance = TOLERANCE.get(dtype, 0)
        np.testing.assert_allclose(found.astype(expected.dtype), expected, tolerance, tolerance)


@pytest.mark.parametrize("name", ["cummax", "cummin"])
def test_running_extrema(name: str) -> None:
    for x in (
        sample((3, 6)),
        np.array([[1.0, 1, nan, 3, nan], [2, 1, 2, 2, 0]]),
        sample((2, 7), i32),
        np.array(1.0),
        np.zeros((0, 2)),
        np.array([[True, False, True]]),
    ):
        values, places = apply(OPS[name], x, dim=x.ndim - 1 if x.ndim else 0)
        expected = getattr(torch, name)(torch.from_numpy(x), -1)
        np.testing.assert_array_equal(values, expected.values.numpy())
        np.testing.assert_array_equal(places, expected.indices.numpy())


@pytest.mark.parametrize("name", ["cumsum", "cumprod", "cummax", "cummin"])
@pytest.mark.parametrize(("shape", "dim"), [((), 0), ((5,), 0), ((2, 3), 0), ((2, 3), 1)], ids=str)
def test_running_gradients(name: str, shape: tuple[int, ...], dim: int) -> None:
    x, cotangent = sample(shape), np.asarray(sample(shape, seed=1))
    cotangents = [cotangent, None] if name in ("cummax", "cummin") else [cotangent]
    (found,) = gradients(OPS[name], [x], cotangents, dim=dim)
    expected = differences(lambda v: apply(OPS[name], v, dim=dim)[0], [x], 0, cotangent)
    np.testing.assert_allclose(found, expected, 1e-6, 1e-8)


# ------------------------------ errors

REFUSED = [
    ("sum", (boolean, (2,)), {"dims": (0,)}, NotImplementedError, "'Bool'"),
    ("mean", (i64, (2,)), {"dims": (0,)}, NotImplementedError, "'Long'"),
    ("max", (c64, (2,)), {"dims": (0,)}, NotImplementedError, "'ComplexFloat'"),
    ("any", (f32, (2,)), {"dims": (0,)}, NotImplementedError, "bool"),
    ("argmax", (boolean, (2,)), {"dim": 0}, NotImplementedError, "'Bool'"),
    ("sum", (f32, (2,)), {"dims": (1,)}, IndexError, "out of range"),
    ("sum", (f32, (2, 2)), {"dims": (0, 0)}, RuntimeError, "multiple times"),
    ("sum", (f32, (2, 2)), {"dims": (-1,)}, IndexError, "negative"),
    ("cumsum", (f32, (2,)), {"dim": 1}, IndexError, "out of range"),
    ("argmax", (f32, (2, 0)), {"dim": 1}, IndexError, "non-zero size"),
]


@pytest.mark.parametrize(("name", "given", "attrs", "error", "words"), REFUSED)
def test_bad_calls_are_refused(name: str, given: Any, attrs: Any, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        OPS[name](Value(Type(*given), name="x"), **attrs)
