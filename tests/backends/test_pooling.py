"""Pools and their gradients in native code against the references."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from compiled import check, lowered_text
from graphtorch.ir import ops
from graphtorch.ir.dtype import f32
from graphtorch.ir.graph import Value
from graphtorch.ir.literal import Literal
from graphtorch.ir.shape import Symbol, SymInt

BATCH = SymInt.atom(Symbol("batch", 0, 1 << 40))
SIZE = SymInt.atom(Symbol("size", 4, 1 << 20))
DTYPES = [
    np.float32,
    np.float64,
    np.float16,
    ml_dtypes.bfloat16,
    np.int64,
    np.int32,
    np.uint8,
    np.uint64,
]
#           input shape        kernel     stride     padding    dilation   ceil mode
WINDOWS = [
    ((2, 3, 8, 8), (2, 2), (2, 2), (0, 0), (1, 1), False),
    ((2, 3, 9, 7), (2, 2), (2, 2), (0, 0), (1, 1), True),
    ((2, 3, 9, 35), (2, 2), (2, 2), (0, 0), (1, 1), False),
    ((1, 2, 6, 26), (3, 2), (1, 2), (0, 0), (2, 1), False),
    ((1, 2, 5, 6, 39), (2, 3, 2), (1, 2, 2), (0, 0, 0), (1, 1, 1), False),
    ((2, 3, 66), (2,), (2,), (0,), (1,), False),
    ((1, 2, 9, 11), (3, 3), (2, 2), (1, 1), (1, 1), False),
    ((1, 2, 10, 13), (3, 3), (2, 2), (1, 1), (1, 1), True),
    ((1, 2, 6, 6), (3, 3), (1, 1), (1, 1), (1, 1), False),
    ((2, 1, 9, 12), (3, 2), (1, 2), (1, 0), (2, 3), False),
    ((2, 1, 5, 5), (5, 5), (3, 3), (2, 2), (1, 1), False),
    ((2, 1, 5, 5), (4, 4), (1, 1), (2, 2), (2, 2), False),
    ((1, 1, 1, 1), (1, 1), (1, 1), (0, 0), (1, 1), False),
    ((1, 1, 2, 40), (2, 5), (2, 5), (1, 2), (1, 1), True),
    ((0, 3, 8, 8), (3, 3), (2, 2), (1, 1), (1, 1), False),
    ((2, 0, 8, 8), (2, 2), (2, 2), (0, 0), (1, 1), False),
    ((2, 3, 17), (3,), (2,), (1,), (1,), False),
    ((2, 3, 17), (4,), (4,), (0,), (1,), True),
    ((2, 3, 40), (20,), (1,), (7,), (1,), False),
    ((1, 2, 5, 6, 7), (2, 3, 3), (1, 2, 2), (1, 1, 1), (1, 1, 1), False),
    ((1, 2, 7, 6, 9), (3, 3, 3), (2, 1, 2), (1, 1, 1), (2, 1, 2), True),
    ((1, 1, 9, 9, 9), (5, 5, 5), (1, 1, 1), (2, 2, 2), (1, 1, 1), False),
]

AVERAGE = {
    "kernel": (3, 3),
    "stride": (2, 2),
    "padding": (1, 1),
    "ceil_mode": False,
    "count_include_pad": False,
    "divisor": None,
}


def numbers(dtype: type, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Small numbers, so that many are equal."""
    low = 0 if np.dtype(dtype).kind == "u" else -4
    values = np.random.default_rng(seed).integers(low, 5, shape)
    return (values * (1 if np.dtype(dtype).kind in "iu" else 0.5)).astype(dtype)


def max_pool(x: Value, window: tuple) -> tuple[Value, Value]:
    kernel, stride, padding, dilation, ceil_mode = window
    return ops.max_pool(
        x, kernel=kernel, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode
    )


@pytest.mark.parametrize("case", WINDOWS)
def test_max_pool(case: tuple) -> None:
    shape, *window = case
    if any(p > k // 2 for p, k in zip(window[2], window[0], strict=True)):
        return
    x = numbers(np.float32, shape)
    check(lambda x: max_pool(x, window), [x])
    check(lambda x: max_pool(x, window)[0], [x])
    check(lambda x: max_pool(x, window)[1], [x])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", [WINDOWS[1], WINDOWS[3]])
def test_max_pool_dtypes(dtype: type, case: tuple) -> None:
    shape, *window = case
    check(lambda x: max_pool(x, window), [numbers(dtype, shape)])


@pytest.mark.parametrize("case", [WINDOWS[0], WINDOWS[2], WINDOWS[4], WINDOWS[7]])
def test_max_pool_special_values(case: tuple) -> None:
    shape, *window = case
    rng = np.random.default_rng(1)
    values = np.array([np.nan, -np.inf, np.inf, 0.0, -0.0, 1.0], np.float32)
    x = rng.choice(values, shape, p=[0.1, 0.4, 0.1, 0.1, 0.1, 0.2])
    check(lambda x: max_pool(x, window), [x])
    check(lambda x: max_pool(x, window)[0], [x])


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("divisor", [None, 3])
def test_avg_pool_and_gradient(include: bool, divisor: int | None) -> None:
    for shape, kernel, stride, padding, dilation, ceil_mode in WINDOWS:
        if any(d > 1 for d in dilation) or any(
            p > k // 2 for p, k in zip(padding, kernel, strict=True)
        ):
            continue
        window = {
            "kernel": kernel,
            "stride": stride,
            "padding": padding,
            "ceil_mode": ceil_mode,
            "count_include_pad": include,
            "divisor": divisor,
        }

        def both(x: Value, window: dict = window) -> tuple[Value, Value]:
            y = ops.avg_pool(x, **window)
            return y, ops.avg_pool_grad(ops.sin(y), spatial=x.shape[2:], **window)

        check(both, [numbers(np.float32, shape)])


@pytest.mark.parametrize("dtype", DTYPES[:4])
def test_avg_pool_dtypes(dtype: type) -> None:
    window = AVERAGE
    x = numbers(dtype, (2, 3, 7, 9))
    check(lambda x: ops.avg_pool(x, **window), [x])
    check(lambda g: ops.avg_pool_grad(g, spatial=(7, 9), **window), [numbers(dtype, (2, 3, 4, 5))])


@pytest.mark.parametrize("case", WINDOWS)
def test_max_pool_gradient(case: tuple) -> None:
    shape, *window = case

    def gradient(x: Value) -> Value:
        values, places = max_pool(x, window)
        return ops.max_pool_grad(ops.sin(values), places, spatial=x.shape[2:])

    check(gradient, [numbers(np.float32, shape)])


@pytest.mark.parametrize("dtype", DTYPES[:4])
def test_max_pool_gradient_dtypes(dtype: type) -> None:
    rng = np.random.default_rng(2)
    g = rng.standard_normal((2, 3, 40)).astype(dtype)
    places = rng.integers(0, 6, (2, 3, 40))
    check(lambda g, i: ops.max_pool_grad(g, i, spatial=(6,)), [g, places])


APART = [  # windows that do not overlap: shape, kernel, stride
    ((2, 3, 28, 28), (2, 2), (2, 2)),
    ((2, 3, 10, 10), (2, 2), (2, 2)),
    ((1, 2, 7, 9), (2, 2), (2, 2)),
    ((2, 2, 9, 12), (3, 3), (3, 3)),
    ((2, 2, 9, 17), (2, 3), (3, 4)),
    ((2, 3, 37), (4,), (4,)),
    ((1, 2, 4, 6, 8), (2, 1, 2), (2, 3, 2)),
    ((3, 1, 6, 5), (1, 1), (1, 1)),
    ((2, 1, 4, 2), (2, 2), (2, 2)),
    ((1, 1, 4, 64), (2, 8), (2, 8)),
]


@pytest.mark.parametrize("dtype", DTYPES[:4])
@pytest.mark.parametrize("case", APART)
def test_gradient_of_windows_apart(case: tuple, dtype: type) -> None:
    """From the pool's input, with equal elements and NaN; also what follows it in a training
    step."""
    shape, kernel, stride = case
    rng = np.random.default_rng(3)
    x = rng.choice(
        np.array([np.nan, -1, 0, 1, 2], np.float32), shape, p=[0.1, 0.3, 0.3, 0.2, 0.1]
    ).astype(dtype)
    window = kernel, stride, (0,) * len(kernel), (1,) * len(kernel), False

    def step(x: Value) -> tuple[Value, ...]:
        values, places = max_pool(x, window)
        grad = ops.max_pool_grad(ops.sin(values), places, spatial=x.shape[2:])
        zero = ops.constant(value=Literal.of(0, x.dtype))
        masked = ops.where(ops.le(x, zero), zero, grad)
        kept = ops.where(ops.gt(x, zero), grad, zero)
        return values, masked, kept, ops.sum(masked, dims=(0, *range(2, len(shape))), keepdim=False)

    check(step, [x])


def test_places_out_of_range() -> None:
    g, places = np.ones((1, 2, 3), np.float32), np.array([[[0, 1, 2], [0, 9, -1]]])
    with pytest.raises(IndexError, match="max_pool_grad"):
        check(lambda g, i: ops.max_pool_grad(g, i, spatial=(4,)), [g, places])


@pytest.mark.parametrize("batch", [0, 1, 5])
@pytest.mark.parametrize("case", [WINDOWS[0], WINDOWS[2], WINDOWS[15]])
def test_symbolic_batch(batch: int, case: tuple) -> None:
    shape, *window = case
    check(
        lambda x: max_pool(x, window),
        [numbers(np.float32, (batch, *shape[1:]))],
        [(BATCH, *shape[1:])],
    )


@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 9), (16, 7)])
def test_symbolic_sizes(height: int, width: int) -> None:
    window = ((3, 3), (2, 2), (1, 1), (1, 1), False)
    x = numbers(np.float32, (2, 3, height, width))
    for shape in [(2, 3, SIZE, width), (2, 3, height, SIZE)]:
        check(lambda x: max_pool(x, window), [x], [shape])
        check(lambda x: ops.avg_pool(x, **AVERAGE), [x], [shape])


ADAPTIVE = [
    ((2, 3, 8, 8), (1, 1)),
    ((2, 3, 8, 8), (4, 2)),
    ((2, 3, 7, 11), (3, 4)),
    ((2, 3, 5), (7,)),
    ((1, 2, 4, 5, 6), (2, 2, 5)),
    ((0, 2, 4, 4), (3, 3)),
]


@pytest.mark.parametrize(("shape", "out"), ADAPTIVE)
def test_adaptive_pools(shape: tuple[int, ...], out: tuple[int, ...]) -> None:
    x = numbers(np.float32, shape)
    check(lambda x: ops.adaptive_avg_pool(x, output_size=out), [x])
    check(lambda x: ops.adaptive_max_pool(x, output_size=out), [x])
    g = numbers(np.float32, (*shape[:2], *out))
    check(lambda g: ops.adaptive_avg_pool_grad(g, spatial=shape[2:]), [g])


def test_what_follows_and_feeds_a_pool() -> None:
    for shape, *window in (WINDOWS[0], WINDOWS[2], WINDOWS[4]):

        def net(x: Value, y: Value, window: list = window) -> tuple[Value, Value]:
            values, places = max_pool(ops.relu(x), window)
            total = ops.sum(ops.cast(places, dtype=f32), dims=(1,), keepdim=False)
            return ops.mul(ops.tanh(values), y), total

        x = numbers(np.float32, shape)
        check(net, [x, np.float32(2.5)])


def test_many_planes() -> None:
    window = ((3, 3), (2, 2), (1, 1), (1, 1), False)
    rng = np.random.default_rng(3)
    check(lambda x: max_pool(x, window), [rng.standard_normal((16, 32, 30, 30)).astype(np.float32)])


def test_kernel_text(golden) -> None:  # type: ignore[no-untyped-def]
    window = ((3, 3), (2, 2), (1, 1), (1, 1), False)
    golden("pool_rows", lowered_text(lambda x: max_pool(x, window)[0], [(f32, (1, 8, 16, 16))]))
