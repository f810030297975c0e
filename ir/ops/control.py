"""Ops that hold a graph: fused regions, loops over time, conditional and repeated computation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..dataclass import dataclass
from ..dtype import boolean
from ..evaluate import evaluate
from ..graph import Graph, Node, Type, Value
from ..op import BY_DECOMPOSITION, Attrs, Kind, NoGradient, Op, Weight
from ..passes.autodiff import vjp
from ..rewrite import inline
from .checks import attrs_of
from .common import zeros_like
from .control_batch import cond_batch, scan_batch, while_batch
from .scan_grad import ScanAttrs, scan_vjp

__all__ = ["cond", "region", "scan", "while_loop"]


@dataclass(frozen=True)
class RegionAttrs(Attrs):
    """kind says how the body runs (loop, contraction, ...); body's inputs are the operands, by
    position."""

    kind: str
    body: Graph


def _region_infer(attrs: RegionAttrs, *xs: Type) -> tuple[Type, ...]:
    expected = [v.type for v in attrs.body.inputs]
    if list(xs) != expected:
        raise TypeError(
            f"region {attrs.kind}: the body takes {expected}, but the operands are {list(xs)}"
        )
    return tuple(v.type for v in attrs.body.outputs)


def _region_reference(attrs: RegionAttrs, *xs: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(evaluate(attrs.body, xs))


def _region_decompose(node: Node) -> tuple[Value, ...]:
    return inline(attrs_of(node, RegionAttrs).body, node.operands)


region = Op(
    "region",
    "A part of the graph that becomes one kernel: the body's outputs for these operands.",
    ("*xs",),
    attrs=RegionAttrs,
    infer=_region_infer,
    vjp=NoGradient("made after autodiff"),
    decompose=_region_decompose,
    reference=_region_reference,
    kind=Kind.WHOLE,
    weight=Weight.FREE,
    batch=BY_DECOMPOSITION,
)


# scan ---------------------------------------------------------------------------------------------


def _check_body(what: str, body: Graph, expected: Sequence[Type]) -> None:
    found = [v.type for v in body.inputs]
    if found != list(expected):
        raise TypeError(f"{what} takes {found}, but it is given {list(expected)}")


def _check_carries(what: str, body: Graph, carries: Sequence[Type]) -> None:
    found = [v.type for v in body.outputs[: len(carries)]]
    if found != list(carries):
        raise TypeError(
            f"{what}: what is carried has the types {list(carries)}, but the body returns "
            f"{found} for it: a carry keeps its shape and dtype"
        )


def _scan_infer(attrs: ScanAttrs, *xs: Type) -> tuple[Type, ...]:
    first, last = attrs.carries, attrs.carries + attrs.stacked
    if attrs.carries < 0 or attrs.stacked < 0 or last > len(xs):
        raise TypeError(
            f"scan: {attrs.carries} carries and {attrs.stacked} stacked operands, but there are "
            f"{len(xs)} operands"
        )
    for i, x in enumerate(xs[first:last]):
        if x.rank == 0 or x.shape[0] != attrs.length:
            raise RuntimeError(
                f"scan: stacked operand {i} has shape {list(x.shape)}: its first size must be "
                f"the number of steps, {attrs.length}"
            )
    slices = [x.with_shape(x.shape[1:]) for x in xs[first:last]]
    _check_body("scan: the body", attrs.body, [*xs[:first], *slices, *xs[last:]])
    _check_carries("scan", attrs.body, xs[:first])
    stacked = [v.type.with_shape((attrs.length, *v.shape)) for v in attrs.body.outputs[first:]]
    return (*xs[:first], *stacked)


def _scan_reference(attrs: ScanAttrs, *xs: np.ndarray) -> tuple[np.ndarray, ...]:
    first, last = attrs.carries, attrs.carries + attrs.stacked
    carries, stacked, fixed = list(xs[:first]), xs[first:last], xs[last:]
    shapes = [(attrs.length, *v.shape) for v in attrs.body.outputs[first:]]
    made = [
        np.empty(s, v.dtype.numpy) for s, v in zip(shapes, attrs.body.outputs[first:], strict=True)
    ]
    steps = range(int(attrs.length))  # type: ignore[arg-type]
    for t in reversed(steps) if attrs.reverse else steps:
        found = evaluate(attrs.body, [*carries, *(x[t] for x in stacked), *fixed])
        carries = found[:first]
        for target, step in zip(made, found[first:], strict=True):
            target[t] = step
    return (*carries, *made)


scan = Op(
    "scan",
    "A loop over `length` steps: body(carries, slices of stacked operands along dimension 0, the "
    "other operands) gives the next carries and one slice of each stacked result.",
    ("*xs",),
    attrs=ScanAttrs,
    infer=_scan_infer,
    vjp=scan_vjp,
    reference=_scan_reference,
    kind=Kind.CONTROL,
    weight=Weight.COSTLY,
    batch=scan_batch,
)


# cond ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CondAttrs(Attrs):
    """Two graphs of the same input and output types."""

    then: Graph
    orelse: Graph


def _check_predicate(what: str, x: Type) -> None:
    if x.dtype is not boolean or x.shape != ():
        raise RuntimeError(
            f"{what}: expected the predicate to be a bool without dimensions, but got {x}"
        )


def _cond_infer(attrs: CondAttrs, predicate: Type, *xs: Type) -> tuple[Type, ...]:
    _check_predicate("cond", predicate)
    _check_body("cond: the true branch", attrs.then, xs)
    _check_body("cond: the false branch", attrs.orelse, xs)
    found, other = ([v.type for v in g.outputs] for g in (attrs.then, attrs.orelse))
    if found != other:
        raise TypeError(
            f"cond: the branches return {found} and {other}: both must return the same types"
        )
    return tuple(found)


def _branch_vjp(body: Graph, cotangents: Sequence[Value | None]) -> Graph:
    """The gradients of a branch with respect to its differentiable inputs, zeros where none
    flows."""
    outputs = [v for v, c in zip(body.outputs, cotangents, strict=True) if c is not None]
    given = [Value(c.type, name=f"d{i}") for i, c in enumerate(cotangents) if c is not None]
    wrt = [v for v in body.inputs if v.dtype.is_differentiable]
    found = vjp(outputs, given, wrt)
    gradients = [zeros_like(v) if g is None else g for v, g in zip(wrt, found, strict=True)]
    return Graph(f"{body.name}_grad", [*body.inputs, *given], gradients)


def _cond_vjp(node: Node, *cotangents: Value | None) -> tuple[Value | None, ...]:
    attrs = attrs_of(node, CondAttrs)
    branches = [_branch_vjp(g, cotangents) for g in (attrs.then, attrs.orelse)]
    given = [c for c in cotangents if c is not None]
    made = cond.node((*node.operands, *given), CondAttrs(*branches))
    gradients = iter(made.results())
    return (
        None,
        *(next(gradients) if v.dtype.is_differentiable else None for v in node.operands[1:]),
    )


cond = Op(
    "cond",
    "The outputs of `then` for these operands where the predicate holds, else those of `orelse`; "
    "only one of the two is computed.",
    ("predicate", "*xs"),
    attrs=CondAttrs,
    infer=_cond_infer,
    vjp=_cond_vjp,
    reference=lambda attrs, predicate, *xs: tuple(
        evaluate(attrs.then if predicate else attrs.orelse, xs)
    ),
    kind=Kind.CONTROL,
    weight=Weight.COSTLY,
    batch=cond_batch,
)


# while_loop ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WhileAttrs(Attrs):
    """`carries` operands change from step to step; `test` and `body` both read all operands."""

    test: Graph
    body: Graph
    carries: int


def _while_infer(attrs: WhileAttrs, *xs: Type) -> tuple[Type, ...]:
    _check_body("while_loop: the test", attrs.test, xs)
    _check_body("while_loop: the body", attrs.body, xs)
    _check_carries("while_loop", attrs.body, xs[: attrs.carries])
    if len(attrs.test.outputs) != 1 or len(attrs.body.outputs) != attrs.carries:
        raise TypeError("while_loop: the test returns one value, and the body what is carried")
    _check_predicate("while_loop", attrs.test.outputs[0].type)
    return tuple(xs[: attrs.carries])


def _while_reference(attrs: WhileAttrs, *xs: np.ndarray) -> tuple[np.ndarray, ...]:
    values = list(xs)
    while evaluate(attrs.test, values)[0]:
        values[: attrs.carries] = evaluate(attrs.body, values)
    return tuple(values[: attrs.carries])


def _while_vjp(node: Node, *cotangents: Value | None) -> tuple[Value | None, ...]:
    place = f" (recorded at {node.location})" if node.location else ""
    raise RuntimeError(
        "while_loop has no gradient: how often it repeats is known only afterwards, so "
        "nothing can be kept for a backward pass. Use scan, whose number of steps "
        f"is known, or detach what goes in{place}"
    )


while_loop = Op(
    "while_loop",
    "body repeated on the first `carries` operands for as long as `test` holds.",
    ("*xs",),
    attrs=WhileAttrs,
    infer=_while_infer,
    vjp=_while_vjp,
    reference=_while_reference,
    kind=Kind.CONTROL,
    weight=Weight.COSTLY,
    batch=while_batch,
)
