"""Graphs compiled by LLVM against the references of their ops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphtorch.backends.buffer import Buffer
from graphtorch.backends.cpu.lower import lower
from graphtorch.backends.cpu.supports import supports
from graphtorch.backends.kernels.text import print_program
from graphtorch.backends.llvm import compiler
from graphtorch.ir.dtype import DType
from graphtorch.ir.evaluate import evaluate
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.passes import pipeline
from graphtorch.ir.shape import Shape

Build = Callable[..., Any]
TOLERANCE = {"f16": 2e-3, "bf16": 2e-2, "f32": 1e-5, "f64": 1e-12}


def graph_of(build: Build, types: Sequence[tuple[DType, Shape]]) -> Graph:
    """The graph of ``build(*inputs)``, which gives a Value or several."""
    inputs = [
        Value(Type(dtype, tuple(shape)), name=f"x{i}") for i, (dtype, shape) in enumerate(types)
    ]
    results = build(*inputs)
    return Graph("test", inputs, [results] if isinstance(results, Value) else list(results))


def run(graph: Graph, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The results of the compiled graph."""
    return [
        b.numpy()
        for b in compiler.compile(graph)([Buffer.of(np.asarray(a, order="C")) for a in arrays])
    ]


def check(
    build: Build, arrays: Sequence[np.ndarray], shapes: Sequence[Shape] | None = None
) -> None:
    """Compile ``build`` for inputs like `arrays` and compare; `shapes` may be symbolic."""
    arrays = [np.asarray(a) for a in arrays]
    shapes = [a.shape for a in arrays] if shapes is None else shapes
    graph = graph_of(build, [(DType.of(a.dtype), s) for a, s in zip(arrays, shapes, strict=True)])
    for found, expected in zip(run(graph, arrays), evaluate(graph, arrays), strict=True):
        assert_close(found, expected)


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal integers; floats within a few roundings of their dtype."""
    assert found.dtype == expected.dtype and found.shape == expected.shape
    dtype = DType.of(found.dtype)
    if not dtype.is_floating_point:
        np.testing.assert_array_equal(found, expected)
        return
    a, b = (x.astype(np.float64) for x in (found, expected))
    tolerance = TOLERANCE[dtype.name]
    scale = float(np.max(np.abs(b), where=np.isfinite(b), initial=1.0))
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * scale)


def lowered_text(build: Build, types: Sequence[tuple[DType, Shape]]) -> str:
    """The kernels of a graph after all passes."""
    return print_program(lower(pipeline.run(graph_of(build, types), supports, "llvm")))
