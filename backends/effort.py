"""What running a graph op by op takes, and what compiling it would: by their nodes, never by a clock.

Whether a graph is worth compiling depends on these two, so that a program takes the same decisions each time
it runs. The constants are nanoseconds on a core of about 3 GHz; only their ratios matter much.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from graphtorch.ir.graph import Node, Type
from graphtorch.ir.ops.checks import attrs_of
from graphtorch.ir.ops.scan_grad import ScanAttrs

from .kernels.cost import FREE, SLOW, VERY_SLOW

NODE_NS = 5_000.0  # a call of NumPy and the Python around it
MOVED_NS = 0.6  # an element read and written by a plain operation
SLOW_NS = 8.0  # an element of exp and its like
VERY_SLOW_NS = 60.0
# what takes many steps of NumPy's, or of Python, for each element
SCALARWISE_NS = {
    "erfc": 90.0, "erfinv": 700.0, "lgamma": 700.0, "digamma": 2500.0, "words_to_normal": 400.0,
    "permutation": 150.0, "mersenne_normals": 2500.0, "mersenne_gamma": 5000.0, "mersenne_poisson": 5000.0,
    "mersenne_binomial": 5000.0,
}
LOOPED_NS = 4_000.0  # a turn of a loop in Python around NumPy
MULTIPLY_ADD_NS = 0.06
WINDOW_NS = 1.5  # a multiply-add's share of what a convolution copies first

COMPILE_NS = 80e6  # passes, linking, loading
KERNEL_NS = 22e6  # one more kernel
NODES_A_KERNEL = 2.0
LOAD_NS = 4e6  # finding a compiled program on disk: printing the graph, reading, linking

_elements: dict[Type, int] = {}


def elements(type: Type) -> int:
    """The number of elements of a static type."""
    found = _elements.get(type)
    if found is None:
        if len(_elements) > 1 << 15:
            _elements.clear()
        found = _elements[type] = math.prod(type.shape)  # type: ignore[arg-type]
    return found


def stepping_ns(nodes: Iterable[Node]) -> float:
    """What running `nodes` (of static sizes) one by one takes, roughly."""
    total = 0.0
    for node in nodes:
        name = node.op.name
        size = elements(node.types[0])
        if name in FREE:
            total += NODE_NS + MOVED_NS * size
        elif name in SCALARWISE_NS:
            total += NODE_NS + SCALARWISE_NS[name] * size
        elif name in SLOW:
            total += NODE_NS + SLOW_NS * size
        elif name in LOOPED:
            total += NODE_NS + LOOPED_NS * _turns(node, name, size)
        elif name in HEAVY:
            total += NODE_NS + _heavy(node, name, size)
        else:
            largest = max([size, *[elements(v.type) for v in node.operands]])
            total += NODE_NS + (VERY_SLOW_NS if name in VERY_SLOW else MOVED_NS * 2) * largest
    return total


HEAVY = frozenset((
    "matmul", "linear", "affine", "conv", "conv_transpose", "conv_weight_grad", "scan", "attention",
"attention_grad"))


LOOPED = frozenset((  # what references go through pixel by pixel
    "roi_align", "roi_align_grad", "ps_roi_align", "ps_roi_align_grad", "roi_pool", "roi_pool_grad",
    "ps_roi_pool", "ps_roi_pool_grad", "sample_bilinear", "sample_bilinear_grad", "deform_conv2d", "nms",
))
TAPS = 16  # pixels of a bin, roughly


def _turns(node: Node, name: str, size: int) -> int:
    """How often the innermost loop of a reference turns, roughly."""
    if name == "nms":
        return size * size // 2
    if name.startswith("sample"):
        return 4 * elements(node.operands[-1].type)
    if name == "deform_conv2d":
        weight = node.operands[1].type
        return 4 * size * elements(weight) // max(1, weight.shape[0])  # type: ignore[call-overload,no-any-return]
    pooled = node.operands[0].type if name.endswith("_grad") else node.types[0]
    channels = 1 if name.startswith("roi_pool") else max(1, pooled.shape[1])  # type: ignore[call-overload]
    return TAPS * elements(pooled) // channels  # type: ignore[no-any-return]


def _heavy(node: Node, name: str, size: int) -> float:
    if name in ("matmul", "linear", "affine"):
        return size * node.operands[name == "affine"].shape[-1] * MULTIPLY_ADD_NS  # type: ignore[operator]
    if name == "scan":
        attrs = attrs_of(node, ScanAttrs)
        return attrs.length * stepping_ns(attrs.body.nodes)  # type: ignore[operator]
    if name.startswith("attention"):
        keys = node.operands[1].shape[-2]
        return size * keys * (2 * MULTIPLY_ADD_NS + SLOW_NS / 16)  # type: ignore[operator]
    x, w = node.operands[0].type, node.operands[1].type
    if name == "conv":
        products = size * elements(w) // max(1, w.shape[0])  # type: ignore[call-overload]
    elif name == "conv_transpose":
        products = elements(x) * elements(w) // max(1, w.shape[0])  # type: ignore[call-overload]
    else:
        products = elements(w) * size // max(1, node.types[0].shape[0])  # type: ignore[call-overload]
    return products * (MULTIPLY_ADD_NS + WINDOW_NS / 32)  # type: ignore[no-any-return]


def compiling_ns(rows: Iterable[Sequence[object]], types: Iterable[tuple[Type, ...]]) -> float:
    """What compiling a graph takes, roughly.

    Args:
        rows: of each node the op and the skeleton of its attributes come first.
        types: of each node.
    """
    kinds = {(row[0], row[1], t) for row, t in zip(rows, types, strict=True)}
    return COMPILE_NS + KERNEL_NS * len(kinds) / NODES_A_KERNEL
