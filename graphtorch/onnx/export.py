"""From a traced graph to an ONNX model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from graphtorch.ir.graph import Graph, Node, Value
from graphtorch.ir.op import Kind
from graphtorch.ir.ops.checks import attrs_of
from graphtorch.ir.ops.norm import LayerNormAttrs
from graphtorch.ir.passes import cse, dce, legalize, simplify

from .attention import emit_attention, fits, is_whole
from .builder import ModelBuilder, value_info
from .control import emit_control
from .pointwise import POINTWISE, emit_pointwise, unsupported
from .regions import REGIONS
from .structure import STRUCTURE

DEFAULT_OPSET = 18
OPSETS = range(17, 24)


def supports(node: Node) -> bool:
    """Whether the exporter writes `node` whole; composites it does not take are decomposed."""
    # ONNX's has a weight, of known sizes
    if node.op.name == "layer_norm" and len(node.operands) == 1:
        x, axes = node.operands[0], attrs_of(node, LayerNormAttrs).axes
        return all(isinstance(d, int) for d in x.shape[x.rank - axes :])
    known = POINTWISE, STRUCTURE, REGIONS
    return node.op.kind is Kind.CONTROL or any(node.op.name in table for table in known)


def to_model(
    graph: Graph,
    initializers: Mapping[str, np.ndarray],
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset: int = DEFAULT_OPSET,
) -> onnx.ModelProto:
    """The ONNX model of `graph`, checked by `onnx.checker`.

    Args:
        graph: a traced graph; symbolic dims become named ones.
        initializers: arrays for the graph inputs that are weights, by input name.
        input_names, output_names: what to call the others, in order; default: the graph's names,
            ``output``.
        opset: 17 or newer.

    Raises:
        RuntimeError: an op has no ONNX spelling; the message names it and the user's line.
        ValueError: opset or names do not fit.
    """
    if opset not in OPSETS:
        raise ValueError(
            f"opset_version={opset}: graphtorch writes opsets {OPSETS[0]} to {OPSETS[-1]}"
        )
    graph = prepare(graph, opset)
    builder = ModelBuilder(opset)
    data = [v for v in graph.inputs if v.name not in initializers]
    names = _names(data, [v.name for v in data], input_names, "input_names")
    for value in graph.inputs:
        builder.bind(value, names.get(value, value.name))
    for value in graph.inputs:
        if value.name in initializers:
            builder.initializer(value.name, initializers[value.name], value.dtype)
    builder.declare_symbols(data, names)
    for node in graph.nodes:
        emit(builder, node)
    outputs = _outputs(builder, graph.outputs, output_names)
    infos = [value_info(names[v], v.type) for v in data]
    model = builder.model(graph, infos, outputs, "exported by graphtorch")
    try:
        onnx.checker.check_model(model, full_check=model.ByteSize() < 2**30)
    except onnx.shape_inference.InferenceError as error:
        raise RuntimeError(
            f"onnx.export: an ONNX operator does not take these operands: {error}; where it "
            "is their dtype, convert them with .to(dtype)"
        ) from None
    return model


def prepare(graph: Graph, opset: int) -> Graph:
    """The graph in terms of ops that have an ONNX spelling."""
    whole = is_whole(graph, opset)
    legal = legalize.run(graph, lambda node: supports(node) or (whole and fits(node)), "onnx")
    return dce.run(cse.run(simplify.run(legal)))


def emit(builder: ModelBuilder, node: Node) -> None:
    """Append `node` to the model and remember the names of its results."""
    inputs = [builder.names[v] for v in node.operands]
    if node.op.name in POINTWISE:
        results = emit_pointwise(builder, node, inputs)
    elif node.op.name in STRUCTURE:
        results = STRUCTURE[node.op.name](builder, node, inputs)
    elif node.op.name in REGIONS:
        results = REGIONS[node.op.name](builder, node, inputs)
    elif fits(node):
        results = emit_attention(builder, node, inputs)
    elif node.op.kind is Kind.CONTROL:
        results = emit_control(builder, node, inputs, emit_body)
    else:
        raise unsupported(node, "ONNX has no operator for it")
    listed = [results] if isinstance(results, str) else results
    for value, name in zip(node.results(), listed, strict=True):
        builder.names[value] = name


def emit_body(builder: ModelBuilder, body: Graph) -> None:
    """Append the nodes of a nested graph, whose inputs and outputs keep being the ones of
    `body`."""
    legal = prepare(body, builder.opset)
    for node in legal.nodes:
        emit(builder, node)
    for value, made in zip(body.outputs, legal.outputs, strict=True):
        builder.names[value] = builder.names[made]


def _names(
    values: Sequence[Value], defaults: Sequence[str], given: Sequence[str] | None, argument: str
) -> dict[Value, str]:
    if given is not None and len(given) > len(values):
        raise ValueError(
            f"{argument} has {len(given)} names, the model has {len(values)}: {list(defaults)}"
        )
    chosen = [*(given or ()), *defaults[len(given or ()) :]]
    return dict(zip(values, chosen, strict=True))


def _outputs(
    builder: ModelBuilder, values: Sequence[Value], given: Sequence[str] | None
) -> list[onnx.ValueInfoProto]:
    """Give each output a name of its own; an input, or a value that is returned twice, is
    copied."""
    defaults = [f"output_{i}" if len(values) > 1 else "output" for i in range(len(values))]
    if given is not None and len(given) > len(values):
        raise ValueError(
            f"output_names has {len(given)} names, the model has {len(values)} outputs: {defaults}"
        )
    infos, renamed = [], {}
    for position, value in enumerate(values):
        name = builder.fresh(
            given[position] if given and position < len(given) else defaults[position]
        )
        made = builder.names[value]
        if value.node is None or value.node.op.name == "constant" or made in renamed:
            builder.nodes.append(onnx.helper.make_node("Identity", [made], [name]))
        else:
            renamed[made] = name
        infos.append(value_info(name, value.type))
    builder.rename(renamed)
    return infos
