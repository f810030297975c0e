"""Every pointwise op on every real dtype against its reference, special values included."""

from __future__ import annotations

import math

import numpy as np
import pytest

from graphtorch.ir import ops
from graphtorch.ir.dtype import ALL, DType, boolean, f32
from graphtorch.ir.graph import Graph, Node, Type, Value
from graphtorch.ir.ops import activation, binary, elementwise, special
from programs import lowered, run_program

DTYPES = [d for d in ALL if not d.is_complex]
NAMES = [n for m in (elementwise, binary, activation, special) for n in m.__all__]
ATTRS = {
    "gelu": [{"approximate": "none"}, {"approximate": "tanh"}],
    "softplus": [{"beta": 1.0, "threshold": 20.0}, {"beta": 2.0, "threshold": 3.0}],
    "elu": [
        {"alpha": 1.0, "scale": 1.0, "input_scale": 1.0},
        {"alpha": 1.5, "scale": 1.1, "input_scale": 0.5},
    ],
    "leaky_relu": [{"slope": 0.1}],
    "hardtanh": [{"low": -1.0, "high": 2.0}],
    "cast": [{"dtype": d} for d in DTYPES],
}
WIDE_ULP = {"pow": 64, "lgamma": 64, "digamma": 64, "erfinv": 64, "tan": 16, "logaddexp": 16}


def samples(dtype: DType, count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype.is_floating_point:
        edges = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            0.5,
            2.5,
            -3.5,
            math.inf,
            -math.inf,
            math.nan,
            6.0,
            -6.0,
            30.0,
            1e-3,
        ]
        body = rng.standard_normal(count - len(edges)) * 3
        return (
            np.concatenate([edges, body])
            .astype(np.float64)
            .astype(dtype.numpy)[rng.permutation(count)]
        )
    if dtype is boolean:
        return rng.random(count) < 0.5
    info = np.iinfo(dtype.numpy)
    edges = [info.min, info.max, 0, 1, 2, 3, 7, *([-1, -2] if info.min else [])]
    body = rng.integers(max(info.min, -9), 10, count - len(edges))
    return np.concatenate([edges, body]).astype(dtype.numpy)[rng.permutation(count)]


def nodes_on(dtype: DType) -> tuple[list[Value], list[Node]]:
    """Each op that takes `dtype`, applied to the inputs x, y and (for where) a condition."""
    inputs = [Value(Type(dtype, (2, 35)), name=n) for n in "xy"] + [
        Value(Type(boolean, (2, 35)), name="c")
    ]
    nodes = []
    for name in NAMES:
        op = getattr(ops, name)
        arguments = [inputs[2], *inputs[:2]] if name == "where" else inputs[: op.arity()[0]]
        for attrs in ATTRS.get(name, [{}]):
            try:
                value = op(*arguments, **attrs)
            except (RuntimeError, TypeError, NotImplementedError):
                continue
            value = value[0] if isinstance(value, tuple) else value
            if not value.dtype.is_complex:
                nodes.append(value.node)
    return inputs, nodes


def close(node: Node, got: np.ndarray, want: np.ndarray) -> None:
    assert got.dtype == want.dtype
    if not node.types[0].dtype.is_floating_point:
        np.testing.assert_array_equal(got, want, err_msg=str(node))
        return
    eps = {"f16": 2.0**-10, "bf16": 2.0**-7, "f64": 1e-13}.get(node.types[0].dtype.name, 2.0**-23)
    tolerance = eps * WIDE_ULP.get(node.op.name, 8)
    np.testing.assert_allclose(
        got.astype(np.float64),
        want.astype(np.float64),
        rtol=tolerance,
        atol=tolerance / 4,
        err_msg=str(node),
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_op(dtype: DType) -> None:
    inputs, nodes = nodes_on(dtype)
    arrays = [samples(v.dtype, 70, seed).reshape(2, 35) for seed, v in enumerate(inputs)]
    given = dict(zip(inputs, arrays, strict=True))
    for start in range(0, len(nodes), 24):
        part = nodes[start : start + 24]
        got, status = run_program(
            lowered(Graph("g", inputs, [n.result() for n in part])), arrays, {}
        )
        assert status == 0
        for node, array in zip(part, got, strict=True):
            close(node, array, node.op.reference(node.attrs, *[given[v] for v in node.operands]))


def test_complex_is_refused() -> None:
    z = Value(Type(DType.named("c64"), (3,)), name="z")
    with pytest.raises(TypeError, match="reference"):
        lowered(Graph("g", [z], [ops.mul(z, z)]))


def test_half_is_rounded_after_each_op() -> None:
    """So that a fused comparison sees what an unfused one would."""
    x = Value(Type(DType.named("f16"), (64,)), name="x")
    array = samples(DType.named("f16"), 64, 3)
    y = ops.mul(ops.add(x, x), x)
    got, _ = run_program(lowered(Graph("g", [x], [ops.cast(y, dtype=f32)])), [array], {})
    with np.errstate(all="ignore"):
        want = ((array + array) * array).astype(np.float32)
    np.testing.assert_array_equal(got[0], want)
