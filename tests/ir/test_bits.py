"""`bitcast`: what it decomposes into, and what compiled code makes of it, have the bytes of the
reference."""

from __future__ import annotations

import numpy as np
import pytest

from graphtorch.backends import Buffer, compile
from graphtorch.ir import dtype as dt
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType
from graphtorch.ir.evaluate import evaluate
from graphtorch.ir.graph import Graph, Node, Type, Value
from graphtorch.ir.passes import legalize

REAL = [d for d in dt.ALL if not d.is_complex and not d.is_bool]


def keeps(node: Node) -> bool:
    same = node.operands and node.operands[0].dtype.itemsize == node.types[0].dtype.itemsize > 1
    return node.op.is_core or (node.op is ops.bitcast and bool(same))


@pytest.mark.parametrize("source", REAL)
def test_the_bytes_stay(source: DType) -> None:
    data = np.random.default_rng(0).integers(0, 256, (3, 32), np.uint8).view(source.numpy)
    x = Value(Type(source, data.shape), name="x")
    graph = Graph("g", [x], [ops.bitcast(x, dtype=target) for target in REAL])
    expected = evaluate(graph, [data])
    assert all(a.tobytes() == data.tobytes() for a in expected)
    apart = evaluate(legalize.run(graph, keeps), [data])
    native = [b.numpy() for b in compile(graph, "llvm")([Buffer.of(data)])]
    for value, a, b, c in zip(graph.outputs, expected, apart, native, strict=True):
        assert a.tobytes() == b.tobytes() == c.tobytes(), f"{source} as {value.dtype}"


def test_sizes_that_do_not_fit() -> None:
    x = Value(Type(dt.f32, (2, 3)), name="x")
    with pytest.raises(RuntimeError, match="no whole number of f64"):
        ops.bitcast(x, dtype=dt.f64)
    with pytest.raises(RuntimeError, match="another size"):
        ops.bitcast(Value(Type(dt.f32, ()), name="x"), dtype=dt.i8)
