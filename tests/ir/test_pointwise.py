"""Elementwise ops: a table of all of them, against PyTorch, finite differences and their
decompositions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import elementwise_cases
from elementwise_cases import BINARY, COMPLEX, UNARY, Case, inf, nan, points
from evaluation import apply, decomposed, differences, gradients
from graphtorch.ir.dtype import (
    DType,
    bf16,
    boolean,
    c64,
    c128,
    f16,
    f32,
    f64,
    i8,
    i16,
    i32,
    i64,
    u8,
    u32,
)
from graphtorch.ir.evaluate import evaluate
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.op import OPS, NoGradient
from graphtorch.ir.ops import activation, binary, elementwise, special
from graphtorch.ir.ops.common import full, zeros_like
from graphtorch.ir.passes.autodiff import vjp
from graphtorch.ir.shape import symbol

torch = pytest.importorskip("torch")

BOOLS = ("logical_and", "logical_or", "logical_xor", "logical_not")
BITS = ("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not", "shift_left", "shift_right")
# tested one by one below
APART = ("real", "imag", "complex", "where", "muladd", "cast", *BOOLS, *BITS)

NAMED_CASES = [
    pytest.param(name, case, id=f"{name}-{i}" if i else name)
    for name, cases in (UNARY | BINARY).items()
    for i, case in enumerate(cases)
]


def test_the_table_has_every_op() -> None:
    names = {n for m in (activation, binary, elementwise, special) for n in m.__all__}
    assert names == set(UNARY) | set(BINARY) | set(APART)


def operands(name: str, points: tuple[Any, ...], dtype: DType) -> list[np.ndarray]:
    return [np.array(x).astype(dtype.numpy) for x in elementwise_cases.operands(name, points)]


def to_torch(array: np.ndarray, grad: bool = False) -> Any:
    if DType.of(array.dtype) is bf16:
        tensor = torch.from_numpy(array.astype(np.float32)).bfloat16()
    else:
        tensor = torch.from_numpy(array.copy())
    return tensor.requires_grad_(grad)


def from_torch(tensor: Any) -> np.ndarray:
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy(force=True)


TOLERANCE = {
    f64: (1e-12, 1e-13),
    f32: (3e-6, 1e-6),
    f16: (3e-3, 1e-3),
    bf16: (2e-2, 1e-2),
    c64: (1e-5, 1e-6),
    c128: (1e-12, 1e-13),
}


def assert_close(actual: np.ndarray, expected: np.ndarray, dtype: DType) -> None:
    wide = np.float32 if actual.dtype.itemsize == 2 and dtype.is_floating_point else actual.dtype
    relative, absolute = TOLERANCE.get(dtype, (0, 0))
    np.testing.assert_allclose(actual.astype(wide), expected.astype(wide), relative, absolute)


@pytest.mark.parametrize("dtype", [f64, f32, f16, bf16], ids=str)
@pytest.mark.parametrize(("name", "case"), NAMED_CASES)
def test_forward_is_pytorchs(name: str, case: Case, dtype: DType) -> None:
    if dtype.itemsize == 2 and name in (
        "fmin",
        "fmax",
        "copysign",
        "nextafter",
        "xlogy",
        "hypot",
        "logaddexp",
        "fmod",
    ):
        pytest.skip("compared in f32")
    for kind in ("smooth", "corners"):
        arrays = operands(name, points(name, case, kind), dtype)
        (found,) = apply(OPS[name], *arrays, **case.attrs)
        expected = from_torch(case.function(torch)(*map(to_torch, arrays)))
        compared = np.ones(expected.shape, bool)
        # PyTorch rounds some of these results twice
        if dtype.itemsize == 2 and expected.dtype.kind == "f":
            compared &= np.isfinite(expected)
        # of infinities PyTorch's kernel for AVX-512 makes NaN, its others do not
        if name == "gelu":
            compared &= np.isfinite(arrays[0].astype(np.float32))
        found, expected = found[compared], expected[compared]
        assert_close(found, expected, dtype if found.dtype.kind in "fV" else boolean)


@pytest.mark.parametrize("dtype", [c64, c128], ids=str)
@pytest.mark.parametrize(("name", "case"), [p for p in NAMED_CASES if p.values[1].complex])
def test_complex_forward_is_pytorchs(name: str, case: Case, dtype: DType) -> None:
    values = COMPLEX if name in UNARY else tuple((x, y) for x in COMPLEX for y in COMPLEX)
    arrays = operands(name, values, dtype)
    (found,) = apply(OPS[name], *arrays, **case.attrs)
    assert_close(
        found,
        from_torch(case.function(torch)(*map(to_torch, arrays))),
        dtype if found.dtype.kind != "b" else boolean,
    )


@pytest.mark.parametrize("dtype", [u8, i8, i32, i64], ids=str)
@pytest.mark.parametrize(("name", "case"), [p for p in NAMED_CASES if p.values[1].integers])
def test_integers_are_pytorchs(name: str, case: Case, dtype: DType) -> None:
    info = np.iinfo(dtype.numpy)
    values = [v for v in (-7, -2, -1, 0, 1, 3, 8, info.max, info.min) if v >= info.min]
    if name in UNARY:
        arrays = [np.array(values, dtype.numpy)]
    else:
        # PyTorch refuses or crashes on a zero divisor and on min / -1; those are tested below
        seconds = [v for v in values if v > 0 or (v < -1 and name != "pow")]
        seconds = [v for v in seconds if name != "pow" or v < 10]
        arrays = [np.array([[v] for v in values], dtype.numpy), np.array(seconds, dtype.numpy)]
    (found,) = apply(OPS[name], *arrays, **case.attrs)
    np.testing.assert_array_equal(found, from_torch(case.function(torch)(*map(to_torch, arrays))))


def differentiable(name: str) -> bool:
    return not isinstance(OPS[name].vjp, NoGradient)


@pytest.mark.parametrize(("name", "case"), NAMED_CASES)
def test_gradient_is_the_difference_quotient(name: str, case: Case) -> None:
    if not differentiable(name):
        return
    arrays = operands(name, points(name, case, "smooth"), f64)
    cotangent = np.random.default_rng(0).normal(size=arrays[0].shape)
    found = gradients(OPS[name], arrays, [cotangent], **case.attrs)
    for which, gradient in enumerate(found):
        expected = differences(
            lambda *xs: apply(OPS[name], *xs, **case.attrs)[0], arrays, which, cotangent
        )
        np.testing.assert_allclose(gradient, expected, 2e-6, 2e-8)


@pytest.mark.parametrize(("name", "case"), NAMED_CASES)
def test_second_derivative_is_the_difference_quotient(name: str, case: Case) -> None:
    if not differentiable(name):
        return
    arrays = operands(name, points(name, case, "smooth"), f64)
    inputs = [Value(Type(f64, a.shape), name=f"x{i}") for i, a in enumerate(arrays)]
    result = OPS[name](*inputs, **case.attrs)
    first = vjp([result], [full(result.shape, 1.0, f64)], inputs)
    graph = Graph("first", inputs, [g for g in first if g is not None])
    weights = [np.random.default_rng(i).normal(size=a.shape) for i, a in enumerate(arrays)]
    seeds = [Value(v.type, name=f"w{i}") for i, v in enumerate(inputs)]
    found = zip(inputs, vjp(graph.outputs, seeds, inputs), strict=True)
    second = Graph(
        "second", [*inputs, *seeds], [zeros_like(x) if g is None else g for x, g in found]
    )

    def slopes(*xs: np.ndarray) -> np.ndarray:
        return np.stack(evaluate(graph, xs))

    for which, gradient in enumerate(evaluate(second, [*arrays, *weights])):
        expected = differences(slopes, arrays, which, np.stack(weights))
        np.testing.assert_allclose(gradient, expected, 1e-5, 1e-6)


@pytest.mark.parametrize(("name", "case"), [p for p in NAMED_CASES if p.values[1].complex])
def test_complex_gradient_is_pytorchs(name: str, case: Case) -> None:
    if not differentiable(name):
        return
    values = COMPLEX if name in UNARY else tuple(zip(COMPLEX, COMPLEX[::-1], strict=True))
    arrays = operands(name, values, c128)
    assert_same_gradients(name, case, arrays)


@pytest.mark.parametrize(("name", "case"), NAMED_CASES)
def test_gradient_at_corners_is_pytorchs(name: str, case: Case) -> None:
    if not differentiable(name):
        return
    values = points(name, case, "corners")
    finite = tuple(v for v in values if np.all(np.isfinite(v)))
    assert_same_gradients(name, case, operands(name, finite, f64))


def assert_same_gradients(name: str, case: Case, arrays: list[np.ndarray]) -> None:
    tensors = [to_torch(a, grad=True) for a in arrays]
    result = case.function(torch)(*tensors)
    rng = np.random.default_rng(1)
    cotangent = rng.normal(size=result.shape)
    if result.is_complex():
        cotangent = cotangent + 1j * rng.normal(size=result.shape)
    expected = torch.autograd.grad(result, tensors, to_torch(cotangent))
    for found, wanted in zip(
        gradients(OPS[name], arrays, [cotangent], **case.attrs), expected, strict=True
    ):
        np.testing.assert_allclose(
            found, from_torch(wanted), 1e-7, 1e-12
        )  # some constants of PyTorch are f32


@pytest.mark.parametrize("dtype", [f64, f32, f16, bf16], ids=str)
@pytest.mark.parametrize(("name", "case"), [p for p in NAMED_CASES if not OPS[p.values[0]].is_core])
def test_decomposition_is_the_reference(name: str, case: Case, dtype: DType) -> None:
    for kind in ("smooth", "corners"):
        arrays = operands(name, points(name, case, kind), dtype)
        (found,) = decomposed(OPS[name], *arrays, **case.attrs)
        (expected,) = apply(OPS[name], *arrays, **case.attrs)
        assert_close(found, expected, dtype)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1,), (2, 3)], ids=str)
@pytest.mark.parametrize(("name", "case"), NAMED_CASES)
def test_any_shape(name: str, case: Case, shape: tuple[int, ...]) -> None:
    arrays = [np.full(shape, 1.5, np.float32) for _ in OPS[name].operands]
    (found,) = apply(OPS[name], *arrays, **case.attrs)
    assert found.shape == shape
    if differentiable(name):
        for gradient in gradients(OPS[name], arrays, [np.ones(shape, np.float32)], **case.attrs):
            assert gradient.shape == shape and gradient.dtype == np.float32


@pytest.mark.parametrize("name", BINARY)
def test_symbolic_broadcast(name: str) -> None:
    n = symbol("n", 1)
    x, y = Value(Type(f32, (n, 1)), name="x"), Value(Type(f32, (3,)), name="y")
    result = OPS[name](x, y)
    assert result.shape == (n, 3)
    if differentiable(name):
        seed = Value(Type(f32, (n, 3)), name="g")
        found = OPS[name].vjp
        assert callable(found)
        assert [g.type for g in found(result.node, seed)] == [x.type, y.type]


def test_broadcast_gradients_sum() -> None:
    x, y = np.arange(6.0).reshape(2, 3), np.array([[2.0], [3.0]])
    to_x, to_y = gradients(OPS["mul"], [x, y], [np.ones((2, 3))])
    np.testing.assert_array_equal(to_x, np.broadcast_to(y, (2, 3)))
    np.testing.assert_array_equal(to_y, x.sum(1, keepdims=True))


# ------------------------------ ops that need a table of their own


@pytest.mark.parametrize("name", BOOLS)
def test_logic(name: str) -> None:
    arrays = [np.array([[False], [True]]), np.array([False, True])][: len(OPS[name].operands)]
    (found,) = apply(OPS[name], *arrays)
    np.testing.assert_array_equal(found, getattr(np, name)(*arrays))


@pytest.mark.parametrize("dtype", [u8, i8, i32, i64], ids=str)
@pytest.mark.parametrize("name", BITS)
def test_bits(name: str, dtype: DType) -> None:
    info = np.iinfo(dtype.numpy)
    x = np.array([[0], [1], [5], [info.max], [info.min]], dtype.numpy)
    y = np.array([0, 1, 3, dtype.bits - 1], dtype.numpy)
    (found,) = apply(OPS[name], *[x, y][: len(OPS[name].operands)])
    oracle = {
        "shift_left": "left_shift",
        "shift_right": "right_shift",
        "bitwise_not": "invert",
    }.get(name, name)
    np.testing.assert_array_equal(found, getattr(np, oracle)(*[x, y][: len(OPS[name].operands)]))


def test_shift_out_of_range() -> None:
    x, y = np.array([5, -5], np.int32), np.array([[-1], [32], [99]], np.int32)
    assert apply(OPS["shift_left"], x, y)[0].tolist() == [[0, 0]] * 3
    assert apply(OPS["shift_right"], x, y)[0].tolist() == [[0, -1]] * 3


@pytest.mark.parametrize("dtype", [u8, i8, i32, i64], ids=str)
def test_integer_division_never_traps(dtype: DType) -> None:
    info = np.iinfo(dtype.numpy)
    x = np.array([0, 1, info.max, info.min], dtype.numpy)
    for name in ("floor_div", "trunc_div", "remainder", "fmod"):
        assert apply(OPS[name], x, np.zeros(4, dtype.numpy))[0].tolist() == [0] * 4
    if dtype.signed:
        low, minus = np.array([info.min], dtype.numpy), np.array([-1], dtype.numpy)
        for name, expected in {
            "floor_div": info.min,
            "trunc_div": info.min,
            "remainder": 0,
            "fmod": 0,
        }.items():
            assert apply(OPS[name], low, minus)[0].tolist() == [expected]


def test_integer_power() -> None:
    x, y = (
        np.array([0, 1, -1, -1, 2, 3, -2], np.int64),
        np.array([-1, -5, -3, -2, -1, 4, 3], np.int64),
    )
    assert apply(OPS["pow"], x, y)[0].tolist() == [0, 1, -1, 1, 0, 81, -8]


def test_complex_parts() -> None:
    z = np.array([1 + 2j, complex(inf, -3)], np.complex64)
    re, im = apply(OPS["real"], z)[0], apply(OPS["imag"], z)[0]
    np.testing.assert_array_equal(re, z.real)
    np.testing.assert_array_equal(apply(OPS["complex"], re, im)[0], z)
    g = np.array([3, 4], np.float32)
    np.testing.assert_array_equal(gradients(OPS["real"], [z], [g])[0], g + 0j)
    np.testing.assert_array_equal(gradients(OPS["imag"], [z], [g])[0], 1j * g)
    to_re, to_im = gradients(OPS["complex"], [re, im], [np.array([5 + 6j, 7 - 8j], np.complex64)])
    assert to_re.tolist() == [5, 7] and to_im.tolist() == [6, -8]


def test_where() -> None:
    cond, x, y = np.array([[True], [False]]), np.array([1.0, nan]), np.array(3.0)
    np.testing.assert_array_equal(apply(OPS["where"], cond, x, y)[0], [[1, nan], [3, 3]])
    found = gradients(OPS["where"], [cond, x, y], [np.array([[5.0, 6], [7, 8]])])
    assert found[0] is None and found[1].tolist() == [5, 6] and found[2].tolist() == 15


@pytest.mark.parametrize("dtype", [i32, i64], ids=str)
def test_float_to_wide_integer_saturates(dtype: DType) -> None:
    info = np.iinfo(dtype.numpy)
    x = np.array([nan, inf, -inf, 1e30, -1e30, 2.9, -2.9, 0.0])
    expected = [0, info.max, info.min, info.max, info.min, 2, -2 if dtype.signed else 0, 0]
    for source in (np.float64, np.float32):
        assert apply(OPS["cast"], x.astype(source), dtype=dtype)[0].tolist() == expected


def test_float_to_narrow_integer_wraps() -> None:
    x = np.array([nan, inf, -inf, 1e30, -1.9, 300.7, 70000.0, -70001.0, 2.0**31 + 512])
    for dtype, expected in (
        (u8, [0, 0, 0, 0, 255, 44, 112, 143, 0]),
        (i8, [0, 0, 0, 0, -1, 44, 112, -113, 0]),
        (i16, [0, 0, 0, 0, -1, 300, 4464, -4465, 0]),
        (u32, [0, 0, 0, 0, 2**32 - 1, 300, 70000, 2**32 - 70001, 2**31 + 512]),
    ):
        assert apply(OPS["cast"], x.astype(np.float32), dtype=dtype)[0].tolist() == expected
    assert apply(OPS["cast"], np.array([3e9 + 513]), dtype=u8)[0].tolist() == [1]  # through 64 bits


def test_cast_between_kinds() -> None:
    assert apply(OPS["cast"], np.array([0.0, -0.0, nan, 0.1]), dtype=boolean)[0].tolist() == [
        False,
        False,
        True,
        True,
    ]
    assert apply(OPS["cast"], np.array([300, -1], np.int32), dtype=u8)[0].tolist() == [44, 255]
    assert apply(OPS["cast"], np.array([1 + 2j]), dtype=f32)[0].tolist() == [1]
    assert apply(OPS["cast"], np.array([True, False]), dtype=bf16)[0].astype(float).tolist() == [
        1,
        0,
    ]


def test_cast_gradients() -> None:
    x = np.array([1.0, 2.0], np.float32)
    assert gradients(OPS["cast"], [x], [np.array([3.0, 4.0])], dtype=f64)[0].dtype == np.float32
    assert gradients(OPS["cast"], [x], [np.array([3 + 1j, 4])], dtype=c128)[0].tolist() == [3, 4]
    assert gradients(OPS["cast"], [x + 0j], [np.array([3.0, 4])], dtype=f64)[0].tolist() == [3, 4]
    assert gradients(OPS["cast"], [x], [np.array([3, 4])], dtype=i64) == [None]


# ------------------------------ accuracy and errors


def test_erfinv_is_exact_far_out() -> None:
    x = 1 - np.array([1e-3, 1e-6, 1e-9, 1e-12, 1e-15])
    (y,) = decomposed(OPS["erfinv"], x)
    np.testing.assert_allclose(y, from_torch(torch.erfinv(to_torch(x))), 1e-11)
    np.testing.assert_allclose([math.erfc(v) for v in y], 1 - x, 1e-13)
    small = np.array([1e-300, 1e-20, 1e-8, 0.25])
    np.testing.assert_allclose(
        [math.erf(v) for v in decomposed(OPS["erfinv"], small)[0]], small, 1e-15
    )


def test_digamma_at_poles() -> None:
    x = np.array([0.0, -0.0, -1.0, -7.0])
    for found in (apply(OPS["digamma"], x)[0], decomposed(OPS["digamma"], x)[0]):
        np.testing.assert_array_equal(found, [-inf, inf, nan, nan])


def test_second_derivative_of_lgamma_is_trigamma() -> None:
    x, basel = np.array([1.0, 0.5, -0.5, 2.0]), math.pi**2 / 6
    (found,) = gradients(OPS["digamma"], [x], [np.ones(4)])
    np.testing.assert_allclose(found, [basel, 3 * basel, 3 * basel + 4, basel - 1], 1e-12)


REFUSED = [
    ("neg", (boolean,), NotImplementedError, "'Bool'"),
    ("sub", (boolean, boolean), NotImplementedError, "logical_xor"),
    ("floor", (c64,), NotImplementedError, "'ComplexFloat'"),
    ("exp", (i64,), NotImplementedError, "'Long'"),
    ("div", (i64, i64), NotImplementedError, "floating-point or complex"),
    ("lt", (c64, c64), NotImplementedError, "'ComplexFloat'"),
    ("add", (f32, f64), RuntimeError, "same dtype"),
    ("bitwise_and", (f32, f32), NotImplementedError, "integer or bool"),
    ("logical_and", (f32, f32), NotImplementedError, "!= 0"),
    ("complex", (f16, f16), RuntimeError, "f32 or f64"),
    ("where", (f32, f32, f32), RuntimeError, "boolean tensor"),
    ("imag", (f32,), NotImplementedError, "complex"),
]


@pytest.mark.parametrize(("name", "dtypes", "error", "words"), REFUSED)
def test_wrong_dtypes_are_refused(
    name: str, dtypes: tuple[DType, ...], error: type, words: str
) -> None:
    with pytest.raises(error, match=words):
        OPS[name](*[Value(Type(d, (2,)), name="x") for d in dtypes])


def test_wrong_shapes_and_attributes_are_refused() -> None:
    x, y = (Value(Type(f32, (n,)), name="x") for n in (2, 3))
    with pytest.raises(RuntimeError, match="size of tensor a"):
        OPS["add"](x, y)
    with pytest.raises(RuntimeError, match="either none or tanh"):
        OPS["gelu"](x, approximate="fast")
