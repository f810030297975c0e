"""How many floating-point operations the stages of a kernel do, told from its loops.

A multiplication and an addition are one each; an elementary function counts as what its expansion
is made of.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields

from graphtorch.ir.dtype import DType

from ..dataclass import dataclass
from ..kernels import ir as k
from ..kernels.body.maths import functions
from ..kernels.builder import Builder
from ..kernels.ir import Expr, For, Kernel, KType, Name, Stmt
from .unit import evaluate, parts

ONE = frozenset({"add", "sub", "mul", "div", "rem", "fmod", "sqrt", "rsqrt"})
MATRIX = 2 * 16 * 8  # of a warp's product of matrices, for each column of the left one
WARP = 32


@dataclass
class Operations:
    """Of floating point: by ordinary instructions, and by those for matrices (tensor cores)."""

    plain: int = 0
    matrices: int = 0

    def add(self, other: Operations, times: float = 1) -> None:
        self.plain += round(other.plain * times)
        self.matrices += round(other.matrices * times)


def operations(kernel: Kernel, sizes: Sequence[int]) -> list[Operations | None]:
    """Of each stage of `kernel` (unit.py), in order; None where that depends on what is in memory.

    A loop whose length depends on an outer one counts as the mean of its first and its last length.
    """
    known = dict(zip(kernel.sizes, sizes, strict=True))
    return [_of_part([*part.lets, *part.body], known) for part in parts(kernel)]


def _of_part(body: Sequence[Stmt], known: dict[Name, int]) -> Operations | None:
    try:
        return _body(body, known, 1)
    except KeyError:
        return None


def _body(body: Sequence[Stmt], known: dict[Name, int], threads: int) -> Operations:
    """Args: threads: how many do each of the statements."""
    total, known = Operations(), dict(known)
    for s in body:
        if isinstance(s, For):
            total.add(_loop(s, known, threads))
        elif isinstance(s, k.If):
            total.add(_expression(s.condition), threads)
            either = [_body(b, known, threads) for b in (s.then, s.orelse)]
            total.add(max(either, key=lambda o: o.plain + o.matrices))
        elif isinstance(s, k.While):
            raise KeyError(s)
        elif isinstance(s, k.Call):
            total.add(_call(s, known, threads))
        elif isinstance(s, k.MultiplyTiles):
            each = 2 * k.TILE * s.b.rows * (k.DEPTH // s.dtype.itemsize)
            total.matrices += each * threads // (4 * WARP)
        elif isinstance(s, k.MultiplyMatrices):
            total.matrices += MATRIX * (32 // s.dtype.itemsize) * threads // WARP
        else:
            _note(s, known)
            for e in _values(s):
                total.add(_expression(e), threads)
    return total


def _note(s: Stmt, known: dict[Name, int]) -> None:
    if isinstance(s, k.Let):
        with suppress(KeyError):
            known[s.name] = evaluate(s.value, known)


def _values(s: Stmt) -> list[Expr]:
    return [s.value] if isinstance(s, (k.Let, k.Var, k.Assign, k.Store, k.AtomicAdd)) else []


def _loop(s: For, known: dict[Name, int], threads: int) -> Operations:
    lo, hi, step = (evaluate(e, known) for e in (s.lo, s.hi, s.step))
    count = max(0, -(-(hi - lo) // step))
    total = Operations()
    if count:
        each = 1 if s.kind == "thread" else s.threads if s.kind == "block" else threads
        first, last = (
            _body(s.body, {**known, s.var: at}, each) for at in (lo, lo + (count - 1) * step)
        )
        for end in (first, last):
            total.add(end, count / 2)
    return total


def _call(s: k.Call, known: dict[Name, int], threads: int) -> Operations:
    inner: dict[Name, int] = {}
    parameters = [*s.kernel.buffers, *s.kernel.sizes]
    for parameter, argument in zip(parameters, s.args, strict=True):
        if isinstance(parameter, Name) and isinstance(argument, Expr):
            inner[parameter] = evaluate(argument, known)
    return _body(s.kernel.body, inner, threads)


def _expression(e: Expr) -> Operations:
    """What it takes to compute a value once."""
    inner = [x for f in fields(e) if isinstance(x := getattr(e, f.name), Expr)]  # type: ignore[arg-type]
    total = Operations(_own(e))
    for x in inner:
        total.add(_expression(x))
    return total


def _own(e: Expr) -> int:
    dtype = e.type.dtype
    if not dtype.is_floating_point:
        return 0
    if isinstance(e, k.Fma):
        return 2
    if isinstance(e, k.WarpReduce):
        return e.width.bit_length() - 1
    if isinstance(e, (k.Binary, k.Unary)):
        return 1 if e.op in ONE else _of_function(e.op, dtype)
    return 0


@functools.cache
def _of_function(op: str, dtype: DType) -> int:
    """Operations of the expansion of an elementary function; 0 where there is none."""
    definition = functions.definition(op, dtype)
    if definition is None:
        return 0
    b = Builder()
    result = definition.expand(b, *(Name(f"x{i}", KType(dtype)) for i in range(definition.arity)))
    return _body(b.body, {}, 1).plain + _expression(result).plain


__all__ = ["Operations", "operations"]
