"""Which threads of a block have the same value, and so take the same way: what barriers and warps
rely on.

A name is *varying* where threads may disagree on it: the variable of a thread loop, what is
computed from one, what is read from memory of the thread's own, and what is assigned under a
condition that varies. Among the threads of a warp the quotient of a thread's number by a multiple
of 32 does not vary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields

from . import ir as k

WARP = 32


class Varying:
    """What varies in a block loop, among the threads of the block or (`warp`) of a warp alone."""

    def __init__(self, loop: k.For, warp: bool):
        self.warp = warp
        self.names: set[k.Name] = set()
        self._numbers: set[k.Name] = set()  # of threads, counted from a multiple of 32
        self._private = {
            s.buffer for s in k.walk(loop.body) if isinstance(s, k.Scratch) and s.space == "private"
        }
        before = -1
        while before != len(self.names):
            before = len(self.names)
            self._block(loop.body, False)

    def varies(self, e: k.Expr) -> bool:
        """Whether threads may disagree on `e`."""
        if isinstance(e, k.Name):
            return e in self.names
        if isinstance(e, k.Load) and e.buffer in self._private:
            return True
        if self.warp and self._is_warp_number(e):
            return False
        if self.warp and isinstance(e, k.WarpReduce) and e.width == WARP:
            return False
        return any(self.varies(x) for x in operands(e))

    def _is_warp_number(self, e: k.Expr) -> bool:
        return (
            isinstance(e, k.Binary)
            and e.op == "div"
            and e.a in self._numbers
            and isinstance(e.b, k.Const)
            and e.b.value > 0
            and e.b.value % WARP == 0
        )

    def _block(self, body: Sequence[k.Stmt], under: bool) -> None:
        for s in body:
            if isinstance(s, k.For):
                if s.kind == "thread":
                    self.names.add(s.var)
                    if all_lanes(s):
                        self._numbers.add(s.var)
                elif self._any((s.lo, s.hi, s.step), under):
                    self.names.add(s.var)
                self._block(s.body, self.loop_varies(s, under))
            elif isinstance(s, (k.Let, k.Var, k.Assign)):
                if self._any((s.value,), under and not isinstance(s, k.Let)):
                    self.names.add(s.name)
            elif isinstance(s, k.If):
                inside = self._any((s.condition,), under)
                self._block(s.then, inside)
                self._block(s.orelse, inside)
            elif isinstance(s, k.While):
                self._block(s.body, self._any((s.condition,), under))

    def _any(self, expressions: Sequence[k.Expr], under: bool) -> bool:
        return under or any(map(self.varies, expressions))

    def loop_varies(self, s: k.For, under: bool) -> bool:
        """Whether threads may come to different iterations of a loop, or run a different number of
        them."""
        if s.kind != "thread":
            return self._any((s.lo, s.hi, s.step), under)
        return under or not (self.warp and all_lanes(s))


def all_lanes(s: k.For) -> bool:
    """Whether whole warps have the iterations of a thread loop, each thread that of its own
    number."""
    lo, hi, step = s.lo, s.hi, s.step
    return (
        isinstance(lo, k.Const)
        and isinstance(hi, k.Const)
        and isinstance(step, k.Const)
        and step.value == 1
        and lo.value % WARP == hi.value % WARP == 0
    )


def operands(e: k.Expr) -> Iterator[k.Expr]:
    """The expressions that an expression is made of."""
    if not isinstance(e, (k.Name, k.Const)):
        for f in fields(e):  # type: ignore[arg-type]
            x = getattr(e, f.name)
            if isinstance(x, k.Expr):
                yield x
