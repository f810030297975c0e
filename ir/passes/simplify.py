"""Algebra that holds bit for bit: IEEE zeros with their signs, infinities, NaN, wrapping integers.

`RULES` gives for each op the rules to try, each a function of the node that returns the value that
stands for it, or None. What holds only up to rounding (reassociation, reciprocals) is not here.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from .. import ops
from ..dtype import DType
from ..graph import Graph, Node, Value
from ..literal import Literal
from ..op import Kind
from ..ops.checks import attrs_of
from ..ops.reduce import Along, Reduce
from ..ops.shape import ConstantAttrs, DimAttrs, DimsAttrs, SliceAttrs
from ..rewrite import rewrite_until_stable
from ..shape import Symbol, bounds, plain_symbol

Rule: TypeAlias = Callable[[Node], "Value | None"]


def run(graph: Graph) -> Graph:
    """`graph` in a simpler form with the same results, bit for bit (NaNs may change their
    payload)."""
    sources = {plain_symbol(d): (v, i) for v in graph.inputs for i, d in enumerate(v.shape)}
    shared = functools.cache(
        lambda: {v for v, readers in graph.users().items() if len(readers) > 1} | set(graph.outputs)
    )

    def change(node: Node) -> Value | None:
        if node.op is ops.size:
            return _size(node, sources)
        if node.op is ops.permute:
            swapped = _transposed_product(node, shared)
            if swapped is not None:
                return swapped
        if node.op is ops.reshape:
            unfolded = _unfolded_product(node, shared)
            if unfolded is not None:
                return unfolded
        for rule in RULES.get(
            node.op.name, POINTWISE_RULES if node.op.kind is Kind.POINTWISE else ()
        ):
            found = rule(node)
            if found is not None:
                return found
        return None

    return rewrite_until_stable(graph, change)


def _size(node: Node, sources: Mapping[Symbol | None, tuple[Value, int]]) -> Value | None:
    """A size is read off an input of the graph rather than off what was computed from it."""
    operand, here = node.operands[0], attrs_of(node, Along).dim
    size = operand.shape[here]
    if isinstance(size, int):
        return ops.constant(value=Literal.of(size, node.types[0].dtype))
    symbol = plain_symbol(size)
    value, axis = sources.get(symbol, (operand, here)) if symbol else (operand, here)
    return None if (value, axis) == (operand, here) else ops.size(value, dim=axis)


def _transposed_product(node: Node, shared: Callable[[], set[Value]]) -> Value | None:
    """``(a @ b).T -> b.T @ a.T``, which the packing of the operands absorbs; each sum has the same
    terms in the same order. Not where the product itself is needed too."""
    product = producer(node.operands[0], ops.matmul)
    if product is None or node.operands[0] in shared():
        return None
    if attrs_of(node, DimsAttrs).dims != last_swapped(node.types[0].rank):
        return None
    a, b = (ops.permute(v, dims=last_swapped(v.rank)) for v in product.operands)
    return ops.matmul(b, a)


def _unfolded_product(node: Node, shared: Callable[[], set[Value]]) -> Value | None:
    """``(x.reshape(-1, k) @ b).reshape(*x.shape[:-1], n) -> x @ b``, whose rows may lie anywhere
    and whose result later ops read as it is. Not where the product itself is needed too."""
    product = producer(node.operands[0], ops.matmul)
    if product is None or node.operands[0] in shared() or product.operands[1].rank != 2:
        return None
    folded, b = product.operands
    x = None if producer(folded, ops.reshape) is None else folded.node.operands[0]  # type: ignore[union-attr]
    if x is None or x.rank < 2 or node.types[0].shape != (*x.shape[:-1], b.shape[1]):
        return None
    return ops.matmul(x, b) if x.shape[-1] == b.shape[0] else None


def last_swapped(rank: int) -> tuple[int, ...]:
    return (*range(rank - 2), rank - 1, rank - 2)


# ----------------------------------------------------------------------------------------- matching


def producer(value: Value, op: object) -> Node | None:
    """The node of `value` if it is a result of `op`."""
    return value.node if value.node is not None and value.node.op is op else None


def uniform(value: Value) -> Any:
    """The NumPy number that all elements of `value` are; None where it is not a constant, expanded
    or reshaped perhaps."""
    while value.node is not None and value.node.op in (ops.expand, ops.reshape):
        value = value.node.operands[0]
    constant = producer(value, ops.constant)
    if constant is None:
        return None
    literal = attrs_of(constant, ConstantAttrs).value
    return literal.numpy().reshape(())[()] if math.prod(literal.shape) == 1 else None


def is_number(value: Value, number: float) -> bool:
    """Whether `value` is `number` everywhere; zeros count only with the same sign."""
    found = uniform(value)
    if found is None or found != number:
        return False
    return not value.dtype.is_floating_point or np.signbit(found) == (math.copysign(1, number) < 0)


def of_type(value: Value, node: Node) -> Value | None:
    """`value` if it has the type of the node's result: an operand that is broadcast is not the
    result."""
    return value if value.type is node.types[0] else None


def filled(node: Node, number: float) -> Value:
    """`number` in the type of the node's result."""
    scalar = ops.constant(value=Literal.of(number, node.types[0].dtype))
    return ops.expand(scalar, shape=node.types[0].shape) if node.types[0].rank else scalar


def neutral(number: Callable[[DType], float | None], both: bool) -> Rule:
    """``x op number -> x``, and with `both` also ``number op x -> x``."""

    def rule(node: Node) -> Value | None:
        x, y = node.operands
        element = number(x.dtype)
        if element is None:
            return None
        if is_number(y, element):
            return of_type(x, node)
        return of_type(y, node) if both and is_number(x, element) else None

    return rule


def integer(number: float) -> Callable[[DType], float | None]:
    return lambda dtype: number if dtype.is_integer else None


def real(number: float) -> Callable[[DType], float | None]:
    return lambda dtype: None if dtype.is_complex or dtype.is_bool else number


def absorbing(number: float, accepts: Callable[[DType], bool]) -> Rule:
    """``x op number -> number``, either way round."""

    def rule(node: Node) -> Value | None:
        if accepts(node.types[0].dtype) and any(is_number(v, number) for v in node.operands):
            return filled(node, number)
        return None

    return rule


def involution(node: Node) -> Value | None:
    """``op(op(x)) -> x``"""
    inner = producer(node.operands[0], node.op)
    return inner.operands[0] if inner else None


def idempotent(node: Node) -> Value | None:
    """``op(op(x)) -> op(x)``"""
    return node.operands[0] if producer(node.operands[0], node.op) else None


def same_operands(node: Node) -> Value | None:
    """``op(x, x) -> x``"""
    x, y = node.operands
    return x if x == y else None


# --------------------------------------------------------------------------------------- arithmetic


def _minus_one(node: Node) -> Value | None:
    """``x * -1 -> -x``"""
    for x, y in (node.operands, node.operands[::-1]):
        if not x.dtype.is_complex and is_number(y, -1) and of_type(x, node):
            return ops.neg(x)
    return None


def _negated(node: Node) -> Value | None:
    """``x + -y -> x - y`` and ``x - -y -> x + y``"""
    x, y = node.operands
    inner = producer(y, ops.neg)
    if inner is None:
        return None
    return (ops.sub if node.op is ops.add else ops.add)(x, inner.operands[0])


def _power_of_two(node: Node) -> Value | None:
    """``x / 2**k -> x * 2**-k``: both are the same real number, rounded once."""
    x, y = node.operands
    number = uniform(y) if x.dtype.is_floating_point else None
    if (
        number is None
        or not np.isfinite(number)
        or number == 0
        or abs(math.frexp(float(number))[0]) != 0.5
    ):
        return None
    inverse = np.asarray(1 / float(number), x.dtype.numpy)
    tiny = math.ldexp(1, -14 if x.dtype.name == "f16" else -126)
    # may be flushed to zero where it is subnormal
    if not np.isfinite(inverse) or abs(float(inverse)) < tiny:
        return None
    scale = ops.constant(value=Literal.of(inverse))
    return ops.mul(x, scale if y.rank <= x.rank else ops.expand(scale, shape=y.shape))


def _power(node: Node) -> Value | None:
    """``x**0 -> 1``, ``x**1 -> x``, ``x**2 -> x * x``"""
    x, y = node.operands
    if is_number(y, 0) or is_number(y, -0.0):
        return filled(node, 1)
    if is_number(y, 1):
        return of_type(x, node)
    return ops.mul(x, x) if is_number(y, 2) and of_type(x, node) else None


def _absolute(node: Node) -> Value | None:
    """``|-x| -> |x|``"""
    inner = producer(node.operands[0], ops.neg)
    return ops.abs(inner.operands[0]) if inner else None


def _chosen(node: Node) -> Value | None:
    """A `where` whose condition, or whose choice, is known."""
    condition, x, y = node.operands
    known = uniform(condition)
    if known is not None or x == y:
        taken = x if known is None or known else y
        return (
            taken if taken.type is node.types[0] else ops.expand(taken, shape=node.types[0].shape)
        )
    inverted = producer(condition, ops.logical_not)
    return ops.where(inverted.operands[0], y, x) if inverted else None


def _unexpanded(node: Node) -> Value | None:
    """Pointwise ops broadcast by themselves: an operand need not be expanded where another has the
    shape."""
    for i, value in enumerate(node.operands):
        inner = producer(value, ops.expand)
        others = [v for j, v in enumerate(node.operands) if j != i]
        if inner and any(v.shape == node.types[0].shape for v in others):
            operands = (*node.operands[:i], inner.operands[0], *node.operands[i + 1 :])
            return node.with_operands(operands).result()
    return None


# ------------------------------------------------------------------------------------------ casts


MANTISSA = {"f16": 11, "bf16": 8, "f32": 24, "f64": 53}


def is_exact(source: DType, target: DType) -> bool:
    """Whether every value of `source` is one of `target`."""
    if source is target or source.is_bool:
        return True
    if source.is_complex or target.is_complex or target.is_bool:
        return False
    bits = source.bits - source.signed
    if source.is_integer and target.is_integer:
        return bits <= target.bits - target.signed and (target.signed or not source.signed)
    if source.is_integer:
        return bits <= MANTISSA[target.name] and not (target.name == "f16" and bits > 15)
    return (
        target.is_floating_point
        and MANTISSA[source.name] < MANTISSA[target.name]
        and not (source.name == "bf16" and target.name == "f16")
    )


def _cast(node: Node) -> Value | None:
    """A cast to the same type; two casts of which the first loses nothing."""
    x = node.operands[0]
    if x.type is node.types[0]:
        return x
    inner = producer(x, ops.cast)
    if inner is None or not is_exact(inner.operands[0].dtype, x.dtype):
        return None
    source, target = inner.operands[0], node.types[0].dtype
    through_float = source.dtype.is_integer and not x.dtype.is_integer and target.is_integer
    if through_float and not is_exact(source.dtype, target):
        return None  # from a float it saturates, from an integer it wraps
    return ops.cast(source, dtype=target)


# ------------------------------------------------------------------------------------------ views


def _identity(node: Node) -> Value | None:
    """A view that changes nothing. (`permute` and `flip` may keep the type and move elements.)"""
    return of_type(node.operands[0], node)


def _reshape(node: Node) -> Value | None:
    inner = producer(node.operands[0], ops.reshape)
    return ops.reshape(inner.operands[0], shape=node.types[0].shape) if inner else None


def _permute(node: Node) -> Value | None:
    dims = attrs_of(node, DimsAttrs).dims
    if dims == tuple(range(len(dims))):
        return node.operands[0]
    inner = producer(node.operands[0], ops.permute)
    if inner is None:
        return None
    first = attrs_of(inner, DimsAttrs).dims
    return ops.permute(inner.operands[0], dims=tuple(first[d] for d in dims))


def _expand(node: Node) -> Value | None:
    inner = producer(node.operands[0], ops.expand)
    return ops.expand(inner.operands[0], shape=node.types[0].shape) if inner else None


def _slice(node: Node) -> Value | None:
    """A slice of a slice; it stops right behind its last element, so not beyond the first slice's
    stop."""
    inner = producer(node.operands[0], ops.slice)
    if inner is None:
        return None
    first, second = attrs_of(inner, SliceAttrs), attrs_of(node, SliceAttrs)
    start = tuple(a + s * b for a, s, b in zip(first.start, first.step, second.start, strict=True))
    step = tuple(s * t for s, t in zip(first.step, second.step, strict=True))
    ends = zip(start, step, node.types[0].shape, strict=True)
    stop = tuple(a if size == 0 else a + (size - 1) * s + 1 for a, s, size in ends)
    x = inner.operands[0]
    limits = zip(start, stop, x.shape, strict=True)
    if any(
        bounds(size - last)[0] < 0 or bounds(last - first)[0] < 0 for first, last, size in limits
    ):
        return None  # sizes of which that cannot be shown
    return ops.slice(x, start=start, stop=stop, step=step)


def _flip(node: Node) -> Value | None:
    inner = producer(node.operands[0], ops.flip)
    if all(node.types[0].shape[d] == 1 for d in attrs_of(node, DimsAttrs).dims):
        return node.operands[0]
    return inner.operands[0] if inner and inner.attrs == node.attrs else None


def _concat(node: Node) -> Value | None:
    dim = attrs_of(node, DimAttrs).dim
    kept = [v for v in node.operands if v.shape[dim] != 0]
    if len(node.operands) == 1:
        return node.operands[0]
    if len(kept) == len(node.operands):
        return None
    return ops.concat(*(kept or node.operands[:1]), dim=dim)


def _single(node: Node) -> Value | None:
    """A reduction of one element each; a scalar has a dimension 0 to reduce, as in PyTorch."""
    x = node.operands[0]
    dims = attrs_of(node, Reduce).dims if x.rank else ()
    if x.dtype is not node.types[0].dtype or any(x.shape[d] != 1 for d in dims):
        return None
    return x if x.type is node.types[0] else ops.reshape(x, shape=node.types[0].shape)


def _only(node: Node) -> Value | None:
    """The position of the extremum of a scalar, which has a dimension 0 here as well."""
    return None if node.operands[0].rank else ops.constant(value=Literal.of(0, node.types[0].dtype))


POINTWISE_RULES: tuple[Rule, ...] = (_unexpanded,)

RULES: dict[str, tuple[Rule, ...]] = {
    "add": (_unexpanded, neutral(integer(0), True), neutral(real(-0.0), True), _negated),
    "sub": (_unexpanded, neutral(real(0.0), False), _negated),
    "mul": (_unexpanded, neutral(real(1), True), _minus_one, absorbing(0, lambda d: d.is_integer)),
    "div": (_unexpanded, neutral(real(1), False), _power_of_two),
    "pow": (_unexpanded, _power),
    "floor_div": (_unexpanded, neutral(integer(1), False)),
    "trunc_div": (_unexpanded, neutral(integer(1), False)),
    "neg": (involution,),
    "conj": (involution,),
    "logical_not": (involution,),
    "bitwise_not": (involution,),
    "abs": (_absolute, idempotent),
    "relu": (idempotent,),
    "floor": (idempotent,),
    "ceil": (idempotent,),
    "round": (idempotent,),
    "trunc": (idempotent,),
    "maximum": (_unexpanded, same_operands),
    "minimum": (_unexpanded, same_operands),
    "logical_and": (
        _unexpanded,
        same_operands,
        neutral(lambda d: True, True),
        absorbing(0, lambda d: True),
    ),
    "logical_or": (
        _unexpanded,
        same_operands,
        neutral(lambda d: 0, True),
        absorbing(1, lambda d: True),
    ),
    "bitwise_and": (_unexpanded, same_operands, absorbing(0, lambda d: True)),
    "bitwise_or": (_unexpanded, same_operands, neutral(lambda d: 0, True)),
    "bitwise_xor": (_unexpanded, neutral(lambda d: 0, True)),
    "where": (_chosen, _unexpanded),
    "cast": (_cast,),
    "reshape": (_identity, _reshape),
    "permute": (_permute,),
    "expand": (_identity, _expand),
    "slice": (_identity, _slice),
    "pad": (_identity,),
    "flip": (_flip,),
    "concat": (_concat,),
    "sum": (_single,),
    "argmax": (_only,),
    "argmin": (_only,),
    "prod": (_single,),
    "max": (_single,),
    "min": (_single,),
    "any": (_single,),
    "all": (_single,),
}
