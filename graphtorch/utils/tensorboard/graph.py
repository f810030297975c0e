"""A traced model as the graph that TensorBoard shows
(``tensorboard.compat.proto.graph_pb2.GraphDef``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tensorboard.compat.proto.attr_value_pb2 import AttrValue
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.compat.proto.node_def_pb2 import NodeDef
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.versions_pb2 import VersionDef

from graphtorch.ir.graph import Graph, Node, Value, topological

from ..._captured.tracing import trace
from ..._deferred.tensor import Tensor
from ...nn.modules._call import register_module_forward_hook, register_module_forward_pre_hook
from ...nn.modules.module import Module
from .. import _pytree


def graph_of(model: Module, args: Sequence[Any]) -> Any:
    """The graph of ``model(*args)`` in evaluation mode; nodes are named by the modules that they
    belong to.

    Raises:
        RuntimeError: the model needs a tensor's value in Python; the message names the line.
    """
    with _evaluating(model), _Scopes(model) as scopes:
        graph = trace(model, *args).graph
    return GraphDef(node=list(_nodes(graph, scopes)), versions=VersionDef(producer=22))


@contextmanager
def _evaluating(model: Module) -> Iterator[None]:
    training = [m for m in model.modules() if m.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


class _Scopes:
    """Which module recorded which node: ``Net/Linear[fc]``."""

    def __init__(self, model: Module):
        self.paths = {"": type(model).__name__}
        for path, module in model.named_modules():
            if path:
                parent, _, name = path.rpartition(".")
                self.paths[path] = f"{self.paths[parent]}/{type(module).__name__}[{name}]"
        self.parameters = {n for n, _ in (*model.named_parameters(), *model.named_buffers())}
        self._of = {module: self.paths[path] for path, module in model.named_modules()}
        self._within = [self.paths[""]]
        self._known: dict[Node, str] = {}
        self._recorded: tuple[Node, ...] = ()

    def __enter__(self) -> _Scopes:
        self._handles = [
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave),
        ]
        return self

    def __exit__(self, *exc: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _enter(self, module: Any, args: Any) -> None:
        self._note(args)
        self._within.append(self._of.get(module, self._within[-1]))

    def _leave(self, module: Any, args: Any, result: Any) -> None:
        self._note(result)
        self._within.pop()

    def _note(self, tensors: Any) -> None:
        values = [t._value() for t in _pytree.tree_leaves(tensors) if isinstance(t, Tensor)]
        self._recorded = topological(values)
        for node in self._recorded:
            self._known.setdefault(node, self._within[-1])

    def of(self, graph: Graph) -> list[str]:
        """The scope of each node of the traced graph, which has copies of what was recorded, in its
        order."""
        recorded = self._recorded
        same = [n.op for n in recorded] == [n.op for n in graph.nodes]
        return [self._known[n] for n in recorded] if same else [self.paths[""]] * len(graph.nodes)

    def of_parameter(self, name: str) -> str:
        """The name of a parameter below its module."""
        path, _, last = name.rpartition(".")
        return f"{self.paths.get(path, self.paths[''])}/{last}"


def _nodes(graph: Graph, scopes: _Scopes) -> Iterator[Any]:
    names: dict[Value, str] = {}
    for value in graph.inputs:
        known = value.name in scopes.parameters
        names[value] = scopes.of_parameter(value.name) if known else f"input/{value.name}"
        yield _node(names[value], "Parameter" if known else "IO Node", [], [value])
    for number, (node, scope) in enumerate(zip(graph.nodes, scopes.of(graph), strict=True)):
        name = f"{scope}/{node.op.name}_{number}"
        names.update((v, name if v.index == 0 else f"{name}:{v.index}") for v in node.results())
        yield _node(
            name, node.op.name, [names[v] for v in node.operands], node.results(), str(node.attrs)
        )
    for number, value in enumerate(graph.outputs):
        yield _node(f"output/output.{number + 1}", "IO Node", [names[value]], [value])


def _node(name: str, op: str, inputs: list[str], results: Sequence[Value], attrs: str = "") -> Any:
    shapes = [
        TensorShapeProto(dim=[TensorShapeProto.Dim(size=int(d)) for d in v.shape]) for v in results
    ]
    return NodeDef(
        name=name,
        op=op,
        input=inputs,
        attr={
            "_output_shapes": AttrValue(list=AttrValue.ListValue(shape=shapes)),
            "attr": AttrValue(s=attrs.encode()),
        },
    )
