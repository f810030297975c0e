"""Loops, branches and recurrent layers as ONNX, run by ONNX Runtime."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.ir import ops
from graphtorch.ir.dtype import boolean, f32, i64
from graphtorch.ir.evaluate import evaluate
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.literal import Literal
from graphtorch.ir.shape import symbol
from recurrences import arrays_for, gru, looped, value

onnxruntime = pytest.importorskip("onnxruntime")
torch_onnx = pytest.importorskip("graphtorch.onnx")


def session_of(proto: Any) -> Any:
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def compare(graph: Graph, arrays: list[np.ndarray]) -> Counter[str]:
    """Run the exported graph, and count its operators."""
    proto = torch_onnx.to_model(graph, {})
    feed = {v.name: a for v, a in zip(graph.inputs, arrays, strict=True)}
    for found, expected in zip(
        session_of(proto).run(None, feed), evaluate(graph, arrays), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    return Counter(n.op_type for n in proto.graph.node)


# and the operators that its export consists of
LAYERS: list[tuple[str, dict[str, Any], dict[str, int]]] = [
    ("RNN", {}, {"RNN": 1}),
    ("RNN", {"nonlinearity": "relu", "bias": False}, {"RNN": 1}),
    ("LSTM", {}, {"LSTM": 1}),
    ("LSTM", {"num_layers": 2, "bidirectional": True}, {"LSTM": 4}),
    ("LSTM", {"batch_first": True, "bias": False}, {"LSTM": 1}),
    ("LSTM", {"proj_size": 3}, {"Scan": 1}),
    ("GRU", {}, {"GRU": 1}),
    ("GRU", {"num_layers": 2, "bias": False}, {"GRU": 2}),
    ("GRU", {"bidirectional": True}, {"GRU": 2}),
]


@pytest.mark.parametrize("weights", [True, False], ids=["initializers", "inputs"])
@pytest.mark.parametrize(("kind", "arguments", "operators"), LAYERS, ids=lambda v: str(v))
def test_layers(
    kind: str, arguments: dict[str, Any], operators: dict[str, int], weights: bool
) -> None:
    torch.manual_seed(0)
    layer = getattr(nn, kind)(5, 6, **arguments).eval()
    proto = torch.onnx.export(
        layer,
        (torch.randn(7, 2, 5),),
        None,
        input_names=["x"],
        dynamic_axes={"x": {0: "a", 1: "b"}},
        export_params=weights,
    )
    counts = Counter(n.op_type for n in proto.graph.node)
    assert {k: counts[k] for k in ("RNN", "LSTM", "GRU", "Scan") if counts[k]} == operators
    if "Scan" not in operators:
        assert "MatMul" not in counts, (
            "the operator takes the input, not its product with the weight"
        )
    x = np.random.default_rng(0).standard_normal((4, 3, 5)).astype(np.float32)
    given = {} if weights else {name: t.detach().numpy() for name, t in layer.named_parameters()}
    found = session_of(proto).run(None, {"x": x, **given})
    y, state = layer(torch.from_numpy(x))
    expected = [y, *(state if isinstance(state, tuple) else [state])]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_initial_state_and_opset_17() -> None:
    layer = nn.GRU(5, 6).eval()
    x, h = torch.randn(7, 2, 5), torch.randn(1, 2, 6)
    proto = torch.onnx.export(layer, (x, h), None, input_names=["x", "h"], opset_version=17)
    found = session_of(proto).run(None, {"x": x.numpy(), "h": h.numpy()})
    for a, b in zip(found, layer(x, h), strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
def test_scan(reverse: bool) -> None:
    graph = looped(gru(symbol("batch", 1, 9), 4, f32), 1, symbol("steps", 1, 9), reverse)
    counts = compare(graph, arrays_for(graph, {"steps": 5, "batch": 3}))
    assert counts["Scan"] == 1 and "MatMul" not in counts


@pytest.mark.parametrize("truth", [False, True])
def test_cond(truth: bool) -> None:
    p, x, y = Value(Type(boolean), name="p"), value("x", 3, dtype=f32), value("y", 3, dtype=f32)
    a, b = value("a", 3, dtype=f32), value("b", 3, dtype=f32)
    results = ops.cond(
        p,
        x,
        y,
        then=Graph("then", [a, b], [ops.mul(a, b), a]),
        orelse=Graph("orelse", [a, b], [ops.exp(b), b]),
    )
    graph = Graph("g", [p, x, y], list(results))
    assert compare(graph, [np.array(truth), *arrays_for(graph)[1:]])["If"] == 1


@pytest.mark.parametrize("start", [0.1, 20.0])
def test_while_loop(start: float) -> None:
    x, n, limit = value("x", 3, dtype=f32), Value(Type(i64), name="n"), value("limit", dtype=f32)
    test = Graph("test", [x, n, limit], [ops.gt(ops.sum(x, dims=(0,), keepdim=False), limit)])
    half, one = ops.constant(value=Literal.of(0.5, f32)), ops.constant(value=Literal.of(1, i64))
    body = Graph("body", [x, n, limit], [ops.mul(x, half), ops.add(n, one)])
    inputs = [value("x0", 3, dtype=f32), Value(Type(i64), name="n0"), value("limit0", dtype=f32)]
    graph = Graph("g", inputs, list(ops.while_loop(*inputs, test=test, body=body, carries=2)))
    arrays = [np.full(3, start, np.float32), np.array(0), np.array(2.0, np.float32)]
    assert compare(graph, arrays)["Loop"] == 1
