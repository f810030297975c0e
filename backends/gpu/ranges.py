"""How large indices can be: what fits 32 bits is divided there, which takes a GPU a fraction of the
time."""

from __future__ import annotations

from ..kernels import ir as k
from ..kernels.ir import Expr, For, Let, Name

LIMIT = (1 << 31) - 1


class Ranges:
    """The greatest values of the names that are never negative, as far as sizes are constants."""

    def __init__(self) -> None:
        self._most: dict[Name, int] = {}

    def loop(self, s: For) -> None:
        """What follows from the bounds of a loop for its variable."""
        low, high = self.most(s.lo), self.most(s.hi)
        if low is not None and high is not None:
            self._most[s.var] = max(high - 1, 0)

    def let(self, s: Let) -> None:
        if s.name.type is k.INDEX and (most := self.most(s.value)) is not None:
            self._most[s.name] = most

    def fits(self, e: Expr) -> bool:
        """Whether `e` is an index known to lie between 0 and the greatest number of 32 bits."""
        most = self.most(e)
        return most is not None and most <= LIMIT

    def most(self, e: Expr) -> int | None:
        """The greatest value of an index; None where it is not known, or perhaps negative."""
        if isinstance(e, k.Const):
            return int(e.value) if e.type is k.INDEX and e.value >= 0 else None
        if isinstance(e, Name):
            return self._most.get(e)
        if not isinstance(e, k.Binary) or e.type is not k.INDEX:
            return None
        a, b = self.most(e.a), self.most(e.b)
        if a is None or b is None:
            return None
        if e.op in ("div", "rem"):
            divisor = e.b.value if isinstance(e.b, k.Const) else 0
            return (
                None
                if divisor <= 0
                else int(a // divisor if e.op == "div" else min(a, divisor - 1))
            )
        return {"add": a + b, "mul": a * b, "min": min(a, b), "max": max(a, b)}.get(e.op)
