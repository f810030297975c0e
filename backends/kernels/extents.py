"""How far a kernel reads and writes for certain: the ends of its indices that are sums over loop
variables.

An index that is a sum of multiples of loop variables with constant bounds takes its least and its
greatest value, since each combination of the variables occurs. Of other indices nothing is said.
"""

from __future__ import annotations

from typing import TypeAlias

from ..dataclass import dataclass, field
from .ir import Binary, Buffer, Const, Expr, For, Let, Name

Sum: TypeAlias = tuple[int, dict[Name, int]]  # a number, and what each variable is multiplied by


@dataclass
class Extents:
    """Of the part of a kernel seen so far.

    Attributes:
        sizes: elements of the buffers whose number is known.
        last: the last element of each buffer that is touched for certain.
    """

    sizes: dict[Buffer, int] = field(default_factory=dict)
    last: dict[Buffer, int] = field(default_factory=dict)
    _ranges: dict[Name, tuple[int, int]] = field(default_factory=dict)
    _sums: dict[Name, Sum] = field(default_factory=dict)

    def loop(self, stmt: For) -> bool:
        """Enter a loop; whether it is known to run, and how often."""
        lo, hi, step = stmt.lo, stmt.hi, stmt.step
        if (
            not (type(lo) is Const and type(hi) is Const and type(step) is Const)
            or lo.value >= hi.value
        ):
            return False
        first, count = int(lo.value), -(-int(hi.value - lo.value) // int(step.value))
        self._ranges[stmt.var] = first, first + (count - 1) * int(step.value)
        return True

    def let(self, stmt: Let) -> None:
        found = self._sum(stmt.value)
        if found is not None:
            self._sums[stmt.name] = found

    def touch(self, buffer: Buffer, index: Expr, lanes: int) -> tuple[int, int]:
        """The first and the last element touched at `index` for certain; (0, -1) where that is not
        known."""
        found = self._sum(index)
        if found is None:
            return 0, -1
        first = last = found[0]
        for name, factor in found[1].items():
            low, high = self._ranges[name]
            first += factor * (low if factor > 0 else high)
            last += factor * (high if factor > 0 else low)
        last += lanes - 1
        if last > self.last.get(buffer, -1):
            self.last[buffer] = last
        return first, last

    def _sum(self, e: Expr) -> Sum | None:
        if type(e) is Const:
            return int(e.value), {}
        if type(e) is Name:
            return (0, {e: 1}) if e in self._ranges else self._sums.get(e)
        if type(e) is not Binary or e.op not in ("add", "sub", "mul"):
            return None
        a = self._sum(e.a)
        b = None if a is None else self._sum(e.b)
        if a is None or b is None:
            return None
        if e.op == "mul":
            return _scaled(a, b[0]) if not b[1] else _scaled(b, a[0]) if not a[1] else None
        return _added(a, b if e.op == "add" else _scaled(b, -1))


def _scaled(a: Sum, factor: int) -> Sum:
    return a[0] * factor, {name: n * factor for name, n in a[1].items()}


def _added(a: Sum, b: Sum) -> Sum:
    terms = dict(a[1])
    for name, n in b[1].items():
        terms[name] = terms.get(name, 0) + n
    return a[0] + b[0], terms
