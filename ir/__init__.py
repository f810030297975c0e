"""What a graph is: types, shapes, ops, graphs, their text, their verifier and the passes over them.

This folder knows no front end and no machine.
"""

import importlib
from typing import TYPE_CHECKING, Any

from . import dtype, ops, passes
from .dtype import DType, Kind
from .graph import Graph, Location, Node, Type, Value, current_location, located
from .literal import Literal
from .op import BY_DECOMPOSITION, CORE, NO_ATTRS, OPS, Attrs, NoGradient, Op
from .printer import print_graph, print_node
from .shape import Dim, Shape, Symbol, SymInt, symbol

if TYPE_CHECKING:
    from .text import ParseError, parse


def __getattr__(name: str) -> Any:
    if name in ("ParseError", "parse"):  # graphs are read from text by few programs
        return getattr(importlib.import_module(f"{__name__}.text"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


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
