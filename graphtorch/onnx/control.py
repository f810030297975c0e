"""ONNX spelling of loops and branches: Scan, If, Loop, and RNN, LSTM, GRU where a loop is one of
them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from graphtorch.ir import ops
from graphtorch.ir.graph import Graph, Node, Value
from graphtorch.ir.ops.checks import attrs_of
from graphtorch.ir.ops.control import CondAttrs, WhileAttrs
from graphtorch.ir.ops.scan_grad import ScanAttrs
from graphtorch.ir.shape import Dim

from ..nn.functional.recurrent import KINDS, mode_of
from .builder import ModelBuilder, value_info

# appends the nodes of a body, in terms that ONNX has
EmitGraph = Callable[[ModelBuilder, Graph], None]

OPERATORS = {"RNN_TANH": "RNN", "RNN_RELU": "RNN", "LSTM": "LSTM", "GRU": "GRU"}
# which of our gates ONNX has at each place
ORDER = {"RNN": (0,), "LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2)}


def emit_control(b: ModelBuilder, node: Node, x: list[str], emit_graph: EmitGraph) -> list[str]:
    """Append a loop or branch, and return the names of its results."""
    if node.op is ops.cond:
        return _if(b, node, x, emit_graph)
    if node.op is ops.while_loop:
        return _loop(b, node, x, emit_graph)
    found = _layer_of(b, node)
    return _scan(b, node, x, emit_graph) if found is None else _operator(b, node, x, found)


# ---- loops and branches in general ---------------------------------------------------------------


def _subgraph(
    b: ModelBuilder, body: Graph, bound: Sequence[str], emit_graph: EmitGraph
) -> tuple[ModelBuilder, list[str]]:
    """The nodes of `body` on names given by `bound`, and the names of its outputs, each of its
    own."""
    inner = b.child()
    for value, name in zip(body.inputs, bound, strict=True):
        inner.names[value] = name
    emit_graph(inner, body)
    results: list[str] = []
    for value in body.outputs:
        made = inner.names[value]
        own = any(made in n.output for n in inner.nodes) and made not in results
        results.append(made if own else inner.op("Identity", [made]))
    return inner, results


def _closed(
    inner: ModelBuilder,
    name: str,
    inputs: Sequence[onnx.ValueInfoProto],
    names: Sequence[str],
    values: Sequence[Value],
) -> onnx.GraphProto:
    outputs = [value_info(n, v.type) for n, v in zip(names, values, strict=True)]
    return helper.make_graph(inner.nodes, name, list(inputs), outputs)


def _scan(b: ModelBuilder, node: Node, x: list[str], emit_graph: EmitGraph) -> list[str]:
    attrs = attrs_of(node, ScanAttrs)
    body, n, last = attrs.body, attrs.carries, attrs.carries + attrs.stacked
    if not attrs.stacked:  # ONNX reads the number of steps off a scanned input
        raise RuntimeError(
            "onnx.export: a scan over no stacked tensor has no number of steps in ONNX: stack "
            f"something, for example torch.arange(length){_place(node)}"
        )
    own = [b.fresh(v.name) for v in body.inputs[:last]]
    inner, names = _subgraph(b, body, [*own, *x[last:]], emit_graph)
    inputs = [value_info(name, v.type) for name, v in zip(own, body.inputs, strict=False)]
    graph = _closed(inner, b.fresh(body.name), inputs, names, body.outputs)
    counts = {"scan_input_directions": attrs.stacked, "scan_output_directions": len(node.types) - n}
    back = int(attrs.reverse)
    directions: dict[str, Any] = {name: [back] * count for name, count in counts.items() if count}
    return b.multi(
        "Scan", x[:last], len(node.types), body=graph, num_scan_inputs=attrs.stacked, **directions
    )


def _if(b: ModelBuilder, node: Node, x: list[str], emit_graph: EmitGraph) -> list[str]:
    attrs = attrs_of(node, CondAttrs)
    graphs = []
    for body in (attrs.then, attrs.orelse):
        inner, names = _subgraph(b, body, x[1:], emit_graph)
        graphs.append(_closed(inner, b.fresh(body.name), (), names, body.outputs))
    return b.multi("If", x[:1], len(node.types), then_branch=graphs[0], else_branch=graphs[1])


def _loop(b: ModelBuilder, node: Node, x: list[str], emit_graph: EmitGraph) -> list[str]:
    """A Loop tests after each step, so the first test stands before it."""
    attrs = attrs_of(node, WhileAttrs)
    test, body, n = attrs.test, attrs.body, attrs.carries
    for value, name in zip(test.inputs, x, strict=True):
        b.names[value] = name
    emit_graph(b, test)
    first = b.names[test.outputs[0]]
    own = [b.fresh(v.name) for v in body.inputs[:n]]
    inner, names = _subgraph(b, body, [*own, *x[n:]], emit_graph)
    for value, name in zip(test.inputs, [*names, *x[n:]], strict=True):
        inner.names[value] = name
    emit_graph(inner, test)
    again = inner.op("Identity", [inner.names[test.outputs[0]]], "again")
    step, before = b.fresh("step"), b.fresh("go")
    inputs = [
        helper.make_tensor_value_info(step, onnx.TensorProto.INT64, []),
        helper.make_tensor_value_info(before, onnx.TensorProto.BOOL, []),
        *(value_info(name, v.type) for name, v in zip(own, body.inputs, strict=False)),
    ]
    graph = _closed(
        inner, b.fresh(body.name), inputs, [again, *names], [test.outputs[0], *body.outputs]
    )
    return b.multi("Loop", ["", first, *x[:n]], n, body=graph)


def _place(node: Node) -> str:
    return f" (recorded at {node.location})" if node.location else ""


# ---- recurrent layers ----------------------------------------------------------------------------


class Layer(NamedTuple):
    """A scan that is one direction of a recurrent layer: the parts of its projected input, by
    name."""

    mode: str
    x: str
    w: Value
    biases: tuple[Value, ...]


def _layer_of(b: ModelBuilder, node: Node) -> Layer | None:
    """The layer that a scan is, None where it is another loop or another result than outputs is
    read."""
    attrs = attrs_of(node, ScanAttrs)
    mode = mode_of(attrs.body, attrs.carries)
    outputs = attrs.body.outputs
    if mode is None or attrs.stacked != 1 or any(v != outputs[0] for v in outputs[attrs.carries :]):
        return None
    found = _projection(node.operands[attrs.carries])
    if found is None:
        return None
    product, biases = found
    rows, transposed = product.operands
    if transposed.node is None or transposed.node.op is not ops.permute:
        return None
    inside = len(node.operands) - attrs.carries - 2  # a GRU adds the second bias in its step
    if len(biases) + inside not in (0, 2):
        return None
    size = rows.shape[-1]
    batch = attrs.body.inputs[0].shape[0]
    return Layer(
        mode, _steps(b, rows, (attrs.length, batch, size)), transposed.node.operands[0], biases
    )


def _projection(value: Value) -> tuple[Node, tuple[Value, ...]] | None:
    """The product and the biases that were added to it, under reshapes."""
    biases: list[Value] = []
    while value.node is not None:
        node = value.node
        if node.op is ops.matmul and node.operands[1].rank == 2:
            return node, tuple(reversed(biases))
        if node.op is ops.add and node.operands[1].rank == 1:
            biases.append(node.operands[1])
        elif node.op is not ops.reshape:
            return None
        value = node.operands[0]
    return None


def _steps(b: ModelBuilder, rows: Value, shape: tuple[Dim, ...]) -> str:
    """The input [T, N, I] whose rows a product reads."""
    if rows.shape == shape:
        return b.names[rows]
    source = (
        rows.node.operands[0] if rows.node is not None and rows.node.op is ops.reshape else None
    )
    if source is not None and source.shape == shape:
        return b.names[source]
    return b.op("Reshape", [b.names[rows], b.shape(shape)])


def _operator(b: ModelBuilder, node: Node, x: list[str], layer: Layer) -> list[str]:
    attrs = attrs_of(node, ScanAttrs)
    kind, states = OPERATORS[layer.mode], KINDS[layer.mode].states
    hidden = node.types[0].shape[-1]
    fixed = node.operands[attrs.carries + 1 :]
    w, r = (_arranged(b, [v], kind) for v in (layer.w, fixed[0]))
    biases = (*layer.biases, *fixed[1:])
    bias = _arranged(b, biases, kind) if biases else ""
    initial = [b.op("Unsqueeze", [name, b.ints([0])]) for name in x[:states]]
    extra = (
        {"linear_before_reset": 1}
        if kind == "GRU"
        else {"activations": [layer.mode.removeprefix("RNN_").capitalize()]}
        if kind == "RNN"
        else {}
    )
    direction = "reverse" if attrs.reverse else "forward"
    y, *finals = b.multi(
        kind,
        [layer.x, w, r, bias, "", *initial],
        1 + states,
        kind.lower(),
        hidden_size=int(hidden),
        direction=direction,
        **extra,
    )
    axis = b.ints([1]), b.ints([0])
    results = [b.op("Squeeze", [name, axis[1]]) for name in finals]
    stacked = len(node.types) - states
    return [*results, *([b.op("Squeeze", [y, axis[0]])] * stacked)]


def _arranged(b: ModelBuilder, parts: Sequence[Value], kind: str) -> str:
    """Weights [G, *] one after the other as ONNX wants them: gates in its order, a direction in
    front."""
    arrays = [b.initializers.get(b.names[v]) for v in parts]
    if all(a is not None for a in arrays):
        ordered = [_reordered(numpy_helper.to_array(a), kind) for a in arrays if a is not None]
        name = b.fresh(f"{b.names[parts[0]]}_{kind.lower()}")
        return b.initializer(name, np.concatenate(ordered)[None], parts[0].dtype)
    count, pieces = len(ORDER[kind]), list[str]()
    even = {"num_outputs": count} if b.opset >= 18 else {}
    for value in parts:
        gates = b.multi("Split", [b.names[value]], count, "gate", axis=0, **even)  # type: ignore[arg-type]
        pieces += [gates[i] for i in ORDER[kind]]
    joined = b.op("Concat", pieces, axis=0)
    return b.op("Unsqueeze", [joined, b.ints([0])])


def _reordered(weight: np.ndarray, kind: str) -> np.ndarray:
    gates = np.split(weight, len(ORDER[kind]))
    return np.concatenate([gates[i] for i in ORDER[kind]])


__all__ = ["emit_control"]
