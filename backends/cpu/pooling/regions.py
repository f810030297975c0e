"""Pools over regions: the bins of each region, and the pixels of each bin, follow from the data.

A feature map is laid out with its channels innermost, so that what happens at a pixel happens to a
vector of channels. Forwards, tasks are regions times blocks of channels; backwards each task owns a
block of channels and goes through all regions, so that sums are the same on any number of threads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from graphtorch.ir import ops
from graphtorch.ir.dtype import i32, i64
from graphtorch.ir.graph import Node, Value
from graphtorch.ir.ops.vision_reference import LOWEST
from graphtorch.ir.shape import Dim, Shape, numel

from ...kernels.body.pointwise import logical_not, wide
from ...kernels.body.scope import Scope, upper_bound
from ...kernels.ir import Buffer, Const, Expr, KType, binary, cast, load, select, unary
from ...kernels.program.program import Slot
from .. import cost
from ..loops.places import Places
from ..loops.tasks import task_rows
from ..whole.lines import is_used

REGIONS = (
    "roi_align",
    "roi_align_grad",
    "ps_roi_align",
    "ps_roi_align_grad",
    "roi_pool",
    "ps_roi_pool",
    "ps_roi_pool_grad",
)
FORWARD, BACKWARD = 256, 64  # channels in a block
Taps = list[tuple[Expr, "Expr | None"]]  # pixels and their weights; None for 1
Visit = Callable[[Taps], None]


def product(a: Expr, b: Expr) -> Expr:
    """Rounded by itself: a sum around it must not move a sample to another pixel."""
    return unary("rounded", binary("mul", a, b))


class Geometry(ABC):
    """The bins of one region inside a kernel.

    Attributes:
        scope, node: of the kernel.
        rois: rows of 5.
        sizes: height and width of the feature map.
        real: the type of coordinates.
        divisor: what sums of the current bin are divided by.
    """

    sensitive = False
    divisor: Expr

    def __init__(self, scope: Scope, node: Node, rois: Slot, sizes: Shape):
        self.scope, self.b, self.attrs = scope, scope.b, node.attrs
        self.rois = scope.buffer(rois)
        self.real = KType(wide(rois.dtype))
        self.height, self.width = [scope.expr(s) for s in sizes]

    def number(self, x: float) -> Const:
        return Const(float(x), self.real)

    def field(self, region: Expr, i: int) -> Expr:
        """A number of a region's row."""
        return self.b.let(cast(load(self.rois, region * 5 + i), self.real.dtype), "roi")

    def scaled(self, region: Expr, i: int) -> Expr:
        return product(self.field(region, i), self.number(self.attrs.scale))

    @abstractmethod
    def region(self, region: Expr) -> None:
        """Everything that the bins of a region have in common."""

    @abstractmethod
    def bin(self, i: Expr, j: Expr, visit: Visit) -> None:
        """Visits the taps of bin (i, j)."""


class Line:
    """The bins of one axis, with samples between pixels."""

    def __init__(self, geometry: Samples, start: Expr, length: Expr, bins: int, size: Expr):
        self.g, self.b, self.start, self.size = geometry, geometry.b, start, size
        self.step = self.b.let(binary("div", length, geometry.number(bins)), "step")
        ratio = geometry.attrs.ratio
        self.adaptive = ratio <= 0
        self.count = (
            Const(ratio) if ratio > 0 else self.b.let(self.whole(unary("ceil", self.step)), "count")
        )
        self.real = self.b.let(cast(self.count, geometry.real.dtype), "n")

    def whole(self, x: Expr) -> Expr:
        """As an integer; what lies beyond an i32 as its bound."""
        return cast(cast(x, i32), i64)

    @contextmanager
    def samples(self, i: Expr) -> Iterator[tuple[tuple[Expr, Expr], tuple[Expr, Expr]]]:
        """A loop over the samples of bin `i` that lie at the image: two pixels with their
        weights."""
        g, b = self.g, self.b
        base = b.let(binary("add", self.start, product(cast(i, g.real.dtype), self.step)), "base")
        first, last = self.range(base) if self.adaptive else (Const(0), self.count)
        with b.loop(last, "serial", "s", first) as s:
            half = binary("add", cast(s, g.real.dtype), g.number(0.5))
            within = binary("div", product(half, self.step), self.real)
            at = b.let(binary("add", base, within), "at")
            size = cast(self.size, g.real.dtype)
            inside = binary("and", binary("ge", at, g.number(-1)), binary("le", at, size))
            with b.when(inside):
                yield self.beside(at)

    def range(self, base: Expr) -> tuple[Expr, Expr]:
        """Which samples may lie at the image: their number follows from the data and may be
        anything."""
        b, g = self.b, self.g
        apart = b.let(binary("div", self.step, self.real), "apart")
        low = self.whole(unary("floor", binary("div", g.number(-1) - base, apart))) - 1
        high = (
            self.whole(unary("ceil", binary("div", cast(self.size, g.real.dtype) - base, apart)))
            + 1
        )
        return (
            b.let(binary("max", low, Const(0)), "first"),
            b.let(binary("min", high, self.count), "last"),
        )

    def beside(self, at: Expr) -> tuple[tuple[Expr, Expr], tuple[Expr, Expr]]:
        """The pixels beside a coordinate, and their weights."""
        b, g = self.b, self.g
        at = b.let(binary("max", at, g.number(0)), "at")
        top = b.let(self.size - 1, "top")
        low = b.let(cast(at, i64), "low")
        over = b.let(binary("ge", low, top), "over")
        rest = b.let(select(over, g.number(0), at - cast(low, g.real.dtype)), "rest")
        low = b.let(select(over, top, low), "low")
        high = b.let(binary("min", low + 1, top), "high")
        return (low, b.let(g.number(1) - rest, "w")), (high, rest)


class Samples(Geometry):
    """The bins of `roi_align`."""

    shifted = False

    def region(self, region: Expr) -> None:
        b = self.b
        shift = self.number(0.5 if self.shifted else 0.0)
        x1, y1, x2, y2 = [b.let(self.scaled(region, i) - shift, "end") for i in range(1, 5)]
        bins = self.attrs.size
        self.rows = Line(self, y1, self.length(y2 - y1), bins[0], self.height)
        self.columns = Line(self, x1, self.length(x2 - x1), bins[1], self.width)
        self.divisor = b.let(
            cast(self.total(self.rows.count * self.columns.count), self.real.dtype), "total"
        )

    def length(self, x: Expr) -> Expr:
        x = self.b.let(x, "length")
        return (
            x
            if self.shifted
            else self.b.let(select(binary("lt", x, self.number(1)), self.number(1), x))
        )

    def total(self, count: Expr) -> Expr:
        return binary("max", count, Const(1))

    def bin(self, i: Expr, j: Expr, visit: Visit) -> None:
        b = self.b
        with self.rows.samples(i) as rows:
            lines = [(b.let(y * self.width, "line"), w) for y, w in rows]
            with self.columns.samples(j) as columns:
                visit(
                    [
                        (b.let(line + x, "pixel"), b.let(binary("mul", wy, wx), "w"))
                        for line, wy in lines
                        for x, wx in columns
                    ]
                )


class AlignedSamples(Samples):
    shifted = True


class SensitiveSamples(AlignedSamples):
    """The bins of `ps_roi_align`."""

    sensitive = True

    def total(self, count: Expr) -> Expr:
        return count


class Pixels(Geometry):
    """The bins of `roi_pool`: whole pixels, a region's last one among them."""

    more = 1

    def region(self, region: Expr) -> None:
        x1, y1, x2, y2 = [self.rounded(self.scaled(region, i)) for i in range(1, 5)]
        bins = self.attrs.size
        self.rows, self.columns = self.span(y1, y2, bins[0]), self.span(x1, x2, bins[1])

    def rounded(self, x: Expr) -> Expr:
        """To the nearest integer, halves away from zero."""
        b = self.b
        x = b.let(x, "x")
        down = b.let(unary("trunc", x), "down")
        away = binary("ge", unary("abs", x - down), self.number(0.5))
        found = select(away, binary("add", down, binary("copysign", self.number(1), x)), down)
        return b.let(cast(cast(found, i32), i64), "whole")

    def span(self, low: Expr, high: Expr, bins: int) -> tuple[Expr, Expr]:
        """The first pixel of an axis, and how many a bin has."""
        length = binary("max", high - low + self.more, Const(1))
        step = binary("div", cast(length, self.real.dtype), self.number(bins))
        return low, self.b.let(step, "step")

    def edge(self, span: tuple[Expr, Expr], i: Expr, to: str, size: Expr) -> Expr:
        start, step = span
        at = cast(unary(to, product(cast(i, self.real.dtype), step)), i64) + start
        limit = size - (1 - self.more)
        return self.b.let(binary("min", binary("max", at, Const(0)), limit), "edge")

    def bin(self, i: Expr, j: Expr, visit: Visit) -> None:
        b = self.b
        (y0, y1), (x0, x1) = [
            (self.edge(span, k, "floor", size), self.edge(span, k + 1, "ceil", size))
            for span, k, size in ((self.rows, i, self.height), (self.columns, j, self.width))
        ]
        area = binary("max", y1 - y0, Const(0)) * binary("max", x1 - x0, Const(0))
        self.area = b.let(area, "area")
        self.divisor = b.let(cast(binary("max", self.area, Const(1)), self.real.dtype), "divisor")
        with b.loop(y1, "serial", "y", y0) as y:
            line = b.let(y * self.width, "line")
            with b.loop(x1, "serial", "x", x0) as x:
                visit([(b.let(line + x, "pixel"), None)])


class SensitivePixels(Pixels):
    """The bins of `ps_roi_pool`: without a region's last pixel, and an image's last row and
    column."""

    sensitive, more = True, 0


def geometry_of(node: Node) -> type[Geometry]:
    name = node.op.name.removesuffix("_grad")
    if name == "roi_align":
        return AlignedSamples if node.attrs.aligned else Samples
    return {"ps_roi_align": SensitiveSamples, "roi_pool": Pixels, "ps_roi_pool": SensitivePixels}[
        name
    ]


def inner_channels(x: Value, sensitive: bool, size: tuple[int, int]) -> Value:
    """x [N, C, H, W] with channels innermost, those of a bin side by side where bins have their
    own."""
    n, c, h, w = x.shape
    if not sensitive:
        return ops.permute(x, dims=(0, 2, 3, 1))
    parts = ops.reshape(x, shape=(n, c // (size[0] * size[1]), *size, h, w))
    return ops.permute(parts, dims=(0, 4, 5, 2, 3, 1))


def outer_channels(x: Value, sensitive: bool, shape: Shape) -> Value:
    """The reverse."""
    moved = ops.permute(x, dims=(0, 5, 3, 4, 1, 2) if sensitive else (0, 3, 1, 2))
    return ops.reshape(moved, shape=shape) if sensitive else moved


class RegionKernel:
    """The loops that the kernels share.

    Attributes:
        shape: of the feature map, [N, C, H, W].
        channels: of a bin.
    """

    block = FORWARD

    def __init__(self, places: Places, node: Node, shape: Shape, rois: Slot):
        self.held, self.node, self.shape, self.attrs = places, node, shape, node.attrs
        self.scope = Scope(places.lowering, node.op.name)
        self.b = self.scope.b
        self.dtype = wide(rois.dtype)
        self.rois = rois
        kind = geometry_of(node)
        bins = self.attrs.size[0] * self.attrs.size[1]
        self.channels: Dim = shape[1] // bins if kind.sensitive else shape[1]
        self.regions: Dim = node.operands[1].shape[0]
        message = f"the image of a region is out of bounds for {shape[0]} images"
        self.site = places.lowering.fail_site(node, message)

    @property
    def blocks(self) -> Dim:
        return (self.channels + (self.block - 1)) // self.block

    def begin(self) -> None:
        """Sizes and coordinates as expressions of the kernel; buffers that are written come before
        it."""
        scope = self.scope
        self.geometry = geometry_of(self.node)(scope, self.node, self.rois, self.shape[2:])
        self.depth = scope.expr(self.shape[1])
        self.own = scope.expr(self.channels)
        self.area = scope.expr(numel(self.shape[2:]))

    def work(self) -> Dim:
        """Elements that a region's bins read, of one block of channels, roughly."""
        return numel(self.attrs.size) * self.block * 16

    def channel_block(self, number: Expr) -> None:
        """The channels of block `number`."""
        self.first = self.b.let(number * self.block, "c0")
        self.count = self.b.let(upper_bound(Const(self.block), self.own - self.first), "cs")

    @contextmanager
    def region(self, region: Expr) -> Iterator[None]:
        """Inside, the bins of a region of an image that there is."""
        b = self.b
        raw = b.let(cast(self.geometry.field(region, 0), i64), "image")
        images = select(binary("gt", self.area, Const(0)), self.scope.expr(self.shape[0]), Const(0))
        valid = b.let(binary("lt_u", raw, images), "valid")
        self.scope.fails(logical_not(valid), self.site)
        with b.when(valid):
            self.image = b.let(raw * self.area, "plane")
            self.geometry.region(region)
            yield

    @contextmanager
    def bins(self) -> Iterator[tuple[Expr, Expr, Expr]]:
        """Loops over bins: row, column, and the number of the bin in the region."""
        rows, columns = self.attrs.size
        with self.b.loop(rows, "rolled", "i") as i, self.b.loop(columns, "rolled", "j") as j:
            yield i, j, self.b.let(i * columns + j, "bin")

    def start(self, pixel: Expr, bin: Expr) -> Expr:
        """Where the block's channels of a pixel begin."""
        place = (self.image + pixel) * self.depth + self.first
        return self.b.let(place + bin * self.own if self.geometry.sensitive else place, "at")

    def result(self, region: Expr, channel: Expr, bin: Expr) -> Expr:
        """Where an element of the pooled values is."""
        return ((region * self.own + self.first) + channel) * numel(self.attrs.size) + bin

    def launch(self) -> None:
        node = self.node
        moved = cost.traffic([*node.operands, *node.results()])
        self.scope.launch(node.op.name, node.types[0].numel * 16, moved)


class Pooled(RegionKernel):
    """Forward kernels: of a bin, sums or maxima of its taps."""

    def __init__(self, places: Places, node: Node):
        x, rois = node.operands
        super().__init__(places, node, x.shape, places.materialise(rois))
        moved = inner_channels(x, geometry_of(node).sensitive, self.attrs.size)
        wide_x = moved if self.dtype is x.dtype else ops.cast(moved, dtype=self.dtype)
        source = places.materialise(wide_x)
        self.outputs = {
            i: self.scope.buffer(places.result_slot(r), "write")
            for i, r in enumerate(node.results())
            if is_used(places, r)
        }
        self.x = self.scope.buffer(source)

    def emit(self) -> None:
        if 0 in (*self.node.types[0].shape, *self.shape):
            return
        self.begin()
        b, scope = self.b, self.scope
        grain = cost.grain([self.node], 4.0)
        with task_rows(scope, self.regions * self.blocks, self.work(), grain) as row:
            self.sums = b.scratch(self.dtype, self.block, "sums")
            blocks = scope.expr(self.blocks)
            region = b.let(row // blocks, "region")
            self.channel_block(row % blocks)
            with self.region(region), self.bins() as (i, j, bin):
                self.reset()
                self.geometry.bin(i, j, lambda taps: self.visit(taps, bin))
                with b.loop(self.count, "vector", "c") as c:
                    self.store(c, self.result(region, c, bin))
        self.launch()

    def reset(self) -> None:
        with self.b.loop(self.count, "vector", "c") as c:
            self.b.store(self.sums, c, Const(0.0, KType(self.dtype)))

    def visit(self, taps: Taps, bin: Expr) -> None:
        b = self.b
        starts = [(self.start(pixel, bin), weight) for pixel, weight in taps]
        with b.loop(self.count, "vector", "c") as c:
            total = load(self.sums, c)
            for at, weight in starts:
                x = load(self.x, at + c)
                total = binary("add", total, x if weight is None else binary("mul", weight, x))
            b.store(self.sums, c, total)

    def store(self, c: Expr, at: Expr) -> None:
        mean = binary("div", load(self.sums, c), self.geometry.divisor)
        self.b.store(self.outputs[0], at, cast(mean, self.outputs[0].dtype))


class Maxima(Pooled):
    """`roi_pool`: values and the places where they were found."""

    def reset(self) -> None:
        b = self.b
        self.places = b.scratch(i32, self.block, "places")
        with b.loop(self.count, "vector", "c") as c:
            b.store(self.sums, c, Const(LOWEST, KType(self.dtype)))
            b.store(self.places, c, Const(-1, KType(i32)))

    def visit(self, taps: Taps, bin: Expr) -> None:
        b = self.b
        ((pixel, _),) = taps
        at = self.start(pixel, bin)
        with b.loop(self.count, "vector", "c") as c:
            x = b.let(load(self.x, at + c), "x")
            better = b.let(binary("gt", x, load(self.sums, c)), "better")
            b.store(self.sums, c, select(better, x, load(self.sums, c)))
            b.store(self.places, c, select(better, cast(pixel, i32), load(self.places, c)))

    def store(self, c: Expr, at: Expr) -> None:
        b, geometry = self.b, self.geometry
        assert isinstance(geometry, Pixels)
        if 0 in self.outputs:
            none = binary("eq", geometry.area, Const(0))
            found = select(none, Const(0.0, KType(self.dtype)), load(self.sums, c))
            b.store(self.outputs[0], at, cast(found, self.outputs[0].dtype))
        if 1 in self.outputs:
            b.store(self.outputs[1], at, load(self.places, c))


class Spread(RegionKernel):
    """The transpose of means: each g, divided, added to the taps of its bin."""

    block = BACKWARD

    def __init__(self, places: Places, node: Node):
        g, rois = node.operands
        super().__init__(places, node, node.types[0].shape, places.materialise(rois))
        source = places.materialise(g)
        inner = inner_channels(
            Value(node.types[0].with_dtype(self.dtype), name="x"),
            geometry_of(node).sensitive,
            self.attrs.size,
        )
        self.total = Value(inner.type, name="sums")
        slot = places.lowering.temporary(self.dtype, inner.shape)
        places.slots[self.total] = slot
        self.sums: Buffer = self.scope.buffer(slot, "readwrite")
        self.g = self.scope.buffer(source)

    def emit(self) -> None:
        node, places = self.node, self.held
        if 0 not in self.shape:
            self.begin()
            grain = cost.grain([node], 4.0)
            with task_rows(self.scope, self.blocks, self.work() * self.regions, grain) as row:
                self.channel_block(row)
                self.clear()
                with self.b.loop(self.scope.expr(self.regions), "serial", "k") as k:
                    self.add(k)
            self.launch()
        turned = outer_channels(self.total, self.geometry_sensitive, self.shape)
        result = node.result()
        turned = turned if self.dtype is result.dtype else ops.cast(turned, dtype=result.dtype)
        places.fill(turned, places.result_slot(result))

    @property
    def geometry_sensitive(self) -> bool:
        return geometry_of(self.node).sensitive

    def clear(self) -> None:
        """The block's channels of all pixels become zero."""
        b, zero = self.b, Const(0.0, KType(self.dtype))
        pixels = self.scope.expr(numel((self.shape[0], *self.shape[2:])))
        own = numel(self.attrs.size) if self.geometry_sensitive else 1
        with b.loop(pixels * own, "serial", "p") as p:
            start = b.let(p * self.own + self.first, "at")
            with b.loop(self.count, "vector", "c") as c:
                b.store(self.sums, start + c, zero)

    def add(self, region: Expr) -> None:
        b = self.b
        shares = b.scratch(self.dtype, self.block, "shares")
        with self.region(region), self.bins() as (i, j, bin):
            with b.loop(self.count, "vector", "c") as c:
                b.store(shares, c, cast(load(self.g, self.result(region, c, bin)), self.dtype))

            def visit(taps: Taps) -> None:
                for pixel, weight in taps:
                    at = self.start(pixel, bin)
                    share = binary("div", weight or self.geometry.number(1), self.geometry.divisor)
                    factor = b.let(share, "factor")
                    with b.loop(self.count, "vector", "c") as c:
                        more = binary("mul", factor, load(shares, c))
                        b.store(self.sums, at + c, binary("add", load(self.sums, at + c), more))

            self.geometry.bin(i, j, visit)


def lower_regions(places: Places, node: Node) -> None:
    """One kernel for a pool over regions or its gradient, and those that move channels."""
    kind = (
        Maxima
        if node.op.name == "roi_pool"
        else Spread
        if node.op.name.endswith("_grad")
        else Pooled
    )
    kind(places, node).emit()
