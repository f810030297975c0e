"""Batching: what a rule computes for several entries at once is what the op computes of each.

Every case of the tables runs, with its gradients, with entries in each operand alone, and in all of
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from graphtorch.ir import ops
from graphtorch.ir.dtype import f32
from graphtorch.ir.evaluate import evaluate
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.op import OPS, ByDecomposition, NoBatch, Op
from graphtorch.ir.passes.batch import batch
from graphtorch.ir.shape import symbol
from graphtorch.ir.verify import verify
from op_samples import (
    ALONG,
    GROUPS,
    RANDOM,
    REDUCTIONS,
    SIMPLE,
    TABLE,
    Sample,
    X,
    along,
    draw,
    every,
    of_case,
    places,
    pointwise,
    reductions,
    repeated,
    values_for,
)
from tensor_cases import Case

SIZE = 3


@pytest.mark.parametrize("op", OPS.values(), ids=list(OPS))
def test_every_op_has_a_rule_or_says_why_not(op: Op) -> None:
    assert callable(op.batch) or isinstance(op.batch, (NoBatch, ByDecomposition))
    if isinstance(op.batch, NoBatch):
        assert op.batch.reason
    if isinstance(op.batch, ByDecomposition):
        assert not op.is_core, "nothing to map instead"


def entries_of(array: np.ndarray) -> np.ndarray:
    """Several arrays of the same elements in other places."""
    return np.stack([np.roll(array.reshape(-1), i).reshape(array.shape) for i in range(SIZE)])


def subsets(count: int) -> list[tuple[bool, ...]]:
    alone = [tuple(i == j for j in range(count)) for i in range(count)]
    return list(dict.fromkeys((*alone, (True,) * count)))


def check(graph: Graph, arrays: Sequence[np.ndarray], tolerance: float = 1e-9) -> None:
    """Compare a graph for several entries with the graph of one, with entries in each input and in
    all."""
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
                np.testing.assert_allclose(
                    entry, want, tolerance, tolerance, err_msg=f"{mapped} {i}"
                )


def check_sample(sample: Sample) -> None:
    check(sample.graph(), sample.arrays)


@pytest.mark.parametrize("case", TABLE, ids=lambda c: c.name)
def test_entries_are_what_each_would_be(case: Case) -> None:
    check_sample(of_case(case))


@pytest.mark.parametrize("name", SIMPLE)
def test_elementwise_ops(name: str) -> None:
    """All that take operands of one shape and no attributes."""
    for sample in pointwise(name):
        check_sample(sample)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name: str) -> None:
    for sample in reductions(name):
        check_sample(sample)


@pytest.mark.parametrize("name", ALONG)
def test_along_a_dimension(name: str) -> None:
    for sample in along(name):
        check_sample(sample)


@pytest.mark.parametrize("group", GROUPS, ids=lambda g: g.__name__)
def test_others(group: Callable[[], Iterator[Sample]]) -> None:
    for sample in group():
        check_sample(sample)


def test_loops_that_end_at_different_steps() -> None:
    sample = repeated()
    graph, given = sample.graph(), sample.arrays
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


@pytest.mark.parametrize("name", RANDOM)
def test_draws(name: str) -> None:
    """Each entry draws from its own place, or all from one."""
    parameters, streams, graph = RANDOM[name][0], places(name, SIZE), draw(name).graph()
    for mapped in (
        [False] * len(parameters) + [True] * len(streams),
        [True] * len(parameters) + [False] * len(streams),
    ):
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


def test_entries_of_unknown_number() -> None:
    x, w = values_for([X, X[0]])
    size = symbol("entries", min=1)
    graph, flags = batch(
        Graph("g", [x, w], [ops.softmax(ops.mul(x, w), dim=1)]), [True, False], size
    )
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


def test_every_op_has_a_sample() -> None:
    """... of those that are compared above."""
    sampled = {n.op.name for sample in every() for n in sample.graph().nodes}
    assert set(OPS) - sampled == {"region"}
