"""Chooses for each image whether its channels lie apart, [N, C, *S], or next to each other, [N, *S,
C].

Convolutions read and write neighbouring channels as vectors, of every size and stride of an image;
what comes between them does not care. What the graph is given and gives, and what other ops read,
stays as it is, so that values have to be turned somewhere: the division into images of the two
orders for which that costs least is a minimum cut (`cut`), whose edges are values, at the bytes
that turning them moves, and convolutions, at what they lose where channels lie apart.

Images in the new order are other values, of permuted shape; a `permute` stands wherever one is
turned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from .. import ops
from ..cut import ENDLESS, Cut
from ..dataclass import dataclass
from ..graph import Graph, Node, Value, located
from ..op import Kind, Op
from ..ops.channels_last import first_dims, from_channels_last, last_dims, to_channels_last
from ..ops.checks import attrs_of
from ..ops.common import count
from ..ops.pool import AdaptiveAttrs
from ..ops.reduce import Reduce
from ..ops.shape import DimAttrs, DimsAttrs, PadAttrs, SliceAttrs
from ..shape import SIDE, Dim, likely
from .legalize import Supports
from .limits import Limits

CONVOLUTIONS: dict[Op, Op] = {
    ops.conv: ops.channels_last_conv,
    ops.conv_transpose: ops.channels_last_conv_transpose,
    ops.conv_weight_grad: ops.channels_last_conv_weight_grad,
}
WINDOWS = (
    ops.max_pool,
    ops.max_pool_grad,
    ops.max_pool_input_grad,
    ops.avg_pool,
    ops.avg_pool_grad,
)
UNKNOWN = 8  # what the symbol of a batch counts as
ALONE = 1.5  # times as long as for each of several, it takes to sum a pixel's only vector
# bytes: what convolutions lose by less takes no longer than starting to turn images
LEAST = 1 << 17
FLOPS = 8  # floating-point operations in the time of moving a byte

ANY = Limits()

Make: TypeAlias = Callable[[Sequence[Value]], tuple[Value, ...]]


@dataclass(frozen=True)
class Way:
    """How a node is computed of images in the new order.

    `images` says of each operand whether it is one, `gives` of each result; `make` takes all
    operands, and `apart` and `beside` are what the node loses in the old and in the new order, in
    bytes.
    """

    images: tuple[bool, ...]
    gives: tuple[bool, ...]
    make: Make
    apart: float = 0
    beside: float = 0


def run(graph: Graph, supports: Supports, limits: Limits = ANY) -> Graph:
    """`graph` with images in the order that costs least, for a target that takes
    `channels_last_conv` and reads `limits.neighbours` channels at a time."""
    found = [n for n in graph.nodes if n.op in CONVOLUTIONS and _is_taken(n, supports)]
    if not found:
        return graph
    ranks = frozenset(n.operands[0].rank for n in found)
    ways = {
        n: way
        for n in graph.nodes
        if (way := _way(n, ranks, supports, limits.neighbours)) is not None
    }
    chosen = _chosen(graph, ways)
    return (
        _rewritten(graph, {n: way for n, way in ways.items() if n in chosen}) if chosen else graph
    )


# ------------------------------------------------------------------------------------- single nodes


def _is_taken(node: Node, supports: Supports) -> bool:
    return node.types[0].dtype.is_floating_point and supports(_convolution(node))


def _way(node: Node, ranks: frozenset[int], supports: Supports, vector: int) -> Way | None:
    """How `node` works on images of `ranks` in the new order, `vector` channels at a time; None
    where it does not."""
    rank = max((t.rank for t in (*node.types, *[v.type for v in node.operands])), default=0)
    if rank not in ranks:
        return None
    if node.op in CONVOLUTIONS:
        return _of_convolution(node, vector) if _is_taken(node, supports) else None
    if node.op in WINDOWS:
        return _of_window(node, supports, vector)
    if node.op is ops.adaptive_avg_pool:
        return _of_mean(node, rank)
    if node.op.kind is Kind.POINTWISE:
        return _of_pointwise(node, rank)
    if node.op.kind is Kind.REDUCTION and isinstance(node.attrs, Reduce):
        return _of_reduction(node, node.attrs, rank)
    if node.op in MOVES:
        attrs = MOVES[node.op](node, last_dims(rank))
        return Way(
            (True,) * len(node.operands), (True,), lambda v: node.op.node(tuple(v), attrs).results()
        )
    return None


def _convolution(node: Node) -> Node:
    """The same of images in the new order."""
    count = 2 if node.op is ops.conv_weight_grad else 1
    given = [to_channels_last(v) if i < count else v for i, v in enumerate(node.operands)]
    return CONVOLUTIONS[node.op].node(tuple(given), node.attrs)


def _of_convolution(node: Node, vector: int) -> Way:
    grad = node.op is ops.conv_weight_grad
    images = tuple(i < (2 if grad else 1) for i in range(len(node.operands)))
    op, attrs = CONVOLUTIONS[node.op], node.attrs
    x, y = node.operands[0], node.operands[1] if grad else node.result()
    moved = _bytes(x) + _bytes(y)
    groups: int = getattr(attrs, "groups")  # noqa: B009  (of three records)
    each = [likely(v.shape[1], SIDE) / groups for v in (x, y)]
    if each == [1, 1]:  # depthwise: vectors along channels only
        return Way(images, (not grad,), lambda v: op.node(tuple(v), attrs).results(), 3 * moved)
    kernel: Sequence[Dim] = node.types[0].shape[2:] if grad else node.operands[1].shape[2:]
    taps = 1.0
    for k in kernel:
        taps *= likely(k, SIDE)
    flops = 2 * _elements(y) * each[0] * taps
    wasted = flops / FLOPS * _waste(each[1], vector)
    strided = taps > 1 and max(attrs.stride) > 1  # type: ignore[attr-defined]
    return Way(
        images,
        (not grad,),
        lambda v: op.node(tuple(v), attrs).results(),
        moved * (2 if strided else 1),
        wasted,
    )


def _waste(channels: float, vector: int) -> float:
    """How much longer than for full vectors of neighbouring channels it takes for so many."""
    if vector == 1:
        return 0
    vectors = math.ceil(channels / vector)
    return vectors * vector / channels * (ALONE if vectors == 1 else 1) - 1


def _of_window(node: Node, supports: Supports, vector: int) -> Way | None:
    """A pool of images in the new order, or its gradient, is one of images of a single channel with
    a dimension more, along which windows have one element."""
    attrs: Any = node.attrs
    ends = {
        "kernel": 1,
        "stride": 1,
        "padding": 0,
        "dilation": 1,
        "spatial": node.operands[0].shape[1],
    }
    given = {f: (*getattr(attrs, f), value) for f, value in ends.items() if getattr(attrs, f, ())}
    made = replace(attrs, **given)

    def deeper(v: Sequence[Value]) -> Node:
        return node.op.node(
            tuple([ops.reshape(x, shape=(x.shape[0], 1, *x.shape[1:])) for x in v]), made
        )

    def make(v: Sequence[Value]) -> tuple[Value, ...]:
        return tuple(
            [ops.reshape(y, shape=(y.shape[0], *y.shape[2:])) for y in deeper(v).results()]
        )

    if not supports(deeper([to_channels_last(x) for x in node.operands])):
        return None
    given_bytes = max(_bytes(x) for x in node.operands)
    wasted = given_bytes * _waste(likely(node.operands[0].shape[1], SIDE), vector)
    return Way((True,) * len(node.operands), (True,) * len(node.types), make, beside=wasted)


def _of_mean(node: Node, rank: int) -> Way | None:
    """A pool to one element, in full precision."""
    if set(attrs_of(node, AdaptiveAttrs).output_size) != {1} or node.types[0].dtype.itemsize < 4:
        return None
    spatial = tuple(range(1, rank - 1))

    def make(v: Sequence[Value]) -> tuple[Value, ...]:
        total = ops.sum(v[0], dims=spatial, keepdim=True)
        return (ops.div(total, count(v[0], spatial, total.dtype)),)

    return Way((True,), (True,), make)


def _of_pointwise(node: Node, rank: int) -> Way | None:
    if node.types[0].rank != rank:
        return None

    def make(v: Sequence[Value]) -> tuple[Value, ...]:
        given = [
            x if whole or not x.rank else _turned_vector(x, rank)
            for x, whole in zip(v, images, strict=True)
        ]
        return node.op.node(tuple(given), node.attrs).results()

    images = tuple(v.rank == rank for v in node.operands)
    return Way(images, (True,) * len(node.types), make)


def _turned_vector(x: Value, rank: int) -> Value:
    """An operand of fewer dimensions, which stand for the last ones of an image."""
    return to_channels_last(ops.reshape(x, shape=(1,) * (rank - x.rank) + x.shape))


def _of_reduction(node: Node, attrs: Reduce, rank: int) -> Way | None:
    """Of a reduction that leaves dimensions in the order in which it found them."""
    if node.operands[0].rank != rank or len(node.operands) != 1:
        return None
    if not attrs.keepdim and 1 not in attrs.dims and not set(range(2, rank)) <= set(attrs.dims):
        return None
    place = last_dims(rank)
    turned = replace(attrs, dims=tuple(sorted(place.index(d) for d in attrs.dims)))
    return Way(
        (True,),
        (attrs.keepdim,) * len(node.types),
        lambda v: node.op.node(tuple(v), turned).results(),
    )


def _concat(node: Node, order: tuple[int, ...]) -> DimAttrs:
    return replace(attrs_of(node, DimAttrs), dim=order.index(attrs_of(node, DimAttrs).dim))


def _pad(node: Node, order: tuple[int, ...]) -> PadAttrs:
    attrs = attrs_of(node, PadAttrs)
    low, high = (tuple([field[d] for d in order]) for field in (attrs.low, attrs.high))
    return replace(attrs, low=low, high=high)


def _slice(node: Node, order: tuple[int, ...]) -> SliceAttrs:
    attrs = attrs_of(node, SliceAttrs)
    start, stop, step = (
        tuple([field[d] for d in order]) for field in (attrs.start, attrs.stop, attrs.step)
    )
    return SliceAttrs(start, stop, step)  # type: ignore[arg-type]


MOVES: dict[Op, Callable[[Node, tuple[int, ...]], Any]] = {
    ops.concat: _concat,
    ops.pad: _pad,
    ops.slice: _slice,
}


# --------------------------------------------------------------------------------------- the choice


def _chosen(graph: Graph, ways: dict[Node, Way]) -> set[Node]:
    """The nodes that work on images in the new order."""
    cut = Cut()
    place = {n: cut.node() for n in ways}
    for node, way in ways.items():
        cut.edge(place[node], cut.sink, way.apart)
        cut.edge(cut.source, place[node], way.beside)
    for value, readers in _readers(graph, ways).items():
        made = cut.source if value.node is None else _side(value, ways, place, cut)
        _connect(
            cut,
            made,
            [
                place[r]
                if isinstance(r, Node) and r in place
                else cut.sink
                if r is not None and _turns(r, value)
                else cut.source
                for r in readers
            ],
            ENDLESS if _is_position(value, readers) else 2 * _bytes(value),
        )
    side = cut.sink_side()
    chosen = {n for n in ways if place[n] in side}
    return chosen if sum(ways[n].apart for n in chosen) >= LEAST else set()


def _is_position(value: Value, readers: Sequence[Node | None]) -> bool:
    """Whether a value means something else in the other order: whoever reads it works in the
    same, and so does a reader of what another graph has found."""
    found = value.index == 1 and value.node is not None and value.node.op is ops.max_pool
    return found or any(
        r is not None and r.op is ops.max_pool_grad and r.operands[1] == value for r in readers
    )


def _connect(cut: Cut, made: int, readers: Sequence[int], cost: float) -> None:
    """Turning a value costs once, whoever reads it in the other order."""
    if len(set(readers)) == 1:
        cut.edge(made, readers[0], cost)
        cut.edge(readers[0], made, cost)
        return
    turned, back = cut.node(), cut.node()
    cut.edge(made, turned, cost)
    cut.edge(back, made, cost)
    for reader in set(readers):
        cut.edge(turned, reader, ENDLESS)
        cut.edge(reader, back, ENDLESS)


def _side(value: Value, ways: dict[Node, Way], place: dict[Node, int], cut: Cut) -> int:
    """The side on which a value is made."""
    node = value.node
    assert node is not None
    if node in ways:
        return place[node] if ways[node].gives[value.index] else cut.source
    return cut.sink if _is_turn(node, first_dims) else cut.source


def _readers(graph: Graph, ways: dict[Node, Way]) -> dict[Value, list[Node | None]]:
    """Who reads each image, None for the graph's own outputs; only values that a way is about."""
    found: dict[Value, list[Node | None]] = {}
    for node, way in ways.items():
        for value, image in zip(node.operands, way.images, strict=True):
            if image:
                found.setdefault(value, []).append(node)
        for value, image in zip(node.results(), way.gives, strict=True):
            if image:
                found.setdefault(value, [])
    for node in graph.nodes:
        for i, value in enumerate(node.operands):
            if value in found and (node not in ways or not ways[node].images[i]):
                found[value].append(None if node in ways else node)
    for value in graph.outputs:
        if value in found:
            found[value].append(None)
    return {v: readers for v, readers in found.items() if readers}


def _is_turn(node: Node, dims: Callable[[int], tuple[int, ...]]) -> bool:
    # of three dimensions both orders are turned alike: it is one to the new order
    rank = node.types[0].rank
    return (
        node.op is ops.permute
        and rank > (3 if dims is first_dims else 2)
        and attrs_of(node, DimsAttrs).dims == dims(node.types[0].rank)
    )


def _turns(node: Node, value: Value) -> bool:
    """Whether a node only reads `value` in the new order."""
    return _is_turn(node, last_dims) and node.operands[0] == value


def _elements(value: Value) -> float:
    total = float(likely(value.shape[0], UNKNOWN)) if value.shape else 1.0
    for d in value.shape[1:]:
        total *= likely(d, SIDE)
    return total


def _bytes(value: Value) -> float:
    return _elements(value) * value.dtype.itemsize


# ------------------------------------------------------------------------------------ the new graph


class _Orders:
    """Values of the new graph, in either order, for values of the old one."""

    def __init__(self) -> None:
        self.plain: dict[Value, Value] = {}
        self.last: dict[Value, Value] = {}

    def in_plain(self, value: Value) -> Value:
        found = self.plain.get(value)
        if found is None:
            turned = self.last.get(value)
            found = self.plain[value] = value if turned is None else from_channels_last(turned)
        return found

    def in_last(self, value: Value) -> Value:
        found = self.last.get(value)
        if found is None:
            found = self.last[value] = to_channels_last(self.in_plain(value))
        return found


def _rewritten(graph: Graph, ways: dict[Node, Way]) -> Graph:
    orders = _Orders()
    for node in graph.nodes:
        with located(node.location):
            way = ways.get(node)
            if way is not None:
                given = [
                    orders.in_last(v) if image else orders.in_plain(v)
                    for v, image in zip(node.operands, way.images, strict=True)
                ]
                made = way.make(given)
                for old, new, image in zip(node.results(), made, way.gives, strict=True):
                    (orders.last if image else orders.plain)[old] = new
            elif _is_turn(node, last_dims):
                orders.plain[node.result()] = orders.in_last(node.operands[0])
            elif _is_turn(node, first_dims):
                orders.last[node.result()] = orders.in_plain(node.operands[0])
            else:
                operands = tuple([orders.in_plain(v) for v in node.operands])
                if operands != node.operands:
                    orders.plain.update(
                        zip(node.results(), node.with_operands(operands).results(), strict=True)
                    )
    return graph.with_outputs([orders.in_plain(v) for v in graph.outputs])
