"""What a graph is: types, shapes, ops, graphs, their text, their verifier and the passes over them.

This folder knows no front end and no machine.
"""

from . import dtype, ops, passes
from .dtype import DType, Kind
from .graph import Graph, Location, Node, Type, Value, current_location, located
from .literal import Literal
from .op import BY_DECOMPOSITION, CORE, NO_ATTRS, OPS, Attrs, NoGradient, Op
from .shape import Dim, Shape, Symbol, SymInt, symbol
from .text import ParseError, parse, print_graph, print_node

__all__ = [
    "BY_DECOMPOSITION",
    "CORE",
    "NO_ATTRS",
    "OPS",
    "Attrs",
    "DType",
    "Dim",
    "Graph",
    "Kind",
    "Literal",
    "Location",
    "NoGradient",
    "Node",
    "Op",
    "ParseError",
    "Shape",
    "SymInt",
    "Symbol",
    "Type",
    "Value",
    "current_location",
    "dtype",
    "located",
    "ops",
    "parse",
    "passes",
    "print_graph",
    "print_node",
    "symbol",
]
