"""What a kernel computes and moves: operations and bytes, for `explain` and for the size of
tasks."""

from __future__ import annotations

from collections.abc import Iterable

from graphtorch.ir.graph import Node, Value
from graphtorch.ir.op import Weight
from graphtorch.ir.shape import Dim, bounds, numel

from ..kernels.machine import TASK_NS

# Nanoseconds an element; whoever schedules what is not done element by element counts that itself.
NS = {Weight.FREE: 0.0, Weight.SLOW: 0.5, Weight.VERY_SLOW: 5.0}
PLAIN_NS = 0.05
BYTES_PER_NS = 10.0  # one core from memory
GUESS = 64  # an unbounded symbol counts as this much where a decision needs a number


def element_ns(node: Node) -> float:
    """Nanoseconds an element takes, vectorised, roughly."""
    wide = 2.0 if node.types[0].dtype.itemsize == 8 else 1.0
    return wide * NS.get(node.op.weight, PLAIN_NS)


def is_slow(node: Node) -> bool:
    """Whether an element takes longer than keeping and reading it again."""
    return element_ns(node) >= NS[Weight.SLOW]


def flops(nodes: Iterable[Node]) -> Dim:
    """Operations of `nodes`: one an element of the result, of the operand for reductions, views
    none."""
    total: Dim = 0
    for node in nodes:
        if node.op.weight is not Weight.FREE:
            elements = [node.types[0].numel, *(v.type.numel for v in node.operands)]
            total = total + max(elements, key=guess)
    return total


def traffic(values: Iterable[Value]) -> Dim:
    """Bytes of `values`, each counted once."""
    total: Dim = 0
    for value in dict.fromkeys(values):
        total = total + value.type.numel * value.dtype.itemsize
    return total


def guess(dim: Dim) -> int:
    """A number for a size that is perhaps symbolic, to decide by."""
    if isinstance(dim, int):
        return dim
    low, high = bounds(dim)
    return max(low, min(high, GUESS * max(1, _factor(dim))))


def _factor(dim: Dim) -> int:
    return dim if isinstance(dim, int) else max(abs(c) for _, c in dim.terms)


def grain(nodes: Iterable[Node], bytes_per_element: float, task_ns: float = TASK_NS) -> int:
    """Elements a task should have at least, a power of two; one where tasks cost nothing (`task_ns`
    0)."""
    if not task_ns:
        return 1
    ns = max(bytes_per_element / BYTES_PER_NS, sum(map(element_ns, nodes)), 0.02)
    size = 1024
    while size * ns < task_ns and size < 1 << 18:
        size *= 2
    return size


def elements(shape: tuple[Dim, ...]) -> int:
    """Number of elements of `shape`, guessed where symbolic."""
    return guess(numel(shape))
