"""Loops over time for the tests: graphs with one `scan` each, and arrays for their inputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, f64
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.shape import Dim


def value(name: str, *shape: Dim, dtype: DType = f64) -> Value:
    return Value(Type(dtype, shape), name=name)


def gru(batch: Dim = 3, hidden: int = 2, dtype: DType = f64, saves: bool = True) -> Graph:
    """A GRU's step on projected input: carry, slice, weight, bias. With `saves` its gates are
    results."""
    h, x = value("h", batch, hidden, dtype=dtype), value("x", batch, 3 * hidden, dtype=dtype)
    w, b = value("w", 3 * hidden, hidden, dtype=dtype), value("b", 3 * hidden, dtype=dtype)
    ours = ops.add(ops.matmul(h, ops.permute(w, dims=(1, 0))), b)

    def gate(v: Value, i: int) -> Value:
        return ops.slice(v, start=(0, i * hidden), stop=(batch, (i + 1) * hidden), step=(1, 1))

    r, z = (ops.sigmoid(ops.add(gate(x, i), gate(ours, i))) for i in (0, 1))
    new = gate(ours, 2)
    n = ops.tanh(ops.add(gate(x, 2), ops.mul(r, new)))
    after = ops.add(n, ops.mul(z, ops.sub(h, n)))
    return Graph("gru", [h, x, w, b], [after, after, r, z, n, new] if saves else [after, r])


def swap() -> Graph:
    """Two carries that change places, a constant, a slice handed through, the sum of everything."""
    a, b, x, k = value("a", 4), value("b", 4), value("x", 4), value("k")
    total = ops.add(ops.add(a, ops.mul(b, x)), k)
    return Graph("swap", [a, b, x, k], [b, total, x, total, k, a])


def outer_products() -> Graph:
    """A matrix that grows by the outer product of a slice with itself, scaled by a weight."""
    m, x, w = value("m", 3, 3), value("x", 3, 1), value("w", 3, 3)
    step = ops.matmul(x, ops.permute(x, dims=(1, 0)))
    return Graph(
        "outer", [m, x, w], [ops.add(ops.mul(m, w), step), ops.sum(m, dims=(0,), keepdim=False)]
    )


def convolved() -> Graph:
    """A weight used by an op that is no matrix product, so that its gradient is added up in the
    loop."""
    h, x, w = value("h", 1, 1, 5), value("x", 1, 1, 5), value("w", 1, 1, 3)
    y = ops.tanh(
        ops.conv(ops.add(h, x), w, stride=(1,), padding=((1, 1),), dilation=(1,), groups=1)
    )
    return Graph("convolved", [h, x, w], [y, y])


BODIES: dict[str, tuple[Callable[[], Graph], int]] = {  # and the number of carries; one slice each
    "gru": (gru, 1),
    "gru_plain": (lambda: gru(saves=False), 1),
    "swap": (swap, 2),
    "outer_products": (outer_products, 1),
    "convolved": (convolved, 1),
}


def looped(body: Graph, carries: int, length: Dim = 5, reverse: bool = False) -> Graph:
    """A graph of one scan with one stacked operand, all its results outputs."""
    inputs = [value(f"{v.name}0", *v.shape, dtype=v.dtype) for v in body.inputs]
    inputs[carries] = value(
        "xs", length, *body.inputs[carries].shape, dtype=body.inputs[carries].dtype
    )
    results = ops.scan(
        *inputs, body=body, carries=carries, stacked=1, length=length, reverse=reverse
    )
    return Graph("looped", inputs, list(results))


def arrays_for(
    graph: Graph, sizes: dict[str, int] | None = None, seed: int = 0
) -> list[np.ndarray]:
    """Normal numbers for the inputs of `graph`."""
    rng = np.random.default_rng(seed)
    found = []
    for v in graph.inputs:
        shape = tuple(d if isinstance(d, int) else (sizes or {})[str(d)] for d in v.shape)
        found.append(np.asarray(rng.standard_normal(shape)).astype(v.dtype.numpy))
    return found
