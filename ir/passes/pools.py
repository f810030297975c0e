"""Gradients of max pools on the side of the pool's result, which is smaller than its input.

Each g of a max pool's gradient goes to the position of its window's maximum. So

    where(x > 0, grad, 0)   with the pool's input x is the gradient of  where(values > 0, g, 0)
    sum(grad)               over the spatial dimensions is              sum(g)
    grad                    of windows that do not overlap is computed from x: finding the positions
                            again is cheaper than storing them

The first and the last give the same bits. The sum has the same terms, but for zeros, in another
order.
"""

from __future__ import annotations

from .. import ops
from ..graph import Graph, Node, Value
from ..op import Kind
from ..ops.checks import attrs_of
from ..ops.pool import MaxPoolAttrs
from ..ops.reduce import Reduce
from ..rewrite import rewrite_until_stable
from .simplify import is_number, producer, uniform


def run(graph: Graph) -> Graph:
    """`graph` with the rules above applied; needs `max_pool_input_grad` legalized after it."""
    if not any(node.op is ops.max_pool_grad for node in graph.nodes):
        return graph
    moved = rewrite_until_stable(graph, lambda n: _masked(n) or _summed(n), (ops.where, ops.sum))
    return rewrite_until_stable(moved, _found_again, (ops.max_pool_grad,))


def _masked(node: Node) -> Value | None:
    """``where(compare(x, c), 0, grad) -> grad of where(compare(values, c), 0, g)``, and the other
    way."""
    if node.op is not ops.where:
        return None
    condition, a, b = node.operands
    test, grad = condition.node, producer(b, ops.max_pool_grad) or producer(a, ops.max_pool_grad)
    if test is None or grad is None or not _is_comparison(test):
        return None
    kept_is_second = grad is b.node
    pool = producer(grad.operands[1], ops.max_pool)
    zero = a if kept_is_second else b
    if pool is None or grad.operands[1].index != 1 or not is_number(zero, 0) or zero.rank:
        return None
    x, number = test.operands
    if x != pool.operands[0] or uniform(number) is None or number.rank:
        return None
    here = test.with_operands((pool.result(0), number)).result()
    g = grad.operands[0]
    masked = ops.where(here, zero, g) if kept_is_second else ops.where(here, g, zero)
    return grad.with_operands((masked, grad.operands[1])).result()


def _is_comparison(node: Node) -> bool:
    """Whether each element of the result says something of the two elements in its place."""
    return (
        node.op.kind is Kind.POINTWISE and len(node.operands) == 2 and node.types[0].dtype.is_bool
    )


def _summed(node: Node) -> Value | None:
    """``sum(grad) -> sum(g)`` where all spatial dimensions are summed."""
    grad = producer(node.operands[0], ops.max_pool_grad) if node.op is ops.sum else None
    if grad is None:
        return None
    attrs = attrs_of(node, Reduce)
    if not set(range(2, grad.types[0].rank)) <= set(attrs.dims):
        return None
    return ops.sum(grad.operands[0], dims=attrs.dims, keepdim=attrs.keepdim)


def _found_again(node: Node) -> Value | None:
    """The gradient of windows that do not overlap, from the pool's input instead of the
    positions."""
    pool = producer(node.operands[1], ops.max_pool) if node.op is ops.max_pool_grad else None
    if pool is None or node.operands[1].index != 1 or node.types[0] != pool.operands[0].type:
        return None
    attrs = attrs_of(pool, MaxPoolAttrs)
    plain = not any(attrs.padding) and max(attrs.dilation) == 1 and not attrs.ceil_mode
    if not plain or any(s < k for s, k in zip(attrs.stride, attrs.kernel, strict=True)):
        return None
    return ops.max_pool_input_grad(
        node.operands[0], pool.operands[0], kernel=attrs.kernel, stride=attrs.stride
    )
