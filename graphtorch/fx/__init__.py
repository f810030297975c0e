"""``torch.fx``: a program as a list of nodes that Python code can read and change.

This is for tools that rewrite modules. What runs is compiled as any other code; `graphtorch.trace`
gives the graph that graphtorch itself uses. https://docs.pytorch.org/docs/stable/fx.html
"""

from __future__ import annotations

from .._torch.absent import attribute_of
from .graph import Graph, PythonCode
from .graph_module import GraphModule
from .interpreter import Interpreter, Transformer
from .node import Node, map_arg
from .proxy import Proxy, TraceError
from .tracer import PH, Tracer, is_fx_tracing, symbolic_trace, wrap

__all__ = [
    "PH",
    "Graph",
    "GraphModule",
    "Interpreter",
    "Node",
    "Proxy",
    "PythonCode",
    "TraceError",
    "Tracer",
    "Transformer",
    "is_fx_tracing",
    "map_arg",
    "symbolic_trace",
    "wrap",
]
__getattr__ = attribute_of(__name__)
