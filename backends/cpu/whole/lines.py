"""Lines of an array along one of its dimensions: what a scan, a sort or a scatter works through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from graphtorch.ir.graph import Value
from graphtorch.ir.shape import Dim, Shape, numel

from ...dataclass import dataclass
from ...kernels.body.scope import Scope, upper_bound
from ...kernels.ir import Const, Expr
from .. import cost
from ..loops.places import Places
from ..loops.tasks import task_rows


@dataclass(frozen=True)
class Lines:
    """An array seen as ``[outer, length, inner]`` with the dimension in question in the middle."""

    outer: Dim
    length: Dim
    inner: Dim

    @staticmethod
    def along(dim: int, shape: Shape) -> Lines:
        """A 0-d array is one line of one element."""
        if not shape:
            return Lines(1, 1, 1)
        return Lines(numel(shape[:dim]), shape[dim], numel(shape[dim + 1 :]))

    @property
    def count(self) -> Dim:
        return self.outer * self.inner

    @property
    def elements(self) -> Dim:
        return self.outer * self.length * self.inner


def is_used(places: Places, value: Value) -> bool:
    """Whether a result of an op is read in the region or leaves it."""
    body = places.region.body
    return value in body.outputs or any(value in n.operands for n in body.nodes)


@dataclass(frozen=True)
class Columns:
    """A block of neighbouring lines that a task walks through together: `first` .. `end` of
    `outer`."""

    outer: Expr
    first: Expr
    end: Expr


def block_width(inner: Dim, work: Dim, grain: int) -> int:
    """Columns of a block such that it is worth a task with `work` elements a column; full cache
    lines."""
    width = -(-grain // max(1, cost.guess(work)) // 64) * 64 or 64
    width = max(64, min(width, 1024))
    return min(width, inner) if isinstance(inner, int) else width


@contextmanager
def column_blocks(
    scope: Scope, outer: Dim, inner: Dim, work: Dim, width: int, grain: int
) -> Iterator[Columns]:
    """Loops over `outer` and over blocks of `width` of the `inner` columns, shared between tasks.

    `work` is the number of elements of a column. Which elements a task owns does not depend on the
    number of threads.
    """
    b = scope.b
    blocks: Dim = 1 if isinstance(inner, int) and inner <= width else (inner + (width - 1)) // width
    with task_rows(scope, outer * blocks, work * width, grain) as row:
        if blocks == 1:
            yield Columns(row, Const(0), scope.expr(inner))
            return
        count = scope.expr(blocks)
        first = b.let((row % count) * width, "c0")
        yield Columns(
            b.let(row // count, "outer"),
            first,
            b.let(upper_bound(first + width, scope.expr(inner)), "c1"),
        )
