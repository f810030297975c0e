"""Composites that repeat until every element is done: the loop as a graph of its own, and their
reference.

Such an op means what it decomposes into: its reference evaluates that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ..dtype import DType, f64
from ..evaluate import evaluate
from ..graph import Graph, Node, Type, Value, located
from ..op import Attrs, Kind, Op, Vjp, Weight
from ..shape import Shape, broadcast
from .batching import pointwise
from .common import (
    REAL_FLOATING,
    Expr,
    cast_to,
    check_domain,
    check_same_dtype,
    expand_to,
    fn,
    full,
    ops,
)

__all__: list[str] = []

# of a series or continued fraction: what has not converged by then never will
MOST_STEPS = 20_000.0


def constant(like: Expr, number: float) -> Expr:
    """`number` in every place of `like`."""
    return Expr(full(like.shape, number, like.dtype))


def repeat(
    test: Callable[..., Expr],
    body: Callable[..., Sequence[Expr]],
    carried: Sequence[Expr],
    fixed: Sequence[Expr],
) -> list[Expr]:
    """``carried = body(*carried, *fixed)`` while any element of ``test(*carried, *fixed)``
    holds."""
    operands = [x.value for x in (*carried, *fixed)]

    def graph(name: str, define: Callable[[list[Expr]], Sequence[Value]]) -> Graph:
        with located(None):
            inputs = [Value(v.type, name=f"x{i}") for i, v in enumerate(operands)]
            return Graph(name, inputs, list(define([Expr(v) for v in inputs])))

    def any_of(x: Expr) -> Value:
        return (
            ops.any(x.value, dims=tuple(range(x.value.rank)), keepdim=False) if x.shape else x.value
        )

    tested = graph("test", lambda given: [any_of(test(*given))])
    stepped = graph("body", lambda given: [x.value for x in body(*given)])
    found = ops.while_loop(*operands, test=tested, body=stepped, carries=len(carried))
    return [Expr(v) for v in (found if isinstance(found, tuple) else (found,))]


def reference_of(
    decompose: Callable[[Node], tuple[Value, ...]], op: Callable[[], Op]
) -> Callable[..., Any]:
    """The reference of an op that means what it decomposes into."""

    @lru_cache(maxsize=64)
    def expanded(attrs: Attrs, types: tuple[Type, ...]) -> Graph:
        with located(None):
            inputs = [Value(t, name=f"x{i}") for i, t in enumerate(types)]
            return Graph("expanded", inputs, list(decompose(op().node(tuple(inputs), attrs))))

    def reference(attrs: Attrs, *arrays: np.ndarray) -> Any:
        types = tuple(Type(DType.of(a.dtype), a.shape) for a in arrays)
        found = evaluate(expanded(attrs, types), list(arrays))
        return found[0] if len(found) == 1 else tuple(found)

    return reference


def in_f64(formula: Callable[..., Expr], node: Node, count: int | None = None) -> Value:
    """A formula on the first `count` operands as f64, broadcast; its result in the node's dtype."""
    numbers = node.operands[:count]
    shape: Shape = broadcast(*[v.shape for v in numbers])
    wide = [Expr(expand_to(cast_to(v, f64), shape)) for v in numbers]
    rest = [Expr(v) for v in node.operands[len(numbers) :]]
    return cast_to(formula(*wide, *rest).value, node.types[0].dtype)


def elementwise_loop(
    name: str, doc: str, operands: tuple[str, ...], vjp: Vjp, formula: Callable[..., Expr]
) -> Op:
    """An elementwise op of floating-point operands of one dtype, computed in f64 by a formula with
    loops."""

    def infer(attrs: Attrs, *types: Type) -> tuple[Type, ...]:
        dtype = check_same_dtype(name, *types)
        for t in types:
            check_domain(name, t, REAL_FLOATING)
        return (Type(dtype, broadcast(*[t.shape for t in types])),)

    def decompose(node: Node) -> tuple[Value, ...]:
        return (in_f64(formula, node),)

    made: Op = Op(
        name,
        doc,
        operands,
        infer,
        vjp,
        reference_of(decompose, lambda: made),
        Attrs,
        decompose,
        kind=Kind.POINTWISE,
        weight=Weight.VERY_SLOW,
        batch=pointwise,
    )
    return made


def finite_or(condition: Expr, x: Expr, instead: float) -> Expr:
    """`x` where the condition holds, else a harmless number, so that loops do not wait for such
    elements."""
    return fn.where(condition, x, constant(x, instead))
