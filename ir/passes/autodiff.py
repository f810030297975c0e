"""Reverse-mode differentiation: ordinary nodes in, ordinary nodes out.

The rules are the ops' own (`Op.vjp`); this file only applies them in reverse order and adds up what
arrives at a value. The result can be optimised, printed, exported and differentiated again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from ..graph import Node, Value, located, topological
from ..op import OPS, ByDecomposition, Core, NoGradient

Cotangents = Sequence[Value | None]


def pullback(node: Node, cotangents: Cotangents) -> tuple[Value | None, ...]:
    """The cotangents of a node's operands, given those of its results.

    Args:
        node: any node; a composite without its own rule is differentiated through `decompose`.
        cotangents: one for each result, of that result's type; None where no gradient arrives.

    Returns:
        One value of the operand's type for each operand, None where no gradient flows: integer
        operands, ops that are not differentiable. Where one value stands in several operand
        positions, the positions' cotangents add up to the gradient.
    """
    if all(c is None for c in cotangents) or isinstance(node.op.vjp, NoGradient):
        return (None,) * len(node.operands)
    with located(node.location):
        if isinstance(node.op.vjp, ByDecomposition):
            return _through_decomposition(node, cotangents)
        found = node.op.vjp(node, *cotangents)
    return tuple(_checked(node, i, g) for i, g in enumerate(found))


def vjp(outputs: Sequence[Value], cotangents: Cotangents, wrt: Sequence[Value]) -> list[Value | None]:
    """Gradients with respect to `wrt` of the sum of ``outputs[i] * cotangents[i]``.

    Args:
        outputs: values of a floating-point or complex dtype.
        cotangents: one for each output, of its type; None counts as zero.
        wrt: values that the outputs were computed from; one may be computed from another, and then the
            gradient of the earlier includes what flows through the later.

    Returns:
        For each of `wrt` its gradient, or None where no output depends on it differentiably.

    Raises:
        TypeError: a cotangent does not have its output's type.
    """
    return _backward(outputs, cotangents, wrt, stop=frozenset())


def _through_decomposition(node: Node, cotangents: Cotangents) -> tuple[Value | None, ...]:
    if isinstance(node.op.decompose, Core):
        raise TypeError(f"op {node.op.name} is core, so its vjp cannot follow from a decomposition")
    return pullback_through(node.op.decompose(node), cotangents, node.operands)


def pullback_through(outputs: Sequence[Value], cotangents: Cotangents,
                     operands: Sequence[Value]) -> tuple[Value | None, ...]:
    """`pullback` of an operation made of several nodes: those between `operands` and `outputs`."""
    found = _backward(outputs, cotangents, operands, stop=frozenset(operands))
    seen: set[Value] = set()  # an operand that stands twice gets its whole gradient at the first place
    result: list[Value | None] = []
    for operand, gradient in zip(operands, found, strict=True):
        result.append(None if operand in seen else gradient)
        seen.add(operand)
    return tuple(result)


def _checked(node: Node, index: int, gradient: Value | None) -> Value | None:
    operand = node.operands[index]
    if gradient is None or not operand.dtype.is_differentiable:
        return None
    if gradient.type is not operand.type:
        raise TypeError(
            f"vjp of op {node.op.name} made a gradient {gradient.type} for operand {index} "
            f"of type {operand.type}"
            + (f" (recorded at {node.location})" if node.location else "")
        )
    return gradient


def _backward(outputs: Sequence[Value], cotangents: Cotangents, wrt: Sequence[Value],
              stop: Collection[Value]) -> list[Value | None]:
    gradients: dict[Value, Value] = {}
    for output, cotangent in zip(outputs, cotangents, strict=True):
        if cotangent is None:
            continue
        if cotangent.type is not output.type:
            raise TypeError(f"cotangent of an output {output.type} has type {cotangent.type}: "
                            "expected the same type")
        _accumulate(gradients, output, cotangent)
    order, active = _active_nodes(outputs, wrt, stop)
    for node in reversed(order):
        # a value the walk stops at passes nothing on, even where another result of its node is read
        results = [None if r in stop else gradients.get(r) for r in node.results()]
        for operand, gradient in zip(node.operands, pullback(node, results), strict=True):
            if gradient is not None and operand in active:
                with located(node.location):
                    _accumulate(gradients, operand, gradient)
    return [gradients.get(v) for v in wrt]


def _accumulate(gradients: dict[Value, Value], value: Value, gradient: Value) -> None:
    before = gradients.get(value)
    gradients[value] = gradient if before is None else OPS["add"](before, gradient)


def _active_nodes(outputs: Iterable[Value], wrt: Sequence[Value],
                  stop: Collection[Value]) -> tuple[list[Node], set[Value]]:
    """Nodes through which a gradient can flow from `outputs` to `wrt`, producers first, and the
    values it passes. The walk does not look behind `stop`."""
    active = set(wrt)
    order: list[Node] = []
    for node in topological(outputs, stop):
        if isinstance(node.op.vjp, NoGradient):
            continue
        if any(v.dtype.is_differentiable and v in active for v in node.operands):
            order.append(node)
            active.update(r for r in node.results() if r.dtype.is_differentiable)
    return order, active
