"""Shape, index, contraction, window, norm and loss ops against PyTorch and finite differences.

Each case of the table runs in f64 (values, first and second derivatives, decomposition), in f32 and
16-bit floats, and once more with the named axes symbolic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from attention_cases import ATTENTION
from factor_cases import FACTOR
from graphtorch.ir.dtype import DType, bf16, f16, f32, f64
from graphtorch.ir.evaluate import evaluate
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.passes.autodiff import vjp
from graphtorch.ir.shape import symbol
from graphtorch.ir.text import parse
from tensor_cases import CASES, Builder, Case
from vision_cases import VISION

each_case = pytest.mark.parametrize(
    "case", [*CASES, *ATTENTION, *FACTOR, *VISION], ids=lambda c: c.name
)


def data(case: Case) -> list[np.ndarray]:
    """Distinct values, so that no maximum or order changes within a finite difference."""
    rng = np.random.default_rng(7)
    arrays = []
    for position, shape in enumerate(case.shapes):
        count = int(np.prod(shape))
        array = (rng.permutation(count) * 0.37 - count * 0.15 + rng.uniform(0, 0.1, count)).reshape(
            shape
        )
        array = array / max(1.0, np.abs(array).max(initial=0) / 3)
        arrays.append(np.abs(array) + 0.5 if position in case.positive else array)
    return arrays


def inputs(case: Case, arrays: Sequence[np.ndarray], symbolic: bool = False) -> list[Value]:
    values = []
    for position, array in enumerate(arrays):
        shape: list[Any] = list(array.shape)
        for operand, axis in case.symbolic if symbolic else ():
            if operand == position:
                shape[axis] = symbol(f"n{shape[axis]}", min=1)
        values.append(Value(Type(DType.of(array.dtype), shape), name=f"x{position}"))
    return values


def tuple_of(result: Any) -> tuple[Any, ...]:
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def run(build: Builder, values: Sequence[Value], arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    return evaluate(Graph("test", values, tuple_of(build(*values))), arrays)


def close(actual: np.ndarray, expected: np.ndarray, tolerance: float, what: str = "") -> None:
    np.testing.assert_allclose(
        actual.astype(np.float64), expected.astype(np.float64), tolerance, tolerance, err_msg=what
    )


@each_case
def test_values_are_pytorchs(case: Case) -> None:
    if case.torch is None:
        pytest.skip("PyTorch has no such op")
    torch = pytest.importorskip("torch")
    arrays = [*data(case), *case.integers]
    expected = tuple_of(case.torch(*map(torch.tensor, arrays)))
    actual = run(case.op, inputs(case, arrays), arrays)
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        close(a, e.numpy(), 1e-10)
        assert a.shape == tuple(e.shape)


@each_case
@pytest.mark.parametrize("dtype", [f32, f16, bf16], ids=str)
def test_values_are_rounded_once(case: Case, dtype: DType) -> None:
    if case.wide and dtype is not f32:
        pytest.skip("no 16-bit form")
    floats = [a.astype(dtype.numpy) for a in data(case)]
    exact = run(
        case.op,
        inputs(case, [*data(case), *case.integers]),
        [*(a.astype(np.float64) for a in floats), *case.integers],
    )
    arrays = [*floats, *case.integers]
    for a, e in zip(run(case.op, inputs(case, arrays), arrays), exact, strict=True):
        if DType.of(a.dtype) is dtype:
            close(a, e, {f32: 1e-5, f16: 4e-3, bf16: 3e-2}[dtype])


@each_case
def test_decomposition_agrees(case: Case) -> None:
    arrays = [*data(case), *case.integers]
    values = inputs(case, arrays)
    results = tuple_of(case.op(*values))
    node = results[0].node
    if node.op.is_core:
        pytest.skip("a core op")
    parts = node.op.decompose(node)
    assert tuple(p.type for p in parts) == node.types
    for a, e in zip(
        evaluate(Graph("d", values, parts), arrays), run(case.op, values, arrays), strict=True
    ):
        close(a, e, 1e-10)


def directional(
    build: Builder, arrays: Sequence[np.ndarray], floats: int, values: Sequence[Value]
) -> None:
    """<vjp, direction> against the central difference of <cotangent, f> along it."""
    rng = np.random.default_rng(3)
    outputs = tuple_of(build(*values))
    results = run(build, values, arrays)
    seeds = [rng.standard_normal(r.shape) if r.dtype == np.float64 else None for r in results]
    cotangents = [
        None if s is None else Value(o.type, name=f"c{i}")
        for i, (s, o) in enumerate(zip(seeds, outputs, strict=True))
    ]
    gradients = vjp(outputs, cotangents, values[:floats])
    known = [(i, g) for i, g in enumerate(gradients) if g is not None]
    graph = Graph("g", [*values, *(c for c in cotangents if c is not None)], [g for _, g in known])
    found = evaluate(graph, [*arrays, *(s for s in seeds if s is not None)])
    for (i, _), gradient in zip(known, found, strict=True):
        assert gradient.shape == arrays[i].shape
        direction = rng.standard_normal(arrays[i].shape)
        expected = difference(build, values, arrays, i, direction, seeds)
        close(np.asarray((gradient * direction).sum()), np.asarray(expected), 2e-6, f"operand {i}")


def difference(
    build: Builder,
    values: Sequence[Value],
    arrays: Sequence[np.ndarray],
    i: int,
    direction: np.ndarray,
    seeds: Sequence[np.ndarray | None],
    step: float = 1e-5,
) -> float:
    total = 0.0
    for sign in (1, -1):
        moved = list(arrays)
        moved[i] = arrays[i] + sign * step * direction
        for r, s in zip(run(build, values, moved), seeds, strict=True):
            total += 0.0 if s is None else sign * float((r * s).sum())
    return total / (2 * step)


@each_case
@pytest.mark.parametrize("symbolic", [False, True], ids=["static", "symbolic"])
def test_gradient_is_the_limit_of_differences(case: Case, symbolic: bool) -> None:
    if symbolic and not case.symbolic:
        pytest.skip("no symbolic axes in this case")
    arrays = [*data(case), *case.integers]
    directional(case.op, arrays, len(case.shapes), inputs(case, arrays, symbolic))


@each_case
def test_second_derivative(case: Case) -> None:
    arrays = [*data(case), *case.integers]
    floats = len(case.shapes)
    results = run(case.op, inputs(case, arrays), arrays)
    rng = np.random.default_rng(11)
    seeds = [rng.standard_normal(r.shape) for r in results if r.dtype == np.float64]

    def gradients(*values: Value) -> tuple[Value, ...]:
        seed_values, operands = list(values[: len(seeds)]), values[len(seeds) :]
        outputs = tuple_of(case.op(*operands))
        cotangents = [seed_values.pop(0) if o.dtype is f64 else None for o in outputs]
        return tuple(g for g in vjp(outputs, cotangents, operands[:floats]) if g is not None)

    everything = [*seeds, *arrays]
    values = [
        Value(Type(DType.of(a.dtype), a.shape), name=f"v{i}") for i, a in enumerate(everything)
    ]
    directional(gradients, everything, len(seeds) + floats, values)


@each_case
@pytest.mark.parametrize("dtype", [f16, bf16], ids=str)
def test_sixteen_bit_gradients(case: Case, dtype: DType) -> None:
    if case.wide:
        pytest.skip("no 16-bit form")
    floats = [a.astype(dtype.numpy) for a in data(case)]
    found = []
    for cast in (dtype.numpy, np.float64):
        arrays = [*(a.astype(cast) for a in floats), *case.integers]
        values = inputs(case, arrays)
        outputs = tuple_of(case.op(*values))
        one = [
            o if o.dtype is DType.of(cast) else None for o in outputs
        ]  # cotangents: the results themselves
        gradients = [g for g in vjp(outputs, one, values[: len(floats)]) if g is not None]
        found.append(evaluate(Graph("g", values, gradients), arrays))
    for narrow, exact in zip(*found, strict=True):
        assert narrow.dtype == dtype.numpy
        scale = max(1.0, np.abs(exact).max(initial=0))
        close(narrow.astype(np.float64) / scale, exact / scale, {f16: 1e-2, bf16: 8e-2}[dtype])


@each_case
def test_text_reads_back(case: Case) -> None:
    arrays = [*data(case), *case.integers]
    for symbolic in (False, True):
        values = inputs(case, arrays, symbolic)
        outputs = tuple_of(case.op(*values))
        cotangents = [o if o.dtype is f64 else None for o in outputs]
        gradients = [
            g for g in vjp(outputs, cotangents, values[: len(case.shapes)]) if g is not None
        ]
        graph = Graph("g", values, [*outputs, *gradients])
        assert parse(str(graph)) == graph


@each_case
def test_symbolic_axes_give_the_same_values(case: Case) -> None:
    if not case.symbolic:
        pytest.skip("no symbolic axes in this case")
    arrays = [*data(case), *case.integers]
    symbolic = run(case.op, inputs(case, arrays, symbolic=True), arrays)
    for a, e in zip(symbolic, run(case.op, inputs(case, arrays), arrays), strict=True):
        np.testing.assert_array_equal(a, e)
