"""What becomes of finished sums, some of a thread at a time.

What a result needs besides its sum is read for all of them before the first is stored: the loads
are on their way together. One after another each would be waited for, as a store may change what is
read after it, for all that the compiler knows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from graphtorch.ir.shape import Dim

from ...cpu.contraction.writer import ResultWriter
from ...kernels.body.access import Reader
from ...kernels.body.scope import Scope
from ...kernels.builder import Block
from ...kernels.contraction.problem import Contraction
from ...kernels.ir import Buffer, Const, Expr, Stmt, load
from ...kernels.program.lowering import Region
from ...kernels.program.program import Slot

# binds the variables where a result of a thread stands, and says whether it is inside; None: it is
Place = Callable[[Expr], "Expr | None"]


class Finish(ABC):
    """Takes the sums of a block's threads.

    Attributes:
        reads: about how many arrays results are made of besides sums.
    """

    reads = 0

    def __init__(self, e: Scope):
        self.e = e

    @contextmanager
    def batch(self, count: int, place: Place) -> Iterator[None]:
        """Results that stand at `place` of their number; what they need is read ahead of all that
        is emitted inside."""
        self.count, self.place = count, place
        yield

    @contextmanager
    def each(self, first: int = 0, count: int | None = None) -> Iterator[Expr]:
        """A loop over `count` of the thread's results of a batch, all by default, which gives their
        numbers from 0 on: what is emitted inside hands a sum over."""
        b = self.e.b
        with b.loop(self.count if count is None else count, "unroll") as i:
            self.number = i + first if first else i
            inside = self.place(self.number)
            with nullcontext() if inside is None else b.when(inside):
                yield i

    @abstractmethod
    def __call__(self, value: Expr) -> None:
        """Finish a sum."""


class Partial(Finish):
    """Sums of a part of k are stored as they are."""

    def __init__(self, e: Scope, slot: Slot, address: Dim):
        super().__init__(e)
        self.slot, self.address = slot, address

    def __call__(self, value: Expr) -> None:
        e = self.e
        e.b.store(e.buffer(self.slot, "write", "partial"), e.expr(self.address), value)


class Results(Finish):
    """The region's epilogue is applied, and its results are stored."""

    def __init__(self, e: Scope, p: Contraction, region: Region):
        super().__init__(e)
        self.writer = ResultWriter(e, p, region)
        self.writer.reader = self.reader = _Ahead(self.writer.reader)
        self.reads = extra(p, region)

    def __call__(self, value: Expr) -> None:
        self.reader.memo.clear()
        self.writer.element(value, {}, None, 1)

    @contextmanager
    def batch(self, count: int, place: Place) -> Iterator[None]:
        b = self.e.b
        block = b.block(b.depth)
        start = len(block)
        self.reader.begin(count, place)
        with super().batch(count, place):
            yield
        block[start:start] = self.reader.loads

    @contextmanager
    def each(self, first: int = 0, count: int | None = None) -> Iterator[Expr]:
        with super().each(first, count) as i:
            self.reader.number = self.number
            yield i


class _Ahead(Reader):
    """Reads elements of the results of a batch before the first of these is stored."""

    def __init__(self, like: Reader):
        super().__init__(like.b, like.space, like.buffer_of)

    def begin(self, count: int, place: Place) -> None:
        self.count, self.place = count, place
        self.number: Expr = Const(0)
        self.loads: list[Stmt] = []
        self.held: dict[tuple[Buffer, Dim], Buffer] = {}

    def _load(self, address: Dim, buffer: Buffer) -> Expr:
        key = buffer, address
        if key not in self.held:
            self.held[key] = self._ahead(address, buffer)
        return load(self.held[key], self.number)

    def _ahead(self, address: Dim, buffer: Buffer) -> Buffer:
        """Let an element of each result be read into a register of its own."""
        b, env = self.b, self.space.env
        now, depths = dict(env), dict(self.space.depths)
        with Block(b, self.loads, None):
            held = b.scratch(buffer.dtype, self.count, f"{buffer.name}_v")
            with b.loop(self.count, "unroll") as i:
                inside = self.place(i)
                value = load(buffer, self.space.base(address), mask=inside)
                b.store(held, i, value)
        env.update(now)
        self.space.depths.update(depths)
        return held


def extra(p: Contraction, region: Region) -> int:
    """About how many arrays besides the sums the results are made of."""
    return max(0, len(region.operands) - len(p.node.operands))
