"""Bilinear samples at coordinates, and their gradients: gathers in blocks of samples.

The pixels and weights of a block are computed once into scratch, then read for one channel after
the other. The gradient of the image adds at computed places, so each task owns planes; those of the
coordinates are sums over channels, block by block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from graphtorch.ir.dtype import i64
from graphtorch.ir.graph import Node
from graphtorch.ir.shape import Dim, numel

from ...kernels.body.pointwise import wide
from ...kernels.body.scope import Scope, upper_bound
from ...kernels.ir import Buffer, Const, Expr, KType, binary, cast, load, select, unary
from ...kernels.program.program import Slot
from .. import cost
from ..loops.places import Places
from ..loops.tasks import task_rows
from .lines import is_used

BLOCK = 256  # samples
CHANNELS = 8  # planes whose gradients a task computes at least


def lower_sample(places: Places, node: Node) -> None:
    """One kernel."""
    slots = list(map(places.materialise, node.operands))
    out = places.result_slot(node.result())
    if 0 not in node.types[0].shape:
        Samples(places, node, slots, {0: out}).emit()


def lower_sample_grad(places: Places, node: Node) -> None:
    """One kernel for the image, another for the coordinates, where they are used."""
    slots = list(map(places.materialise, node.operands))
    image, *coordinates = node.results()
    if is_used(places, image):
        lower_image_grad(places, node, slots)
    outs = {i: places.result_slot(v) for i, v in enumerate(coordinates) if is_used(places, v)}
    if outs and 0 not in coordinates[0].shape:
        CoordinateGrad(places, node, slots, outs).emit()


def lower_image_grad(places: Places, node: Node, slots: list[Slot]) -> None:
    out = places.result_slot(node.result(0))
    if 0 not in out.shape:
        ImageGrad(places, node, slots, {0: out}).emit()


class SampleKernel:
    """What the kernels share: the corners of a block of samples in scratch.

    `corners` are pairs of a row and a column beside the sample; places lie in the plane, weights
    are zero outside it.
    """

    def __init__(
        self, places: Places, node: Node, slots: list[Slot], outs: dict[int, Slot], access: str
    ):
        self.node = node
        self.scope = Scope(places.lowering, node.op.name)
        self.b = self.scope.b
        self.outs = {i: self.scope.buffer(slot, access) for i, slot in outs.items()}
        *g, x, rows, columns = slots
        self.g: Buffer | None = self.scope.buffer(g[0]) if g else None
        self.x, self.rows, self.columns = map(self.scope.buffer, (x, rows, columns))
        self.dtype = wide(x.dtype)
        self.real = KType(self.dtype)
        image, at = node.operands[-3:-1]  # a slot may have its bytes under another shape
        self.images, self.channels, self.height, self.width = image.shape
        self.samples: Dim = numel(at.shape[1:])

    @property
    def blocks(self) -> Dim:
        return (self.samples + (BLOCK - 1)) // BLOCK

    def number(self, x: float) -> Const:
        return Const(float(x), self.real)

    def begin(self) -> None:
        sizes = self.channels, self.samples, self.height, self.width, self.height * self.width
        self.c, self.s, self.h, self.w, self.area = map(self.scope.expr, sizes)

    def scratches(self) -> None:
        b = self.b
        self.places = [b.scratch(i64, BLOCK, "at") for _ in range(4)]
        self.factors = [b.scratch(self.dtype, BLOCK, "w") for _ in range(4)]

    def block(self, number: Expr) -> None:
        """Which samples are in block `number`."""
        self.first = self.b.let(number * BLOCK, "s0")
        self.count = self.b.let(upper_bound(Const(BLOCK), self.s - self.first), "ss")

    def corners(self, image: Expr, factors: Callable[..., list[Expr]]) -> None:
        """Fill the scratches for the block: the places of the four corners, and numbers that go
        with them."""
        b = self.b
        base = b.let(image * self.s + self.first, "base")
        with b.loop(self.count, "vector", "s") as s:
            y, x = [
                self.sides(load(source, base + s), size)
                for source, size in ((self.rows, self.h), (self.columns, self.w))
            ]
            for k, place in enumerate(self.pairs(y[0], x[0], lambda p, q: p * self.w + q)):
                b.store(self.places[k], s, place)
            for k, factor in enumerate(factors(y[1:], x[1:])):
                b.store(self.factors[k], s, factor)

    def pairs(self, y: list[Expr], x: list[Expr], join: Callable[[Expr, Expr], Expr]) -> list[Expr]:
        return [join(p, q) for p in y for q in x]

    def sides(self, at: Expr, size: Expr) -> tuple[list[Expr], list[Expr], list[Expr]]:
        """The pixels beside a coordinate: places inside the image, weights, and 1 where it has
        them."""
        b = self.b
        at = b.let(cast(at, self.dtype), "at")
        low = b.let(unary("floor", at), "low")
        rest = b.let(at - low, "rest")
        top = cast(size - 1, self.dtype)
        places, weights, there = [], [], []
        for pixel, weight in ((low, self.number(1) - rest), (low + self.number(1), rest)):
            pixel = b.let(pixel, "pixel")
            inside = b.let(
                binary("and", binary("ge", pixel, self.number(0)), binary("le", pixel, top)), "in"
            )
            place = select(inside, cast(pixel, i64), Const(0))
            places.append(b.let(place, "place"))
            weights.append(b.let(select(inside, weight, self.number(0)), "w"))
            there.append(select(inside, self.number(1), self.number(0)))
        return places, weights, there

    def weights(self, y: list[list[Expr]], x: list[list[Expr]]) -> list[Expr]:
        return self.pairs(y[0], x[0], lambda p, q: binary("mul", p, q))

    def pixel(self, k: int, s: Expr) -> Expr:
        return load(self.places[k], s)

    def factor(self, k: int, s: Expr) -> Expr:
        return load(self.factors[k], s)

    def given(self, at: Expr) -> Expr:
        assert self.g is not None
        return cast(load(self.g, at), self.dtype)

    @contextmanager
    def blocks_of_samples(self, work: int) -> Iterator[Expr]:
        """A task for each block of the samples of an image, which it gives; `work`: of a sample's
        channel."""
        self.begin()
        grain = cost.grain([self.node], 4.0)
        with task_rows(
            self.scope, self.images * self.blocks, self.channels * (work * BLOCK), grain
        ) as row:
            self.scratches()
            blocks = self.scope.expr(self.blocks)
            image = self.b.let(row // blocks, "image")
            self.block(row % blocks)
            yield image

    def launch(self) -> None:
        work = self.images * self.channels * self.samples * 8
        self.scope.launch(
            self.node.op.name, work, cost.traffic([*self.node.operands, *self.node.results()])
        )


class Samples(SampleKernel):
    """[N, C, S]: tasks are blocks of the samples of an image."""

    def __init__(self, places: Places, node: Node, slots: list[Slot], outs: dict[int, Slot]):
        super().__init__(places, node, slots, outs, "write")

    def emit(self) -> None:
        b = self.b
        with self.blocks_of_samples(4) as image:
            self.corners(image, self.weights)
            with b.loop(self.c, "serial", "c") as c:
                plane = b.let(image * self.c + c, "plane")
                source, target = (
                    b.let(plane * self.area, "x"),
                    b.let(plane * self.s + self.first, "y"),
                )
                with b.loop(self.count, "vector", "s") as s:
                    total: Expr | None = None
                    for k in range(4):
                        value = cast(load(self.x, source + self.pixel(k, s)), self.dtype)
                        part = binary("mul", self.factor(k, s), value)
                        total = part if total is None else binary("add", total, part)
                    assert total is not None
                    b.store(self.outs[0], target + s, cast(total, self.outs[0].dtype))
        self.launch()


class ImageGrad(SampleKernel):
    """[N, C, H, W]: g spread over the corners of its sample; tasks are groups of planes."""

    def __init__(self, places: Places, node: Node, slots: list[Slot], outs: dict[int, Slot]):
        self.short = wide(outs[0].dtype) is not outs[0].dtype
        sums = (
            places.lowering.temporary(wide(outs[0].dtype), outs[0].shape) if self.short else outs[0]
        )
        super().__init__(places, node, slots, {0: sums}, "readwrite")
        if self.short:
            self.target = self.scope.buffer(outs[0], "write")

    def emit(self) -> None:
        b = self.b
        self.begin()
        groups = (self.channels + (CHANNELS - 1)) // CHANNELS
        grain = cost.grain([self.node], 4.0)
        work = (self.samples * 4 + self.height * self.width) * CHANNELS
        with task_rows(self.scope, self.images * groups, work, grain) as row:
            self.scratches()
            count = self.scope.expr(groups)
            image = b.let(row // count, "image")
            low = b.let((row % count) * CHANNELS, "c0")
            high = b.let(upper_bound(low + CHANNELS, self.c), "c1")
            first, last = [b.let((image * self.c + c) * self.area, "p") for c in (low, high)]
            with b.loop(last, "vector", "p", first) as p:
                b.store(self.outs[0], p, self.number(0))
            with b.loop(self.scope.expr(self.blocks), "serial", "block") as number:
                self.block(number)
                self.corners(image, self.weights)
                with b.loop(high, "serial", "c", low) as c:
                    self.add(b.let(image * self.c + c, "plane"))
            if self.short:
                with b.loop(last, "vector", "p", first) as p:
                    b.store(self.target, p, cast(load(self.outs[0], p), self.target.dtype))
        self.launch()

    def add(self, plane: Expr) -> None:
        """One channel of the block, sample by sample: neighbours may share pixels."""
        b, out = self.b, self.outs[0]
        target, source = b.let(plane * self.area, "x"), b.let(plane * self.s + self.first, "y")
        with b.loop(self.count, "serial", "s") as s:
            g = b.let(self.given(source + s), "g")
            for k in range(4):
                at = b.let(target + self.pixel(k, s), "at")
                b.store(out, at, binary("add", load(out, at), binary("mul", self.factor(k, s), g)))


class CoordinateGrad(SampleKernel):
    """[N, S] for rows (0) and columns (1): sums over channels of g times how fast the sample
    changes."""

    def __init__(self, places: Places, node: Node, slots: list[Slot], outs: dict[int, Slot]):
        super().__init__(places, node, slots, outs, "write")

    def emit(self) -> None:
        b = self.b
        with self.blocks_of_samples(8) as image:
            self.sums = [b.scratch(self.dtype, BLOCK, "corner") for _ in range(4)]
            with b.loop(self.count, "vector", "s") as s:
                for buffer in self.sums:
                    b.store(buffer, s, self.number(0))
            self.corners(image, self.weights)
            with b.loop(self.c, "serial", "c") as c:
                self.add(b.let(image * self.c + c, "plane"))
            self.finish(image)
        self.launch()

    def add(self, plane: Expr) -> None:
        """g times the pixel of each corner, summed over channels."""
        b = self.b
        source, given = b.let(plane * self.area, "x"), b.let(plane * self.s + self.first, "y")
        with b.loop(self.count, "vector", "s") as s:
            g = b.let(self.given(given + s), "g")
            for k, buffer in enumerate(self.sums):
                value = cast(load(self.x, source + self.pixel(k, s)), self.dtype)
                b.store(buffer, s, binary("add", load(buffer, s), binary("mul", g, value)))

    def finish(self, image: Expr) -> None:
        """From sums at the corners to slopes along rows and columns."""
        b = self.b
        base = b.let(image * self.s + self.first, "base")
        with b.loop(self.count, "vector", "s") as s:
            (_, wy, iy), (_, wx, ix) = [
                self.sides(load(source, base + s), size)
                for source, size in ((self.rows, self.h), (self.columns, self.w))
            ]
            dy, dx = ([unary("neg", low), high] for low, high in (iy, ix))
            for out, (along, across) in enumerate(((dy, wx), (wy, dx))):
                if out not in self.outs:
                    continue
                total: Expr = self.number(0)
                for k, factor in enumerate(
                    self.pairs(along, across, lambda p, q: binary("mul", p, q))
                ):
                    total = binary("add", total, binary("mul", factor, load(self.sums[k], s)))
                b.store(self.outs[out], base + s, cast(total, self.outs[out].dtype))
