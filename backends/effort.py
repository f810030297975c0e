"""What running a graph op by op takes, and what compiling it would: by their nodes, never by a
clock.

Whether a graph is worth compiling depends on these two, so that a program takes the same decisions
each time it runs. The constants are nanoseconds on a core of about 3 GHz; only their ratios matter
much.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphtorch.ir import ops
from graphtorch.ir.graph import Node, Type
from graphtorch.ir.op import Weight
from graphtorch.ir.ops.checks import attrs_of
from graphtorch.ir.ops.scan_grad import ScanAttrs
from graphtorch.ir.ops.timing import elements

NODE_NS = 5_000.0  # a call of NumPy and the Python around it
MOVED_NS = 0.6  # an element read and written by a plain operation
VERY_SLOW_NS = 60.0
NS = {Weight.FREE: MOVED_NS, Weight.SLOW: 8.0}  # an element of the result

COMPILE_NS = 80e6  # passes, linking, loading
KERNEL_NS = 22e6  # one more kernel
NODES_A_KERNEL = 2.0
LOAD_NS = 4e6  # finding a compiled program on disk: printing the graph, reading, linking


def stepping_ns(nodes: Iterable[Node]) -> float:
    """What running `nodes` (of static sizes) one by one takes, roughly."""
    total = 0.0
    for node in nodes:
        total += NODE_NS
        given, weight = node.op.reference_ns, node.op.weight
        if type(given) is float:
            total += given * elements(node.types[0])
        elif given is not None:
            total += given(node)  # type: ignore[operator]
        elif node.op is ops.scan:
            attrs = attrs_of(node, ScanAttrs)
            total += attrs.length * stepping_ns(attrs.body.nodes)  # type: ignore[operator]
        elif weight in NS:
            total += NS[weight] * elements(node.types[0])
        else:
            largest = max([elements(v.type) for v in (node.result(), *node.operands)])
            total += (VERY_SLOW_NS if weight is Weight.VERY_SLOW else MOVED_NS * 2) * largest
    return total


def compiling_ns(rows: Iterable[Sequence[object]], types: Iterable[tuple[Type, ...]]) -> float:
    """What compiling a graph takes, roughly.

    Args:
        rows: of each node the op and the skeleton of its attributes come first.
        types: of each node.
    """
    kinds = {(row[0], row[1], t) for row, t in zip(rows, types, strict=True)}
    return COMPILE_NS + KERNEL_NS * len(kinds) / NODES_A_KERNEL
