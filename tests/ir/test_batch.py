"""Batching: what a rule computes for several entries at once is what the op computes of each.

Every case of the tables runs, with its gradients, with entries in each operand alone, and in all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from attention_cases import ATTENTION
from factor_cases import FACTOR
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, f32, f64, i8, i64
from graphtorch.ir.evaluate import evaluate
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.literal import Literal
from graphtorch.ir.op import OPS, ByDecomposition, NoBatch, Op
from graphtorch.ir.ops import mersenne
from graphtorch.ir.passes.autodiff import vjp
from graphtorch.ir.passes.batch import batch
from graphtorch.ir.shape import symbol
from graphtorch.ir.verify import verify
from tensor_cases import CASES, Case
from vision_cases import VISION

SIZE = 3
met: set[str] = set()  # ops whose rules were compared


@pytest.mark.parametrize("op", OPS.values(), ids=list(OPS))
def test_every_op_has_a_rule_or_says_why_not(op: Op) -> None:
    assert callable(op.batch) or isinstance(op.batch, (NoBatch, ByDecomposition))
    if isinstance(op.batch, NoBatch):
        assert op.batch.reason
    if isinstance(op.batch, ByDecomposition):
        assert not op.is_core, "nothing to map instead"


def data(case: Case) -> list[np.ndarray]:
    rng = np.random.default_rng(11)
    floats = []
    for position, shape in enumerate(case.shapes):
        array = rng.permutation(math.prod(shape)).reshape(shape) * 0.31 + rng.uniform(0, 0.1, shape)
        array = array / max(1.0, np.abs(array).max(initial=0) / 3)
        shift = 0.5 if position in case.positive else -array.mean() if array.size else 0
        floats.append(array + shift)
    return [*floats, *map(np.asarray, case.integers)]


def entries_of(array: np.ndarray) -> np.ndarray:
    """Several arrays of the same elements in other places."""
    return np.stack([np.roll(array.reshape(-1), i).reshape(array.shape) for i in range(SIZE)])


def with_gradients(outputs: Sequence[Value], inputs: Sequence[Value]) -> list[Value]:
    floats = [v for v in outputs if v.dtype.is_differentiable]
    found = vjp(floats, floats, [v for v in inputs if v.dtype.is_differentiable])
    return [*outputs, *(g for g in found if g is not None)]


def subsets(count: int) -> list[tuple[bool, ...]]:
    alone = [tuple(i == j for j in range(count)) for i in range(count)]
    return list(dict.fromkeys((*alone, (True,) * count)))


def check(graph: Graph, arrays: Sequence[np.ndarray], tolerance: float = 1e-9) -> None:
    """Compare a graph for several entries with the graph of one, with entries in each input and in all."""
    met.update(n.op.name for n in graph.nodes)
    for mapped in subsets(len(arrays)):
        several, flags = batch(graph, mapped, SIZE)
        verify(several)
        given = [entries_of(a) if m else a for a, m in zip(arrays, mapped, strict=True)]
        found = evaluate(several, given)
        for i in range(SIZE):
            one = [a[i] if m else a for a, m in zip(given, mapped, strict=True)]
            for y, has, want in zip(found, flags, evaluate(graph, one), strict=True):
                entry = y[i] if has else y
                assert entry.shape == want.shape and entry.dtype == want.dtype
                np.testing.assert_allclose(entry, want, tolerance, tolerance, err_msg=f"{mapped} {i}")


def values_for(arrays: Sequence[np.ndarray]) -> list[Value]:
    return [Value(Type(DType.of(a.dtype), a.shape), name=f"x{i}") for i, a in enumerate(arrays)]


def check_function(build: Callable[..., Any], *arrays: Any, gradients: bool = True) -> None:
    given = [np.asarray(a) for a in arrays]
    values = values_for(given)
    made = build(*values)
    outputs = list(made) if isinstance(made, tuple) else [made]
    check(Graph("test", values, with_gradients(outputs, values) if gradients else outputs), given)


@pytest.mark.parametrize("case", [*CASES, *ATTENTION, *FACTOR, *VISION], ids=lambda c: c.name)
def test_entries_are_what_each_would_be(case: Case) -> None:
    check_function(case.op, *data(case))


X = np.array([[0.3, -0.7, 1.1], [0.9, -0.2, 0.4]])
ABOVE_ONE = np.abs(X) + 1.5
FLAGS, WHOLE = X > 0, np.array([[3, -2, 1], [0, 5, -4]])
IN_TABLE = {"svd", "eigh", "qr", "cholesky", "lu", "triangular_solve"}
SIMPLE = [n for n, op in OPS.items() if len(op.operands) in (1, 2, 3) and not op.is_variadic
          and not op.operands[-1].endswith("?") and n not in IN_TABLE]


def accepts(op: Op, *arrays: np.ndarray) -> bool:
    """Whether the op takes such operands, without attributes."""
    try:
        op(*values_for(arrays))
    except Exception:
        return False
    return True


@pytest.mark.parametrize("name", SIMPLE)
def test_elementwise_ops(name: str) -> None:
    """All that take operands of one shape and no attributes."""
    op = OPS[name]
    samples = [s for s in (ABOVE_ONE, X, FLAGS, WHOLE, X + 1j) if accepts(op, *[s] * len(op.operands))]
    for x in samples:
        operands = [x, x[1], x[:, :1]][: len(op.operands)] if len(op.operands) > 1 else [x]
        if not accepts(op, *operands):
            operands = [x] * len(op.operands)
        looped = name in ("igamma", "igammac", "zeta", "dirichlet_grad", "standard_gamma_grad")
        if looped:
            operands = [o if i == 0 else o * 0.5 + 1 for i, o in enumerate(operands)]
        check_function(op, *operands, gradients=not looped)
    if samples and len(op.operands) > 1:
        scalar = samples[0][0, 0]
        operands = [samples[0], scalar, scalar][: len(op.operands)]
        if accepts(op, *map(np.asarray, operands)):
            check_function(op, *operands, gradients=False)


@pytest.mark.parametrize("name", ["sum", "prod", "max", "min", "mean", "logsumexp", "var", "any", "all"])
def test_reductions(name: str) -> None:
    x = FLAGS if name in ("any", "all") else X
    more = {"correction": 1.0} if name == "var" else {}
    for dims, keepdim in (((0,), False), ((1,), True), ((0, 1), False), ((), True)):
        check_function(lambda x, d=dims, k=keepdim: OPS[name](x, dims=d, keepdim=k, **more), x)
    for dims in ((), (0,)):
        check_function(lambda x, d=dims: OPS[name](x, dims=d, keepdim=False, **more), x[0, 0])


@pytest.mark.parametrize("name", ["argmax", "argmin", "cumsum", "cumprod", "cummax", "cummin"])
def test_along_a_dimension(name: str) -> None:
    more = {"keepdim": False} if name.startswith("arg") else {}
    for x, dim in ((X, 0), (X, 1), (X[0, 0], 0)):
        check_function(lambda x, d=dim: OPS[name](x, dim=d, **more), x)


def test_others() -> None:
    check_function(lambda x: ops.cast(x, dtype=f32), X)
    check_function(lambda x: ops.polygamma(x, n=1), ABOVE_ONE)
    check_function(lambda x: ops.where(ops.gt(x, x), x, x), X)
    check_function(lambda c, x, y: ops.where(c, x, y), FLAGS[0], X, X[1, 0])
    check_function(lambda x: ops.bitcast(x, dtype=i64), X)
    check_function(lambda x: ops.bitcast(x, dtype=i8), X)
    check_function(lambda x: ops.fft(x, dim=0, inverse=False), X + 1j)
    check_function(lambda x: ops.mul(x, ops.cast(ops.size(x, dim=1), dtype=f64)), X)
    check_function(lambda x: ops.within(x, rule="positive", message="no"), ABOVE_ONE)
    check_function(lambda x, info: ops.require(x, info, message="no"), X, np.zeros((), np.int32))
    check_function(lambda x, y, z: ops.concat(x, y, z, dim=1), X, X[:, :1], X)
    check_function(lambda x: ops.concat(x, x, dim=0), X)
    images = np.random.default_rng(4).permutation(32).reshape(1, 2, 4, 4) / 8
    check_function(lambda g, x: ops.max_pool_input_grad(g, x, kernel=(2, 2), stride=(2, 2)),
                   np.cos(images[:, :, :2, :2]), images)


def test_products() -> None:
    rng = np.random.default_rng(0)
    for a, b in (((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)), ((5, 2, 3), (5, 3, 1))):
        check_function(ops.matmul, rng.standard_normal(a), rng.standard_normal(b))
    for shape in ((3,), (2, 3), (2, 2, 3)):
        x, w, b = (rng.standard_normal(s) for s in (shape, (4, 3), (4,)))
        check_function(ops.linear, x, w)
        check_function(ops.affine, b, x, w)


@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions(groups: int) -> None:
    rng = np.random.default_rng(1)
    place: dict[str, Any] = {"stride": (2,), "padding": ((1, 1),), "dilation": (1,), "groups": groups}
    x, w, b = (rng.standard_normal(s) for s in ((2, 4, 5), (6, 4 // groups, 3), (6,)))
    check_function(lambda *v: ops.conv(*v, **place), x, w, b)
    w = rng.standard_normal((4, 6 // groups, 3))
    check_function(lambda *v: ops.conv_transpose(*v, **place, output_padding=(0,)), x, w, b)
    g = rng.standard_normal((2, 6, 3))
    check_function(lambda *v: ops.conv_weight_grad(*v, kernel=(3,), **place), x, g)


def test_positions_by_entry() -> None:
    """Advanced indexing with positions side by side, apart, and of several shapes."""
    x = np.random.default_rng(2).standard_normal((3, 4, 5, 2))
    a, b = np.array([2, 0]), np.array([[1, 0], [2, -1], [0, 1]])
    for dims in ((0, 1), (1, 2), (0, 2), (1, 3), (2,), (0,)):
        indices = [a, b][: len(dims)] if max(dims) < 3 else [a % 2, b % 2]
        check_function(lambda x, *i, d=dims: ops.index(x, *i, dims=d), x, *indices)
        taken = x[tuple(indices[dims.index(d)] if d in dims else slice(None) for d in range(4))]
        for accumulate in (True, False):
            if accumulate or len(dims) == 1:
                def put(x: Value, s: Value, *i: Value, d: Any = dims, acc: bool = accumulate) -> Value:
                    return ops.index_put(x, s, *i, dims=d, accumulate=acc)

                check_function(put, x, np.cos(taken), *indices)
                check_function(put, x, np.float64(3.5), *indices, gradients=accumulate)
    for dim in range(4):
        check_function(lambda x, i, d=dim: ops.index_select(x, i, dim=d), x, a % 2)
    line = np.sort(X[0])
    check_function(ops.searchsorted, line, X, gradients=False)
    check_function(ops.searchsorted, line, X[0, 1], gradients=False)
    check_function(ops.searchsorted, np.sort(X), X[:, :2], gradients=False)


def body(name: str, inputs: Sequence[Value], *outputs: Value) -> Graph:
    return Graph(name, inputs, outputs)


def test_loops() -> None:
    carry, step, weight = values_for([X, X[0], X[1]])
    after = ops.tanh(ops.add(ops.mul(carry, weight), step))
    graph = body("step", [carry, step, weight], after, ops.mul(after, step))
    steps = np.random.default_rng(3).standard_normal((4, 3))
    for reverse in (False, True):
        check_function(lambda c, xs, w, r=reverse: ops.scan(
            c, xs, w, body=graph, carries=1, stacked=1, length=4, reverse=r), X, steps, X[1])


def test_branches() -> None:
    x, y = values_for([X, X[1]])
    then, orelse = (body(n, [x, y], o, ops.exp(y)) for n, o in (("a", ops.mul(x, y)), ("b", ops.add(x, y))))
    for holds in (True, False):
        check_function(lambda p, x, y: ops.cond(p, x, y, then=then, orelse=orelse), np.bool_(holds), X, X[1])
def test_loops_that_end_at_different_steps() -> None:
    x, n, limit = values_for([X, np.int64(0), np.int64(0)])
    test = body("test", [x, n, limit], ops.lt(n, limit))
    one = ops.constant(value=Literal.of(1, i64))
    step = body("body", [x, n, limit], ops.mul(x, ops.sin(x)), ops.add(n, one))

    def loop(x: Value, n: Value, limit: Value) -> Any:
        return ops.while_loop(x, n, limit, test=test, body=step, carries=2)

    given = [np.asarray(v) for v in (X, np.int64(0), np.int64(4))]
    values = values_for(given)
    graph = Graph("loop", values, loop(*values))
    for mapped in ((True, False, False), (False, False, True), (True, True, True)):
        several, flags = batch(graph, mapped, SIZE)
        verify(several)
        lines = [np.stack([X, X + 1, X - 1]), np.array([0, 2, 5]), np.array([4, 0, 7])]
        arrays = [e if m else a for e, a, m in zip(lines, given, mapped, strict=True)]
        found = evaluate(several, arrays)
        for i in range(SIZE):
            want = evaluate(graph, [a[i] if m else a for a, m in zip(arrays, mapped, strict=True)])
            for y, has, w in zip(found, flags, want, strict=True):
                np.testing.assert_allclose(y[i] if has else y, w)
    met.add("while_loop")


def places(name: str) -> list[np.ndarray]:
    """Places in streams, one for each entry: what the op takes after its parameters."""
    if name.startswith("mersenne"):
        states = np.stack([mersenne.seeded_state(i) for i in range(SIZE)])
        return [states, np.arange(SIZE) * 400] if name == "mersenne_skip" else [states]
    return [np.arange(SIZE) + 5, np.arange(SIZE) * 8]


SHAPED: dict[str, Any] = {"shape": (2, 3)}
RANDOM: dict[str, tuple[list[np.ndarray], dict[str, Any]]] = {
    "random_uniform": ([], SHAPED | {"dtype": f64}),
    "random_normal": ([], SHAPED | {"dtype": f64}),
    "random_int": ([], SHAPED | {"dtype": i64, "low": 0, "high": 1000}),
    **dict.fromkeys(("standard_gamma", "poisson"), ([ABOVE_ONE], {})),
    **dict.fromkeys(("mersenne_gamma", "mersenne_poisson"), ([ABOVE_ONE], {"single": False})),
    "binomial": ([np.full((4, 6), 90.0), np.full((4, 6), 0.4)], {}),
    "mersenne_binomial": ([np.full((4, 6), 90.0), np.full((4, 6), 0.4)], {"single": False}),
    "mersenne_words": ([], SHAPED),
    "mersenne_normals": ([], SHAPED),
    "mersenne_skip": ([], {}),
}


@pytest.mark.parametrize("name", RANDOM)
def test_draws(name: str) -> None:
    """Each entry draws from its own place, or all from one."""
    parameters, attrs = RANDOM[name]
    streams = places(name)
    values = values_for([*parameters, *[s[0] for s in streams]])
    made = OPS[name](*values, **attrs)
    graph = Graph("draw", values, list(made) if isinstance(made, tuple) else [made])
    for mapped in ([False] * len(parameters) + [True] * len(streams),
                   [True] * len(parameters) + [False] * len(streams)):
        if not any(mapped):
            continue
        given = [*(np.stack([p + i * 0.001 for i in range(SIZE)]) for p in parameters), *streams]
        several, flags = batch(graph, mapped, SIZE)
        found = evaluate(several, [g if m else g[0] for g, m in zip(given, mapped, strict=True)])
        assert all(flags)
        for i in range(SIZE):
            one = [g[i] if m else g[0] for g, m in zip(given, mapped, strict=True)]
            for entries, expected in zip(found, evaluate(graph, one), strict=True):
                np.testing.assert_array_equal(entries[i], expected)
    met.add(name)


def test_words_of_entries() -> None:
    words = np.arange(64, dtype=np.int32) * 123457
    check_function(lambda w: ops.permutation(w), words)
    check_function(lambda w: ops.words_to_wide(w, shape=(4, 8)), words)
    check_function(lambda w: ops.words_to_float(w, shape=(64,), dtype=f32), words)
    normal = {"shape": (48,), "dtype": f32, "rest": True, "cephes": True}
    check_function(lambda w: ops.words_to_normal(w, **normal), words)
    integer = {"low": 0, "high": 9, "shape": (64,), "dtype": i64, "wide": False}
    check_function(lambda w: ops.words_to_integer(w, **integer), words)
    check_function(lambda p, u: ops.bernoulli(p, u), X * X, X[::-1] * X)
    check_function(lambda x, y, z: ops.muladd(x, y, z), X, X * 2, X[0])


def test_entries_of_unknown_number() -> None:
    x, w = values_for([X, X[0]])
    size = symbol("entries", min=1)
    graph, flags = batch(Graph("g", [x, w], [ops.softmax(ops.mul(x, w), dim=1)]), [True, False], size)
    assert flags == [True] and graph.outputs[0].shape == (size, 2, 3)
    verify(graph)


def test_nested(golden: Any) -> None:
    a, b = Value(Type(f32, (3,)), name="a"), Value(Type(f32, (3, 4)), name="b")
    row = ops.reshape(a, shape=(1, 3))
    graph = Graph("product", [a, b], [ops.relu(ops.reshape(ops.matmul(row, b), shape=(4,)))])
    once, _ = batch(graph, [True, False], 5)
    twice, _ = batch(once, [False, True], 2)
    golden("batch_product", f"{graph}\n\n{once}\n\n{twice}\n")


def test_what_is_the_same_for_all_is_computed_once(golden: Any) -> None:
    x, w = Value(Type(f32, (3,)), name="x"), Value(Type(f32, (3,)), name="w")
    y = ops.mul(ops.exp(w), ops.softmax(x, dim=0))
    graph = Graph("shared", [x, w], [y, ops.exp(w)])
    found, flags = batch(graph, [True, False], 4)
    assert flags == [True, False]
    golden("batch_shared", f"{graph}\n\n{found}\n")


def test_every_rule_was_compared() -> None:
    """Runs last in this file: ops that were met above, and those that have no operands or come after this."""
    if "matmul" not in met or "add" not in met or "mersenne_skip" not in met:
        pytest.skip("the tests above did not all run in this process")
    unmet = [n for n, op in OPS.items() if n not in met and not isinstance(op.batch, NoBatch)]
    assert unmet == ["region"], unmet
