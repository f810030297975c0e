"""Loop regions in native code: views, reductions, windows, lookups and random numbers."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

from compiled import check, graph_of, lowered_text, run
from graphtorch.backends.kernels.machine import Machine
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, f32, f64, i64
from graphtorch.ir.evaluate import evaluate
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.shape import symbol
from programs import lowered, run_program

Build = Callable[..., object]
N = symbol("n", 0, 1000)
DTYPES = [
    np.float32,
    np.float64,
    np.float16,
    ml_dtypes.bfloat16,
    np.int64,
    np.int32,
    np.uint8,
    np.uint32,
    np.uint64,
    np.bool_,
]


def numbers(dtype: type, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind in "bui":
        return rng.integers(0, 7, shape).astype(dtype)
    return np.asarray(np.round(rng.standard_normal(shape) * 2, 1)).astype(dtype)


def softmax_rows(x: Value) -> Value:
    return ops.softmax(x, dim=x.rank - 1)


def affine(x: Value) -> Value:
    """A layer norm with weights of their own, made of the input's shape."""
    one = ops.iota(shape=x.shape[-1:], dim=0, dtype=x.dtype)
    return ops.layer_norm(x, one, one, axes=1, eps=1e-5)


# ---- digits of long sums

LONG: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "row": ((30000,), (0,)),
    "rows": ((3, 9000), (1,)),
    "columns": ((9001, 7), (0,)),
    "wide columns": ((3000, 130), (0,)),
    "images": ((40, 24, 12, 12), (0, 2, 3)),
    "images, channels last": ((40, 12, 12, 24), (0, 1, 2)),
    "slices": ((90, 6, 40), (0, 2)),
}


@pytest.mark.parametrize("name", LONG)
def test_long_sums_keep_their_digits(name: str) -> None:
    """Equal numbers that are added one after the other are all rounded to the same side, as are the
    zeros of a ReLU less their mean."""
    shape, dims = LONG[name]
    kept = tuple(1 if i in dims else d for i, d in enumerate(shape))
    rng = np.random.default_rng(3)
    mostly = np.maximum(rng.standard_normal(shape) - 0.7, 0)
    for x in (np.full(shape, 0.1), (mostly - mostly.mean(dims, keepdims=True)) ** 2):
        given = x.astype(np.float32)
        want = given.astype(np.float64).sum(dims).reshape(kept)
        for sizes in (shape, tuple(N if i == 0 and d <= 1000 else d for i, d in enumerate(shape))):
            graph = graph_of(lambda v: ops.sum(v, dims=dims, keepdim=True), [(f32, sizes)])
            for found in (run(graph, [given])[0], *evaluate(graph, [given])):
                np.testing.assert_allclose(found, want, rtol=2e-6)


@pytest.mark.parametrize("name", LONG)
def test_long_products_keep_their_digits(name: str) -> None:
    """Products of numbers near 1 are all rounded to the same side: what two differ from 1 by,
    multiplied, is less than a digit."""
    shape, dims = LONG[name]
    near = 1 + 1e-4 * np.random.default_rng(3).standard_normal(shape)
    given = near.astype(np.float32)
    graph = graph_of(lambda v: ops.prod(v, dims=dims, keepdim=False), [(f32, shape)])
    (found,) = run(graph, [given])
    np.testing.assert_allclose(found, given.astype(np.float64).prod(dims), rtol=2e-7)


# ---- views

VIEWS: dict[str, Build] = {
    "transpose": lambda x: ops.permute(x, dims=(2, 0, 1)),
    "flatten": lambda x: ops.reshape(
        ops.permute(x, dims=(0, 2, 1)), shape=(x.shape[0], x.shape[1] * x.shape[2])
    ),
    "split": lambda x: ops.add(
        ops.reshape(x, shape=(*x.shape[:2], 2, 3)), ops.reshape(x, shape=(*x.shape[:2], 2, 3))
    ),
    "flip": lambda x: ops.flip(x, dims=(0, 2)),
    "pad": lambda x: ops.pad(x, low=(1, 0, 2), high=(0, 3, 1), value=1),
    "concat": lambda x: ops.concat(x, ops.flip(x, dims=(1,)), x, dim=1),
    "inner_concat": lambda x: ops.add(y := ops.concat(x, ops.mul(x, x), dim=2), y),
    "expand": lambda x: ops.expand(ops.reshape(x, shape=(1, *x.shape)), shape=(2, *x.shape)),
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("size", [0, 1, 5])
def test_views(name: str, size: int) -> None:
    x = numbers(np.float32, (size, 4, 6))
    check(VIEWS[name], [x])
    check(VIEWS[name], [x], [(N, 4, 6)])


@pytest.mark.parametrize("dtype", DTYPES)
def test_views_of_every_dtype(dtype: type) -> None:
    check(
        lambda x: [VIEWS["transpose"](x), VIEWS["pad"](x), VIEWS["concat"](x)],
        [numbers(dtype, (3, 5, 7))],
    )


@pytest.mark.parametrize("name", ["sum", "prod", "max", "min", "any", "all", "argmax", "argmin"])
def test_a_scalar_is_reduced_along_a_dimension_0(name: str) -> None:
    """It has one element there, as in PyTorch."""
    dims = {"dim": 0} if name.startswith("arg") else {"dims": (0,)}
    numbers = [np.bool_(True)] if name in ("any", "all") else [np.float32(2.5), np.int32(-3)]
    for x in numbers:
        check(lambda x: getattr(ops, name)(x, **dims, keepdim=False), [x])


def test_slices() -> None:
    x = numbers(np.float32, (7, 9))
    part = {"start": (1, 2), "stop": (7, 9), "step": (2, 3)}
    check(lambda x: ops.slice(x, **part), [x])
    check(
        lambda x, y: ops.slice_update(ops.mul(x, x), y, **part), [x, numbers(np.float32, (3, 3), 1)]
    )


def test_a_big_transpose_walks_in_tiles(golden: Callable[[str, str], None]) -> None:
    check(lambda x: ops.permute(x, dims=(1, 0)), [numbers(np.float32, (131, 257))])
    golden(
        "lower_transpose",
        lowered_text(lambda x: ops.permute(x, dims=(1, 0)), [(f32, (1000, 1000))]),
    )


def turned(x: Value) -> Value:
    return ops.permute(x, dims=(0, 2, 1))


ACROSS: dict[str, Build] = {
    "turned": turned,
    "first last": lambda x: ops.permute(x, dims=(1, 2, 0)),
    "last first": lambda x: ops.permute(x, dims=(2, 0, 1)),
    "both orders read": lambda x: ops.add(turned(x), ops.reshape(x, shape=turned(x).shape)),
    "both orders written": lambda x: [y := ops.mul(x, x), turned(y), ops.neg(turned(y))],
    "parts": lambda x: ops.concat(turned(x), ops.neg(turned(x)), dim=1),
    "padded": lambda x: ops.pad(turned(x), low=(0, 1, 2), high=(0, 2, 1), value=0),
    "more than tiles": lambda x: ops.concat(
        *(turned(ops.slice(x, start=(0, i, 0), stop=x.shape, step=(1, 1, 1))) for i in range(7)),
        *(ops.exp(turned(x)) for _ in range(3)),
        dim=2,
    ),
}


@pytest.mark.parametrize("name", ACROSS)
@pytest.mark.parametrize("shape", [(2, 70, 133), (3, 64, 128), (9, 9, 8), (2, 65, 65)])
def test_what_lies_across_the_loops(name: str, shape: tuple[int, ...]) -> None:
    x = numbers(np.float32, shape)
    check(ACROSS[name], [x])
    check(ACROSS[name], [x], [(N, *shape[1:])])


@pytest.mark.parametrize("dtype", DTYPES)
def test_squares_of_every_dtype(dtype: type) -> None:
    x = numbers(dtype, (2, 83, 150))
    check(lambda x: [turned(x), ops.permute(x, dims=(2, 1, 0))], [x])
    check(turned, [x], [(2, N, N + 67)])


@pytest.mark.parametrize("vector", [1, 16, 32, 64])
@pytest.mark.parametrize("dtype", DTYPES)
def test_squares_in_registers_of_every_width(vector: int, dtype: type) -> None:
    x = numbers(dtype, (83, 150))
    graph = graph_of(lambda x: ops.permute(x, dims=(1, 0)), [(DType.of(x.dtype), x.shape)])
    (found,), _ = run_program(lowered(graph, Machine(vector)), [x], {})
    np.testing.assert_array_equal(found, x.T)


# ---- loops

GOLDEN: dict[str, tuple[Build, list[tuple[DType, tuple[object, ...]]]]] = {
    "silu": (lambda x: ops.silu(x), [(f32, (1000, 1000))]),
    "bias": (
        lambda x, b: ops.relu(ops.add(x, ops.reshape(b, shape=(8, 1, 1)))),
        [(f32, (N, 8, 5, 5)), (f32, (8,))],
    ),
    "pad": (VIEWS["pad"], [(f32, (N, 4, 6))]),
    "concat": (VIEWS["concat"], [(f32, (2, 4, 6))]),
    "softmax": (softmax_rows, [(f32, (64, 1000))]),
    "softmax_symbolic": (softmax_rows, [(f32, (4, N))]),
    "layer_norm": (affine, [(f32, (N, 128))]),
    "column_sum": (lambda x: ops.sum(x, dims=(0,)), [(f32, (100, 3000))]),
    "full_sum": (lambda x: ops.sum(x, dims=(0, 1)), [(f32, (1000, 1000))]),
    "argmax": (lambda x: ops.argmax(x, dim=1), [(f32, (64, 100))]),
    "batch_statistics": (
        lambda x: [ops.mean(x, dims=(0, 2, 3)), ops.var(x, dims=(0, 2, 3), correction=0.0)],
        [(f32, (64, 16, 8, 8))],
    ),
    "max_pool": (
        lambda x: ops.max_pool(x, kernel=(2, 2), stride=(2, 2), padding=(0, 0), dilation=(1, 1))[0],
        [(f32, (N, 6, 28, 28))],
    ),
    "lookup": (lambda x, i: ops.index_select(x, i, dim=0), [(f32, (50, 16)), (i64, (N,))]),
    "embedding_gradient": (
        lambda x, g, i: ops.index_put(x, g, i, dims=(0,), accumulate=True),
        [(f32, (50, 16)), (f32, (N, 16)), (i64, (N,))],
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_kernels(name: str, golden: Callable[[str, str], None]) -> None:
    build, types = GOLDEN[name]
    golden(f"lower_{name}", lowered_text(build, types))


# ---- reductions

SHAPES = [
    ((), ()),
    ((1,), (0,)),
    ((0,), (0,)),
    ((0, 3), (0,)),
    ((3, 0), (1,)),
    ((0, 3), (1,)),
    ((37,), (0,)),
    ((5, 33), (0,)),
    ((5, 33), (1,)),
    ((4, 5, 6), (0, 2)),
    ((4, 5, 6), (1,)),
    ((4, 1, 6), (0, 1, 2)),
    ((40, 3000), (0,)),
    ((3, 40000), (1,)),
    ((2, 3, 9000), (0, 2)),
    ((9000, 3), (0,)),
    ((70001,), (0,)),
]


@pytest.mark.parametrize(("shape", "dims"), SHAPES)
def test_reductions(shape: tuple[int, ...], dims: tuple[int, ...]) -> None:
    x = numbers(np.float32, shape) + 1  # a sum near 0 would be made of rounding errors alone
    names = ["sum", "prod"] if 0 in shape else ["sum", "max", "min"]
    check(
        lambda x: [getattr(ops, n)(x, dims=dims, keepdim=k) for n in names for k in (False, True)],
        [x],
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_reductions_of_every_dtype(dtype: type) -> None:
    names = ["max", "min"] if dtype is np.bool_ else ["sum", "prod", "max", "min"]
    x = numbers(dtype, (5, 13))
    for dims in ((0,), (1,)):
        check(lambda x, d=dims: [getattr(ops, n)(x, dims=d) for n in names], [x])
        if dtype is not np.bool_:
            check(
                lambda x, d=dims: [ops.argmax(x, dim=d[0]), ops.argmin(x, dim=d[0], keepdim=True)],
                [x],
            )
    check(
        lambda x: [
            ops.any(ops.cast(x, dtype=DType.named("bool")), dims=(1,)),
            ops.all(ops.cast(x, dtype=DType.named("bool")), dims=(0,)),
        ],
        [x],
    )


def test_nan_wins_and_has_a_position() -> None:
    x = numbers(np.float32, (6, 50))
    x[2, 7] = x[2, 30] = x[4, 0] = np.nan
    check(
        lambda x: [
            ops.max(x, dims=(1,)),
            ops.min(x, dims=(0,)),
            ops.argmax(x, dim=1),
            ops.argmin(x, dim=0),
        ],
        [x],
    )


@pytest.mark.parametrize("rows", [1, 2, 40])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_rows_in_passes(name: str, rows: int) -> None:
    op = getattr(ops, name)
    for dim in (0, 1):
        check(lambda x, d=dim: op(x, dim=d), [numbers(np.float32, (rows, 70))])
    check(lambda x: ops.mul(op(x, dim=1), x), [numbers(np.float32, (rows, 9))], [(N, 9)])
    check(affine, [numbers(np.float32, (rows, 70))], [(N, 70)])
    check(
        lambda x: ops.var(x, dims=(0, 2), correction=1.0),
        [numbers(np.float32, (rows, 3, 5))],
        [(N, 3, 5)],
    )


def test_long_rows_and_longer_scratch() -> None:
    check(softmax_rows, [numbers(np.float32, (3, 20000))])
    check(softmax_rows, [numbers(np.float16, (3, 2000))])


def test_reductions_of_different_axes_in_one_region() -> None:
    x = numbers(np.float64, (6, 7))
    check(
        lambda x: ops.sub(
            x, ops.add(ops.sum(x, dims=(0,), keepdim=True), ops.max(x, dims=(1,), keepdim=True))
        ),
        [x],
    )
    check(lambda x: ops.add(x, ops.flip(ops.sum(x, dims=(1,), keepdim=True), dims=(0,))), [x])


def test_sums_do_not_depend_on_threads() -> None:
    from graphtorch.backends.llvm import runtime

    x = np.random.default_rng(0).standard_normal((300, 1000)).astype(np.float32)
    graph = graph_of(lambda x: [ops.sum(x, dims=(0, 1)), ops.sum(x, dims=(0,))], [(f32, x.shape)])
    before, results = runtime.get_num_threads(), []
    for threads in (1, 2):
        runtime.set_num_threads(threads)
        results.append([r.copy() for r in run(graph, [x])])
    runtime.set_num_threads(before)
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


# ---- windows

POOLS = [
    ((2, 3, 8, 8), (2, 2), (2, 2), (0, 0), (1, 1), False),
    ((1, 2, 9, 7), (3, 3), (2, 2), (1, 1), (1, 1), False),
    ((1, 2, 9, 7), (3, 2), (2, 1), (1, 1), (1, 2), True),
    ((1, 1, 20, 20), (9, 9), (3, 3), (2, 2), (1, 1), True),
    ((2, 2, 11), (3,), (2,), (1,), (1,), True),
]


@pytest.mark.parametrize(("shape", "kernel", "stride", "padding", "dilation", "ceil"), POOLS)
def test_pools(
    shape: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    ceil: bool,
) -> None:
    window = {"kernel": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil}
    x = numbers(np.float32, shape)
    x.flat[::11] = np.nan
    check(lambda x: list(ops.max_pool(x, dilation=dilation, **window)), [x])
    check(lambda x: ops.relu(ops.max_pool(x, dilation=dilation, **window)[0]), [x])
    if max(dilation) == 1:
        for include, divisor in ((True, None), (False, None), (True, 3)):
            more = {**window, "count_include_pad": include, "divisor": divisor}
            y = numbers(np.float32, shape, 1)
            check(lambda x, m=more: ops.avg_pool(x, **m), [y])
            check(
                lambda x, m=more: ops.avg_pool_grad(ops.avg_pool(x, **m), spatial=shape[2:], **m),
                [y],
            )


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (4, 3), (12, 9)])
def test_adaptive_pools(size: tuple[int, int]) -> None:
    x, g = numbers(np.float32, (2, 3, 8, 7)), numbers(np.float32, (2, 3, *size), 1)
    check(
        lambda x: [
            ops.adaptive_avg_pool(x, output_size=size),
            *ops.adaptive_max_pool(x, output_size=size),
        ],
        [x],
    )
    check(lambda g: ops.adaptive_avg_pool_grad(g, spatial=(8, 7)), [g])


def test_max_pool_gradient() -> None:
    x = numbers(np.float32, (3, 2, 8, 9))
    check(
        lambda x: ops.max_pool_grad(
            *ops.max_pool(x, kernel=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(1, 1)),
            spatial=(8, 9),
        ),
        [x],
    )


# ---- lookups and updates

INDEXED = [
    ((5, 6), (5, 3), 1),
    ((5, 6), (2, 6), 0),
    ((4, 5, 6), (3, 9, 2), 1),
    ((50,), (3000,), 0),
    ((9, 8, 30), (2, 8, 30), 0),
    ((0, 3), (0, 3), 0),
]


@pytest.mark.parametrize(("shape", "index", "dim"), INDEXED)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64])
def test_gather_and_scatter(
    shape: tuple[int, ...], index: tuple[int, ...], dim: int, dtype: type
) -> None:
    x, src = np.round(numbers(dtype, shape)), np.round(numbers(dtype, index, 1))
    i = np.random.default_rng(2).integers(0, max(shape[dim], 1), index)
    check(lambda x, i: ops.gather(x, i, dim=dim), [x, i])
    check(lambda x, i, s: ops.scatter(x, i, s, dim=dim), [x, i, src])
    check(lambda x, i, s: ops.scatter_add(ops.add(x, x), i, s, dim=dim), [x, i, src])


@pytest.mark.parametrize("dims", [(0, 1), (0, 2), (1, 2)])
def test_advanced_indexing(dims: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    x, i, j = numbers(np.float32, (5, 6, 7)), rng.integers(-5, 5, (3, 1)), rng.integers(-5, 5, (4,))
    check(lambda x, i, j: ops.neg(ops.index(x, i, j, dims=dims)), [x, i, j])
    for accumulate in (True, False):
        check(
            lambda x, i, j, a=accumulate: ops.index_put(
                x, ops.neg(ops.index(x, i, j, dims=dims)), i, j, dims=dims, accumulate=a
            ),
            [x, i, j],
        )


@pytest.mark.parametrize("width", [1, 4, 600])
def test_many_updates_of_few_rows(width: int) -> None:
    rng = np.random.default_rng(0)
    x, g, i = (
        numbers(np.float32, (20, width)),
        numbers(np.float32, (30000, width), 1),
        rng.integers(0, 20, 30000),
    )
    g = np.round(g)
    check(
        lambda x, g, i: ops.index_put(x, g, i, dims=(0,), accumulate=True),
        [x, g, i],
        [(20, width), (symbol("m", 0, 10**6), width), (symbol("m", 0, 10**6),)],
    )


@pytest.mark.parametrize("position", [-6, 5, 10**12, -(2**63)])
def test_a_position_out_of_range_is_an_index_error(position: int) -> None:
    x, i = numbers(np.float32, (5, 3)), np.array([0, position])
    for build in (
        lambda x, i: ops.index(x, i, dims=(0,)),
        lambda x, i: ops.index_select(x, i, dim=0),
        lambda x, i: ops.index_put(
            x, ops.slice(x, start=(0, 0), stop=(2, 3), step=(1, 1)), i, dims=(0,)
        ),
    ):
        with pytest.raises(IndexError, match="out of bounds for dimension 0 with size 5"):
            run(graph_of(build, [(f32, (5, 3)), (i64, (2,))]), [x, i])


# ---- sort, search, random


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("descending", [False, True])
def test_sort(dtype: type, descending: bool) -> None:
    for shape, dim in (((7,), 0), ((3, 100), 1), ((100, 3), 0), ((2, 1, 5), 1), ((0, 4), 1)):
        check(
            lambda x, d=dim: list(ops.sort(x, dim=d, descending=descending)),
            [numbers(dtype, shape)],
        )
    x = numbers(np.float32, (40,))
    x[[3, 9, 10]] = np.nan
    check(
        lambda x: [
            *ops.sort(x, dim=0, descending=descending),
            *ops.topk(x, k=3, dim=0, largest=True),
        ],
        [x],
    )


@pytest.mark.parametrize("right", [False, True])
def test_searchsorted(right: bool) -> None:
    x = numbers(np.float32, (4, 5), 1)
    x[0, 0] = np.nan
    check(
        lambda s, x: ops.searchsorted(s, x, right=right), [np.sort(numbers(np.float32, (10,))), x]
    )
    check(
        lambda s, x: ops.searchsorted(s, x, right=right),
        [np.sort(numbers(np.int64, (4, 9))), numbers(np.int64, (4, 5))],
    )


@pytest.mark.parametrize("name", ["random_uniform", "random_normal"])
def test_random_floats(name: str) -> None:
    for dtype in (f32, f64, DType.named("f16"), DType.named("bf16")):
        check(
            lambda s, o, d=dtype: getattr(ops, name)(s, o, shape=(7, 31), dtype=d),
            [np.array(123456789012345), np.array(7)],
        )


@pytest.mark.parametrize(
    ("low", "high"), [(0, 10), (-(2**63), 2**63), (-(2**40), 2**62), (0, 2**32)]
)
def test_random_integers(low: int, high: int) -> None:
    check(
        lambda s, o: ops.random_int(s, o, low=low, high=high, shape=(13,), dtype=i64),
        [np.array(-3), np.array(5)],
    )


def test_random_numbers_do_not_depend_on_fusion() -> None:
    s, o, x = (
        Value(Type(i64), name="s"),
        Value(Type(i64), name="o"),
        Value(Type(f32, (50,)), name="x"),
    )
    draw = ops.random_uniform(s, o, shape=(50,), dtype=f32)
    arrays = [np.array(5), np.array(9), np.zeros(50, np.float32)]
    alone, _ = run_program(lowered(Graph("g", [s, o], [draw])), arrays[:2], {})
    fused, _ = run_program(
        lowered(Graph("g", [s, o, x], [ops.flip(ops.add(draw, x), dims=(0,))])), arrays, {}
    )
    np.testing.assert_array_equal(alone[0], fused[0][::-1])


def test_updates_of_all_sizes_are_one_kernel() -> None:
    def updated(p: Value, g: Value) -> Value:
        for _ in range(4):
            p = ops.sub(p, ops.mul(g, ops.sqrt(p)))
        return p

    def step(*values: Value) -> tuple[Value, ...]:
        return tuple(updated(p, g) for p, g in zip(values[::2], values[1::2], strict=True))

    shapes = [s for s in ((7,), (4, 30), (5, 6, 7)) for _ in ("p", "g")]
    check(step, [np.abs(numbers(np.float32, s)) * 0.1 + 1 for s in shapes])
    program = lowered(graph_of(step, [(f32, s) for s in shapes]))
    assert len(program.launches) == 3 and len(program.kernels()) == 1
