"""Corners of tensor ops: NaN, infinities, ties, empty and 0-d operands, integers, complex
numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from evaluation import apply, decomposed
from graphtorch.ir import ops
from graphtorch.ir.dtype import f32, f64, i64
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.passes.autodiff import vjp
from graphtorch.ir.shape import symbol
from graphtorch.ir.text import parse

NAN, INF = np.nan, np.inf


def same(actual: np.ndarray, expected: Any) -> None:
    np.testing.assert_array_equal(actual, np.asarray(expected, actual.dtype))


def max_pool1d(
    line: list[float], kernel: int, stride: int, padding: int, dilation: int = 1
) -> list[np.ndarray]:
    x = np.array(line, np.float32)[None, None]
    found = apply(
        ops.max_pool,
        x,
        kernel=(kernel,),
        stride=(stride,),
        padding=(padding,),
        dilation=(dilation,),
        ceil_mode=False,
    )
    return [r[0, 0] for r in found]


def test_max_pool_keeps_nan_as_pytorch_does() -> None:
    torch = pytest.importorskip("torch")
    line = [1.0, NAN, 2.0, NAN, 0.0, 5.0, 5.0, -INF, -INF]
    values, indices = max_pool1d(line, 3, 1, 1)
    expected = torch.nn.functional.max_pool1d(torch.tensor([[line]]), 3, 1, 1, return_indices=True)
    np.testing.assert_array_equal(values, expected[0][0, 0].numpy())
    np.testing.assert_array_equal(indices, expected[1][0, 0].numpy())


def test_max_pool_never_picks_padding() -> None:
    values, indices = max_pool1d([-INF, -INF, -3.0, -4.0], 2, 2, 1)
    same(values, [-INF, -3.0, -4.0])
    same(indices, [0, 2, 3])


def test_adaptive_max_pool_with_ties_and_nan() -> None:
    x = np.array([[[2.0, 2.0, 1.0, NAN, 3.0, NAN]]])
    values, indices = apply(ops.adaptive_max_pool, x, output_size=(2,))
    same(values[0, 0], [2.0, NAN])
    same(indices[0, 0], [0, 5])


def test_max_pool_of_integers() -> None:
    x = np.array([[[-5, -7, -3]]], np.int64)
    values, indices = apply(
        ops.max_pool, x, kernel=(2,), stride=(1,), padding=(1,), dilation=(1,), ceil_mode=False
    )
    same(values[0, 0], [-5, -5, -3, -3])
    same(indices[0, 0], [0, 0, 2, 2])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int64", "bool"])
@pytest.mark.parametrize("descending", [False, True])
def test_sort_is_stable_and_puts_nan_as_pytorch_does(dtype: str, descending: bool) -> None:
    torch = pytest.importorskip("torch")
    numbers = (
        [3.0, NAN, 1.0, 3.0, -INF, NAN, 1.0, INF] if "float" in dtype else [3, 0, 1, 3, 0, 2, 1, 1]
    )
    given = torch.tensor(numbers).to(getattr(torch, dtype))
    expected = given.sort(stable=True, descending=descending)
    if dtype == "bfloat16":
        import ml_dtypes

        array = np.array(numbers, ml_dtypes.bfloat16)
    else:
        array = given.numpy()
    values, indices = apply(ops.sort, array, dim=0, descending=descending)
    np.testing.assert_array_equal(values.astype(np.float64), expected[0].double().numpy())
    np.testing.assert_array_equal(indices, expected[1].numpy())


@pytest.mark.parametrize("right", [False, True])
def test_searchsorted(right: bool) -> None:
    torch = pytest.importorskip("torch")
    for edges, x in (
        (np.array([1.0, 2.0, 2.0, 4.0]), np.array([[0.0, 2.0], [NAN, 9.0]])),
        (np.sort(np.random.default_rng(0).integers(0, 9, (2, 5)), -1), np.arange(6).reshape(2, 3)),
        (np.zeros(0), np.array(3.0)),
    ):
        expected = torch.searchsorted(torch.tensor(edges), torch.tensor(x), right=right)
        found = apply(ops.searchsorted, edges, x, right=right)[0]
        assert found.shape == x.shape
        np.testing.assert_array_equal(found, expected.numpy())


def test_softmax_of_infinities() -> None:
    x = np.array([[-INF, 0.0, -INF], [-INF, -INF, -INF], [INF, 0.0, 1.0], [1e30, 0.0, 0.0]])
    same(apply(ops.softmax, x, dim=1)[0], [[0, 1, 0], [NAN] * 3, [NAN, NAN, NAN], [1, 0, 0]])
    same(apply(ops.log_softmax, x, dim=1)[0][0], [-INF, 0, -INF])


def test_losses_without_a_counted_target() -> None:
    x, target = np.ones((2, 3), np.float32), np.array([-100, -100])
    assert np.isnan(apply(ops.cross_entropy, x, target)[0])
    same(apply(ops.cross_entropy, x, target, reduction="sum")[0], 0)
    same(apply(ops.nll_loss, x * NAN, target, reduction="none")[0], [0, 0])


def test_scatter_keeps_the_last_of_several_writes() -> None:
    same(
        apply(ops.scatter, np.zeros(3), np.array([1, 1]), np.array([5.0, 6.0]), dim=0)[0], [0, 6, 0]
    )


def test_sixteen_bit_sums_do_not_stall() -> None:
    many = np.full(4096, 1.0, np.float16)
    total = apply(ops.scatter_add, np.zeros(1, np.float16), np.zeros(4096, np.int64), many, dim=0)[
        0
    ]
    same(total, [4096])


def test_iota_constant_detach() -> None:
    same(apply(ops.iota, shape=(2, 3), dim=1, dtype=f32)[0], [[0, 1, 2]] * 2)
    same(apply(ops.detach, np.array(3.0))[0], 3.0)
    x = Value(Type(f64, ()), name="x")
    assert vjp([ops.mul(x, ops.detach(x))], [x], [x])[0] is not None
    assert vjp([ops.detach(x)], [x], [x]) == [None]


def test_integers_and_bools_move() -> None:
    x = np.array([[True, False], [True, True]])
    same(apply(ops.tril, x, diagonal=0)[0], [[True, False], [True, True]])
    same(
        apply(ops.pad, x, low=(0, 1), high=(0, 0), value=True)[0],
        [[True, True, False], [True, True, True]],
    )
    same(apply(ops.matmul, np.array([[1, 2]]), np.array([[3], [4]]))[0], [[11]])
    same(
        apply(
            ops.index_put, np.arange(3), np.array(7), np.array([0, 0]), dims=(0,), accumulate=True
        )[0],
        [14, 1, 2],
    )


def complex_gradients(build: Any, arrays: list[np.ndarray]) -> None:
    torch = pytest.importorskip("torch")
    values = [Value(Type(ops_dtype(a), a.shape), name=f"x{i}") for i, a in enumerate(arrays)]
    from graphtorch.ir.evaluate import evaluate

    y, expected_y = build(ops, *values), None
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    expected_y = build(torch, *tensors)
    seed = np.random.default_rng(1).standard_normal((2, *expected_y.shape))
    seed = seed[0] + 1j * seed[1]
    cotangent = Value(y.type, name="c")
    found = evaluate(
        Graph("g", [*values, cotangent], [y, *vjp([y], [cotangent], values)]), [*arrays, seed]
    )
    expected = torch.autograd.grad(expected_y, tensors, torch.tensor(seed))
    for a, e in zip(found, [expected_y, *expected], strict=True):
        np.testing.assert_allclose(a, e.detach().numpy(), 1e-10)


def ops_dtype(array: np.ndarray) -> Any:
    from graphtorch.ir.dtype import DType

    return DType.of(array.dtype)


def random_complex(*shape: int) -> np.ndarray:
    pair = np.random.default_rng(sum(shape)).standard_normal((2, *shape))
    return pair[0] + 1j * pair[1]


def test_complex_products_take_conjugates() -> None:
    complex_gradients(lambda m, a, b: m.matmul(a, b), [random_complex(2, 3), random_complex(3, 4)])


def test_complex_linear_maps_take_conjugates() -> None:
    def build(m: Any, x: Any, w: Any, b: Any) -> Any:
        return m.affine(b, x, w) if m is ops else m.nn.functional.linear(x, w, b)

    complex_gradients(build, [random_complex(2, 3), random_complex(4, 3), random_complex(4)])


@pytest.mark.parametrize("lead", [(), (5,), (2, 5), (0, 3), (2, 1, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int32])
def test_linear_maps_are_products_of_rows(lead: tuple[int, ...], dtype: Any) -> None:
    rng = np.random.default_rng(3)
    x, w, b = (rng.integers(-4, 5, shape).astype(dtype) for shape in ((*lead, 3), (4, 3), (4,)))
    for op, arrays, expected in (
        (ops.linear, (x, w), x @ w.T),
        (ops.affine, (b, x, w), x @ w.T + b),
    ):
        same(apply(op, *arrays)[0], expected)
        same(decomposed(op, *arrays)[0], expected)
        if dtype is not np.float16:
            same(op.plain(None, *arrays), expected)


def test_linear_maps_refuse_what_does_not_fit() -> None:
    x, w = x_of(2, 3), x_of(4, 3)
    for build in (
        lambda: ops.linear(x, x_of(3, 4)),
        lambda: ops.linear(x_of(), w),
        lambda: ops.linear(x, x_of(3)),
        lambda: ops.affine(x_of(3), x, w),
        lambda: ops.affine(x_of(1), x, w),
    ):
        with pytest.raises(RuntimeError, match="expected"):
            build()
    assert ops.affine(x_of(4), x_of(N, H, 3), w).shape == (N, H, 4)


def test_complex_convolution_takes_conjugates() -> None:
    def build(m: Any, x: Any, w: Any) -> Any:
        if m is ops:
            return ops.conv(x, w, stride=(2,), padding=((1, 1),), dilation=(1,), groups=1)
        return m.nn.functional.conv1d(x, w, stride=2, padding=1)

    complex_gradients(build, [random_complex(1, 2, 6), random_complex(3, 2, 3)])


N, H = symbol("n", min=1), symbol("h", min=8)


def x_of(*shape: Any) -> Value:
    return Value(Type(f32, shape), name="x")


def test_symbolic_shapes() -> None:
    w = Value(Type(f32, (8, 3, 3, 3)), name="w")
    place = {"stride": (2, 2), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
    assert ops.conv(x_of(N, 3, H, H), w, **place).shape == (N, 8, (H + 1) // 2, (H + 1) // 2)
    pooled, _ = ops.max_pool(
        x_of(N, 3, H), kernel=(2,), stride=(2,), padding=(0,), dilation=(1,), ceil_mode=False
    )
    assert pooled.shape == (N, 3, H // 2)
    assert ops.concat(x_of(N, 2), x_of(H, 2), dim=0).shape == (N + H, 2)
    assert ops.reshape(x_of(N, 6), shape=(2 * N, 3)).shape == (2 * N, 3)
    assert ops.slice(x_of(2 * H), start=(0,), stop=(H,), step=(2,)).shape == ((H + 1) // 2,)
    assert ops.pad(x_of(N), low=(1,), high=(H,), value=0).shape == (N + H + 1,)
    assert ops.matmul(x_of(N, 1, 2, H), x_of(5, H, 3)).shape == (N, 5, 2, 3)
    assert ops.index(x_of(4, N), Value(Type(i64, (H, 1)), name="i"), dims=(0,)).shape == (H, 1, N)


def test_text_reads_back() -> None:
    x = x_of(N, 3, H)
    w = Value(Type(f32, (4, 3, 3)), name="w")
    y = ops.conv(x, w, stride=(2,), padding=((1, 0),), dilation=(1,), groups=1)
    y, _ = ops.max_pool(y, kernel=(2,), stride=(1,), padding=(1,), dilation=(1,), ceil_mode=True)
    y = ops.pad(y, low=(0, 0, 1), high=(0, 0, 1), value=-INF)
    gradients = vjp([y], [ops.sigmoid(y)], [x, w])
    graph = Graph("g", [x, w], [y, *gradients])
    assert parse(str(graph)) == graph
