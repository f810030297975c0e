"""16-bit floats to f32 and back on their bits, where no instruction does it, or not as it has to
be.

`let` names the value of an instruction of LLVM's.
"""

from __future__ import annotations

from collections.abc import Callable

from graphtorch.ir.dtype import f32, i32

from ..kernels.ir import KType
from .types import constant, integer, register, vector

Let = Callable[[str], str]
F16_INFINITY, F16_NAN = 0x7C00, 0x7E00
F16_END = 0x47800000  # the bits of 65536 as f32: from there on f16 is infinite
F16_NORMAL = 0x38800000  # of 2^-14: below f16 is denormal
LAST_PLACE = 0x3F000000  # of 1/2, whose last place is that of denormal f16s


def widen_bf16(let: Let, x: str, a: KType) -> str:
    wide = vector("i32", a.lanes)
    bits = let(f"bitcast {register(a)} {x} to {integer(a)}")
    bits = let(f"zext {integer(a)} {bits} to {wide}")
    bits = let(f"shl {wide} {bits}, {constant(16, KType(i32, a.lanes))}")
    return let(f"bitcast {wide} {bits} to {vector('float', a.lanes)}")


def round_bf16(let: Let, x: str, b: KType) -> str:
    """To nearest even on the bits: the hardware's instruction flushes denormals."""
    t, n = KType(i32, b.lanes), b.lanes
    wide, single = register(t), vector("float", n)
    bits = let(f"bitcast {single} {x} to {wide}")
    high = let(f"lshr {wide} {bits}, {constant(16, t)}")
    odd = let(f"and {wide} {high}, {constant(1, t)}")
    bias = let(f"add {wide} {odd}, {constant(0x7FFF, t)}")
    rounded = let(f"lshr {wide} {let(f'add {wide} {bits}, {bias}')}, {constant(16, t)}")
    quiet = let(f"or {wide} {high}, {constant(0x40, t)}")
    nan = let(f"fcmp uno {single} {x}, zeroinitializer")
    picked = let(f"select {vector('i1', n)} {nan}, {wide} {quiet}, {wide} {rounded}")
    narrow = let(f"trunc {wide} {picked} to {integer(b)}")
    return let(f"bitcast {integer(b)} {narrow} to {register(b)}")


class _Words:
    """Arithmetic on vectors of 32-bit words."""

    def __init__(self, let: Let, lanes: int):
        self.let, self.lanes, self.kind = let, lanes, KType(i32, lanes)
        self.wide, self.single = register(self.kind), vector("float", lanes)

    def op(self, name: str, x: str, y: str | int) -> str:
        return self.let(f"{name} {self.wide} {x}, {self._operand(y)}")

    def pick(self, relation: str, x: str, y: int, then: str | int, other: str | int) -> str:
        """`then` where ``x relation y``, else `other`."""
        where = self.op(f"icmp {relation}", x, y)
        then, other = self._operand(then), self._operand(other)
        yes = vector("i1", self.lanes)
        return self.let(f"select {yes} {where}, {self.wide} {then}, {self.wide} {other}")

    def floats(self, name: str, bits: str, y: float) -> str:
        """The bits of an operation on the floats of these bits and a number."""
        x = self.let(f"bitcast {self.wide} {bits} to {self.single}")
        number = constant(y, KType(f32, self.lanes))
        found = self.let(f"{name} {self.single} {x}, {number}")
        return self.let(f"bitcast {self.single} {found} to {self.wide}")

    def _operand(self, y: str | int) -> str:
        return constant(y, self.kind) if isinstance(y, int) else y


def widen_f16(let: Let, x: str, lanes: int) -> str:
    """A product with 2^112 moves the exponent, also that of denormals."""
    w, short = _Words(let, lanes), vector("i16", lanes)
    raw = let(f"bitcast {vector('half', lanes)} {x} to {short}")
    raw = let(f"zext {short} {raw} to {w.wide}")
    sign = w.op("shl", w.op("and", raw, 0x8000), 16)
    size = w.op("and", raw, 0x7FFF)
    placed = w.op("shl", size, 13)
    finite = w.floats("fmul", placed, 2.0**112)
    quiet = w.pick("ugt", size, F16_INFINITY, 0x7FC00000, 0x7F800000)
    bits = w.pick("uge", size, F16_INFINITY, w.op("or", placed, quiet), finite)
    return let(f"bitcast {w.wide} {w.op('or', bits, sign)} to {w.single}")


def round_f16(let: Let, x: str, lanes: int) -> str:
    """To nearest even; a sum with 1/2 rounds what becomes denormal."""
    w, short = _Words(let, lanes), vector("i16", lanes)
    raw = let(f"bitcast {w.single} {x} to {w.wide}")
    size = w.op("and", raw, 0x7FFFFFFF)
    odd = w.op("and", w.op("lshr", size, 13), 1)
    # the exponents' distance of 112, and what carries into the last place that stays
    normal = w.op("lshr", w.op("add", w.op("add", size, odd), 0xFFF - (112 << 23)), 13)
    small = w.op("sub", w.floats("fadd", size, 0.5), LAST_PLACE)
    payload = w.op("or", w.op("and", w.op("lshr", size, 13), 0x3FF), F16_NAN)
    beyond = w.pick("ugt", size, 0x7F800000, payload, F16_INFINITY)
    found = w.pick("ult", size, F16_NORMAL, small, w.pick("uge", size, F16_END, beyond, normal))
    found = w.op("or", found, w.op("lshr", w.op("and", raw, -(1 << 31)), 16))
    narrow = let(f"trunc {w.wide} {found} to {short}")
    return let(f"bitcast {short} {narrow} to {vector('half', lanes)}")
