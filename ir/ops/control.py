"""Ops that hold a graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..evaluate import evaluate
from ..graph import Graph, Node, Type, Value
from ..op import Attrs, NoGradient, Op
from .checks import attrs_of

__all__ = ["region"]


@dataclass(frozen=True)
class RegionAttrs(Attrs):
    """kind says how the body runs (loop, contraction, ...); body's inputs are the operands, by position."""

    kind: str
    body: Graph


def _region_infer(attrs: RegionAttrs, *xs: Type) -> tuple[Type, ...]:
    expected = [v.type for v in attrs.body.inputs]
    if list(xs) != expected:
        raise TypeError(f"region {attrs.kind}: the body takes {expected}, but the operands are {list(xs)}")
    return tuple(v.type for v in attrs.body.outputs)


def _region_reference(attrs: RegionAttrs, *xs: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(evaluate(attrs.body, xs))


def inline(body: Graph, operands: tuple[Value, ...]) -> tuple[Value, ...]:
    """The body's outputs computed from `operands`, as nodes of the graph that surrounds it."""
    table: dict[Value, Value] = dict(zip(body.inputs, operands, strict=True))
    for node in body.nodes:
        made = node.with_operands(tuple(table[v] for v in node.operands))
        table.update(zip(node.results(), made.results(), strict=True))
    return tuple(table[v] for v in body.outputs)


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
)
