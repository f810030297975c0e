"""Complex values as pairs of reals: golden texts, every rule against the references, what has no
rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, boolean, c64, c128, f32, f64, i64
from graphtorch.ir.evaluate import evaluate
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.literal import Literal
from graphtorch.ir.passes import cse, pairs
from graphtorch.ir.passes.pair_math import FUNCTIONS
from graphtorch.ir.shape import symbol
from graphtorch.ir.text import parse
from graphtorch.ir.verify import verify
from random_graphs import as_complex, as_pairs

Golden = Callable[[str, str], None]
SPECIAL = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -2.0,
    math.inf,
    -math.inf,
    math.nan,
    1e30,
    -1e-30,
    89.0,
    -20.0,
)


def both(graph: Graph, arrays: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each output by the pass, and by the references."""
    real = pairs.run(graph)
    verify(real, "pairs")
    assert parse(str(real)) == real and not pairs.has_complex(real)
    expected = evaluate(graph, arrays)
    found = evaluate(real, [as_pairs(a) for a in arrays])
    return [(as_complex(a, b), b) for a, b in zip(found, expected, strict=True)]


def check(
    outputs: Sequence[Value] | Value, given: dict[Value, np.ndarray], tolerance: float = 2e-6
) -> None:
    outputs = [outputs] if isinstance(outputs, Value) else list(outputs)
    for a, b in both(Graph("g", list(given), outputs), list(given.values())):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def tensor(name: str, *shape: object, dtype: DType = c64) -> Value:
    return Value(Type(dtype, shape), name=name)


def random(*shape: int, dtype: DType = c64, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    found = rng.normal(size=shape)
    return (found + 1j * rng.normal(size=shape) if dtype.is_complex else found).astype(dtype.numpy)


# ------------------------------------------------------------------------------------------ texts


def test_text_of_a_product(golden: Golden) -> None:
    z, x = tensor("z", symbol("n", 1, 64), 3), tensor("x", 3, dtype=f32)
    turned = ops.mul(z, ops.cast(x, dtype=c64))
    total = ops.sum(turned, dims=(0,), keepdim=False)
    graph = Graph("turned", [z, x], [turned, ops.abs(ops.conj(turned)), total])
    golden("pairs_product", str(cse.run(pairs.run(graph))))


def test_text_of_a_matrix_product(golden: Golden) -> None:
    a, b = tensor("a", 2, 3, 4), tensor("b", 4, 5)
    golden("pairs_matmul", str(pairs.run(Graph("product", [a, b], [ops.matmul(a, b)]))))


def test_text_of_a_loop(golden: Golden) -> None:
    state, step = tensor("s", 3), tensor("t", 3)
    body = Graph("body", [state, step], [ops.add(state, step), ops.real(state)])
    start, steps = tensor("start", 3), tensor("steps", 7, 3)
    last, parts = ops.scan(start, steps, body=body, carries=1, stacked=1, length=7)
    golden("pairs_scan", str(pairs.run(Graph("walk", [start, steps], [last, parts]))))


def test_a_real_graph_stays() -> None:
    x = tensor("x", 3, dtype=f32)
    graph = Graph("g", [x], [ops.exp(x)])
    assert pairs.run(graph) is graph


# ---------------------------------------------------------------------------------------- functions


@pytest.mark.parametrize("dtype", [c64, c128])
@pytest.mark.parametrize(
    "name", [*FUNCTIONS, "abs", "angle", "isnan", "isinf", "isfinite", "conj", "neg"]
)
def test_functions(name: str, dtype: DType) -> None:
    x = tensor("x", 500, dtype=dtype)
    check(getattr(ops, name)(x), {x: random(500, dtype=dtype)}, 2e-6 if dtype is c64 else 1e-14)


def test_numbers_without_dimensions() -> None:
    x = tensor("x")
    names = [*FUNCTIONS, "abs", "angle"]
    check([getattr(ops, n)(x) for n in names], {x: np.asarray(0.5 - 0.25j, np.complex64)})


# At these NumPy keeps a zero (or pi / 2) beside a NaN.
BESIDE_NAN = frozenset(("asin", "acos", "acosh", "atanh", "asinh", "atan"))


@pytest.mark.parametrize("dtype", [c64, c128])
@pytest.mark.parametrize("name", sorted({*FUNCTIONS, "abs", "angle"} - {"square"}))
def test_functions_at_the_ends(name: str, dtype: DType) -> None:
    """Zeros of both signs, infinities, NaN, overflow."""
    points = np.array([complex(a, b) for a in SPECIAL for b in SPECIAL])
    if name in BESIDE_NAN:
        points = points[~np.isnan(points)]
    if name == "sin":  # the sign of what is infinite without an angle is nobody's
        points = points[~(np.isinf(points.imag) & ~np.isfinite(points.real))]
    points = points.astype(dtype.numpy)
    x = tensor("x", points.size, dtype=dtype)
    [(found, expected)] = both(Graph("g", [x], [getattr(ops, name)(x)]), [points])
    for part in (np.real, np.imag):
        np.testing.assert_allclose(
            part(found), part(expected), rtol=2e-6, atol=2e-6, err_msg=str(points)
        )


def test_signs_of_zeros_on_branch_cuts() -> None:
    for name in ("sqrt", "log", "asin", "acos", "acosh", "atanh"):
        points = np.array([complex(-2, 0.0), complex(-2, -0.0), complex(2, 0.0), complex(2, -0.0)])
        x = tensor("x", 4, dtype=c128)
        check(getattr(ops, name)(x), {x: points}, 1e-14)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "pow", "eq", "ne"])
def test_binary(name: str) -> None:
    x, y = tensor("x", 40, 5), tensor("y", 5)
    check(getattr(ops, name)(x, y), {x: random(40, 5), y: random(5, seed=1)}, 1e-5)


def test_division_at_the_ends() -> None:
    points = np.array([complex(a, b) for a in SPECIAL for b in SPECIAL], np.complex128)
    x, y = tensor("x", 1, points.size, dtype=c128), tensor("y", points.size, 1, dtype=c128)
    [(found, expected)] = both(Graph("g", [x, y], [ops.div(x, y)]), [points[None], points[:, None]])
    for part in (np.real, np.imag):
        np.testing.assert_allclose(part(found), part(expected), rtol=1e-14)


def test_powers() -> None:
    points = np.array([0, 1, -1, 2j, 0.5 - 1j, -0.0, 3], np.complex128)
    x, y = tensor("x", 7, 1, dtype=c128), tensor("y", 7, dtype=c128)
    positive = np.array([0, 1, 2, 0.5, 1 + 1j, 3, 2.5], np.complex128)
    check(ops.pow(x, y), {x: points[1:].repeat(2)[:7, None], y: positive}, 1e-13)
    for exponent in (2, 3, -1, -2, 7, 0.5, 1j, 0):
        power = ops.constant(value=Literal.of(exponent, c128))
        check(ops.pow(x, power), {x: points[1:].repeat(2)[:7, None]}, 1e-13)


def test_a_number_times_its_conjugate_is_real() -> None:
    z = tensor("z", 1000)
    product = ops.mul(z, ops.conj(z))
    [(found, _)] = both(Graph("g", [z], [ops.imag(product)]), [random(1000)])
    assert not found.any()


# ----------------------------------------------------------------------------------------- the rest


def test_casts() -> None:
    z, x = tensor("z", 4), tensor("x", 4, dtype=i64)
    values = np.array([0, 1j, 2 - 3j, -0.5], np.complex64)
    casts = [ops.cast(z, dtype=target) for target in (c128, f64, boolean)]
    check([*casts, ops.cast(x, dtype=c64)], {z: values, x: np.arange(4)})


def test_moves() -> None:
    z, w = tensor("z", 4, 6), tensor("w", 2, 6)
    index = ops.constant(value=Literal.of([[0, 1, 2, 3, 1, 1]], i64))
    rows = ops.constant(value=Literal.of([3, 0], i64))
    check(
        [
            ops.reshape(z, shape=(3, 8)),
            ops.permute(z, dims=(1, 0)),
            ops.flip(z, dims=(1,)),
            ops.slice(z, start=(1, 0), stop=(4, 6), step=(2, 1)),
            ops.concat(z, w, dim=0),
            ops.expand(w, shape=(3, 2, 6)),
            ops.pad(z, low=(1, 0), high=(0, 2), value=2 - 1j),
            ops.triu(z),
            ops.tril(z),
            ops.size(z, dim=0),
            ops.gather(z, index, dim=0),
            ops.index_select(z, rows, dim=0),
            ops.index(z, rows, dims=(0,)),
            ops.scatter(z, index, ops.slice(w, start=(0, 0), stop=(1, 6), step=(1, 1)), dim=0),
            ops.scatter_add(z, index, ops.slice(w, start=(0, 0), stop=(1, 6), step=(1, 1)), dim=0),
            ops.index_put(z, w, rows, dims=(0,), accumulate=True),
            ops.slice_update(z, w, start=(1, 0), stop=(3, 6), step=(1, 1)),
            ops.where(ops.ne(ops.real(z), ops.constant(value=Literal.of(0, f32))), z, ops.neg(z)),
        ],
        {z: random(4, 6), w: random(2, 6, seed=1)},
    )


@pytest.mark.parametrize("length", [0, 1, 2, 5, 16, 33])
def test_reductions(length: int) -> None:
    z = tensor("z", 3, length)
    sums = [
        ops.sum(z, dims=(1,), keepdim=True),
        ops.cumsum(z, dim=1),
        ops.mean(z, dims=(0,), keepdim=False),
    ]
    products = [
        ops.prod(z, dims=(1,), keepdim=False),
        ops.prod(z, dims=(0, 1), keepdim=True),
        ops.cumprod(z, dim=1),
    ]
    check([*sums, *products], {z: random(3, length)}, 1e-5)


def test_contractions() -> None:
    a, b, x, w = tensor("a", 2, 3, 4), tensor("b", 4, 5), tensor("x", 6, 4), tensor("w", 5, 4)
    bias, image, kernel = tensor("c", 5), tensor("i", 1, 2, 6, 6), tensor("k", 3, 2, 3, 3)
    conv = ops.conv(
        image, kernel, stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=1
    )
    check(
        [ops.matmul(a, b), ops.linear(x, w), ops.affine(bias, x, w), conv],
        {
            a: random(2, 3, 4),
            b: random(4, 5),
            x: random(6, 4),
            w: random(5, 4),
            bias: random(5),
            image: random(1, 2, 6, 6),
            kernel: random(3, 2, 3, 3),
        },
        1e-4,
    )


def test_branches_and_loops() -> None:
    z, go = tensor("z", 3), tensor("go", dtype=boolean)
    inside = tensor("x", 3)
    then = Graph("then", [inside], [ops.exp(inside), ops.abs(inside)])
    other = Graph("other", [inside], [inside, ops.real(inside)])
    x, n = tensor("x", 3), tensor("n", dtype=i64)
    one, three = (ops.constant(value=Literal.of(i, i64)) for i in (1, 3))
    test = Graph("test", [x, n], [ops.lt(n, three)])
    body = Graph("body", [x, n], [ops.mul(x, x), ops.add(n, one)])
    start = tensor("start", dtype=i64)
    given = {z: random(3), go: np.array(True), start: np.array(0)}
    looped = ops.while_loop(z, start, test=test, body=body, carries=2)
    check([*ops.cond(go, z, then=then, orelse=other), *looped], given, 1e-5)


def test_what_has_no_rule() -> None:
    z = tensor("z", 3, 3)
    factor, info = ops.cholesky(z)
    graph = Graph("g", [z], [ops.exp(factor), info])
    assert [n.op.name for n in pairs.foreign(graph)] == ["cholesky"]
    with pytest.raises(NotImplementedError, match="cholesky of complex numbers"):
        pairs.run(graph)
    rows = tensor("z", symbol("n", 1, 9))
    product = Graph("g", [rows], [ops.prod(rows, dims=(0,), keepdim=False)])
    assert [n.op.name for n in pairs.foreign(product)] == ["prod"]  # of a size that is not known
