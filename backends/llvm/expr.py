"""Kernel expressions as LLVM instructions: each `_kind` method returns the operand that names the
value.

Floats carry `contract` (a multiply may fuse with an add) except in the maths functions, whose error
bounds count roundings, inside `rounded`, and in kernels that store integers, where the last digit
of a float may decide between two of them. f16 and bf16 are computed in f32 and rounded after each
operation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from graphtorch.ir.dtype import DType, bf16, boolean, f16, f32, f64, i32, i64, narrow_through

from ..kernels import ir as k
from ..kernels.ir import COMPARISONS, Buffer, Expr, KType, Name
from . import halves
from .dots import dot
from .processor import Processor
from .types import constant, mangled, memory, register, scalar, vector

FLOAT_BINARY = {
    "add": "fadd",
    "sub": "fsub",
    "mul": "fmul",
    "div": "fdiv",
    "rem": "frem",
    "fmod": "frem",
}
FLOAT_CALLS = {
    "min": "llvm.minimum",
    "max": "llvm.maximum",
    "minnum": "llvm.minnum",
    "maxnum": "llvm.maxnum",
    "copysign": "llvm.copysign",
}
INT_BINARY = {"add": "add", "sub": "sub", "mul": "mul", "and": "and", "or": "or", "xor": "xor"}
BOOL_BINARY = {
    "add": "or",
    "mul": "and",
    "max": "or",
    "min": "and",
    "maxnum": "or",
    "minnum": "and",
    "and": "and",
    "or": "or",
    "xor": "xor",
}
FLOAT_UNARY = {
    "abs": "llvm.fabs",
    "sqrt": "llvm.sqrt",
    "floor": "llvm.floor",
    "ceil": "llvm.ceil",
    "trunc": "llvm.trunc",
    "round": "llvm.roundeven",
}
FLOAT_COMPARE = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}
VECTOR_REDUCE = {"and": "and", "or": "or", "add": "add", "mul": "mul"}
HALVES = (f16, bf16)


class Functions(Protocol):
    """The module that holds an expression: what the expression may call."""

    name: str
    target: Processor

    def math(self, op: str, t: KType) -> str | None:
        """The name of our own function for `op` on `t`, emitted into the module; None where there
        is none."""

    def libm(self, op: str, dtype: DType, arity: int) -> str:
        """The name of libm's function for `op`, declared in the module."""


IMPURE = frozenset(("load", "call", "phi", "alloca"))


class Expressions:
    """Emits expressions into `lines`; the enclosing function emitter provides names and buffers."""

    def __init__(self, module: Functions) -> None:
        self.module = module
        self.kernel = module.name
        self.lines: list[str] = []
        self.block = "entry"
        self.values: dict[Name, str] = {}
        self.registers: dict[Name, str] = {}
        self.pointers: dict[Buffer, str] = {}
        self.strict = False
        self._count = 0
        self._known: dict[str, str] = {}  # values of this block by their instructions

    # ---- instructions

    def fresh(self, prefix: str = "v") -> str:
        self._count += 1
        return f"{prefix}{self._count}"

    def put(self, text: str) -> None:
        self.lines.append("  " + text)

    def let(self, text: str) -> str:
        """The value of the instruction `text`; in one block a pure one stands once."""
        known = self._known.get(text)
        if known is not None:
            return known
        name = "%" + self.fresh()
        self.lines.append(f"  {name} = {text}")
        if text.partition(" ")[0] not in IMPURE:
            self._known[text] = name
        return name

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")
        self.block = name
        self._known.clear()

    def call(self, function: str, result: str, *args: tuple[str, str], flags: str = "") -> str:
        return self.let(
            f"call {flags}{result} @{function}({', '.join(f'{t} {v}' for t, v in args)})"
        )

    def flags(self) -> str:
        return "" if self.strict else "contract "

    # ---- expressions

    def value(self, e: Expr, index: bool = False, reassoc: bool = False) -> str:
        """The operand of `e`. `index`: part of an address, which cannot overflow."""
        if isinstance(e, k.Binary):
            return self._binary(e, index, reassoc)
        if isinstance(e, k.Fma):
            return self._fma(e, reassoc)
        return _EMIT[type(e)](self, e)

    def _const(self, e: k.Const) -> str:
        return constant(e.value, e.type)

    def _name(self, e: Name) -> str:
        if e in self.registers:
            return self.let(f"load {register(e.type)}, ptr {self.registers[e]}")
        try:
            return self.values[e]
        except KeyError:
            raise KeyError(
                f"kernel {self.kernel}: {e.name!r} is used outside the block that defines it"
            ) from None

    def _splat(self, e: k.Splat) -> str:
        return self.splat(self.value(e.x), e.type)

    def splat(self, x: str, t: KType) -> str:
        wide = register(t)
        first = self.let(f"insertelement {wide} poison, {scalar(t.dtype)} {x}, i64 0")
        return self.let(
            f"shufflevector {wide} {first}, {wide} poison, <{t.lanes} x i32> zeroinitializer"
        )

    def _lanes(self, e: k.Lanes) -> str:
        element = scalar(e.type.dtype)
        if e.type.dtype.is_floating_point:
            one = KType(e.type.dtype)
            return (
                "<" + ", ".join(f"{element} {constant(i, one)}" for i in range(e.type.lanes)) + ">"
            )
        return "<" + ", ".join(f"{element} {i}" for i in range(e.type.lanes)) + ">"

    def _shuffle(self, e: k.Shuffle) -> str:
        a, b = self.value(e.a), self.value(e.b)
        if e.a.type.lanes == 1:
            return self._gathered([(a, b)[i] for i in e.lanes], e.type)
        lanes = ", ".join(f"i32 {i}" for i in e.lanes)
        source = register(e.a.type)
        if e.type.lanes == 1:
            x, lane = (
                (a, e.lanes[0]) if e.lanes[0] < e.a.type.lanes else (b, e.lanes[0] - e.a.type.lanes)
            )
            return self.let(f"extractelement {source} {x}, i64 {lane}")
        return self.let(
            f"shufflevector {source} {a}, {source} {b}, <{len(e.lanes)} x i32> <{lanes}>"
        )

    def _gathered(self, elements: list[str], t: KType) -> str:
        """A vector of scalars."""
        if t.lanes == 1:
            return elements[0]
        made = "poison"
        for i, x in enumerate(elements):
            made = self.let(f"insertelement {register(t)} {made}, {scalar(t.dtype)} {x}, i64 {i}")
        return made

    def _select(self, e: k.Select) -> str:
        c, a, b = self.value(e.condition), self.value(e.a), self.value(e.b)
        t = register(e.type)
        return self.let(f"select {register(e.condition.type)} {c}, {t} {a}, {t} {b}")

    def _fma(self, e: k.Fma, reassoc: bool) -> str:
        wide = self.wide(e.type)
        a, b, c = (self.cast(self.value(x), x.type, wide) for x in (e.a, e.b, e.c))
        t = register(wide)
        if not wide.dtype.is_floating_point:
            return self.let(f"add {t} {self.let(f'mul {t} {a}, {b}')}, {c}")
        fuses = self.module.target.fma
        # Terms of explicit vectors stay in order where each is a register until it is added.
        if reassoc and not e.exact and (fuses or e.type.lanes == 1):
            # as two operations, which the vectoriser knows as a reduction and fuses again
            return self._two(t, "reassoc nsz contract ", a, b, c)
        if fuses or e.exact:
            r = self.call(
                f"llvm.fma.{mangled(wide)}", t, (t, a), (t, b), (t, c), flags=self.flags()
            )
        else:  # LLVM would call libm for each element
            r = self._two(t, self.flags(), a, b, c)
        return self.cast(r, wide, e.type)

    def _two(self, t: str, flags: str, a: str, b: str, c: str) -> str:
        """a * b + c in two operations."""
        return self.let(f"fadd {flags}{t} {c}, {self.let(f'fmul {flags}{t} {a}, {b}')}")

    def _dot(self, e: k.Dot) -> str:
        a, b, c = (self.value(x) for x in (e.a, e.b, e.c))
        return dot(self, self.module.target, e.kind, e.type, a, b, c)

    @staticmethod
    def wide(t: KType) -> KType:
        """The type that `t` is computed in."""
        return KType(f32, t.lanes) if t.dtype in HALVES else t

    # ---- memory

    def address(self, buffer: Buffer, index: Expr, exact: bool = True) -> str:
        """Pointer(s) to element `index`. `exact`: the index is known to be inside the buffer."""
        element = memory(KType(buffer.dtype))
        at = self.value(index, index=exact)
        inside = "inbounds " if exact else ""
        t = register(index.type)
        return self.let(f"getelementptr {inside}{element}, ptr {self.pointer(buffer)}, {t} {at}")

    def pointer(self, buffer: Buffer) -> str:
        try:
            return self.pointers[buffer]
        except KeyError:
            raise KeyError(
                f"kernel {self.kernel}: buffer {buffer.name!r} is not a parameter"
            ) from None

    def _load(self, e: k.Load) -> str:
        t = memory(e.type)
        size = e.buffer.dtype.itemsize
        if e.index.type.lanes > 1:
            raw = self._gather(e, t, size)
        elif e.mask is None:
            raw = self.let(f"load {t}, ptr {self.address(e.buffer, e.index)}, align {size}")
        elif e.type.lanes == 1:
            raw = self._guarded_load(e, t, size)
        else:
            mask = self.value(e.mask)
            p = self.address(e.buffer, e.index, exact=False)
            raw = self.call(
                f"llvm.masked.load.{self._memory_name(e.type)}.p0",
                t,
                (f"ptr align {size}", p),
                (f"<{e.type.lanes} x i1>", mask),
                (t, "zeroinitializer"),
            )
        return self.from_memory(raw, e.type)

    def _gather(self, e: k.Load, t: str, size: int) -> str:
        n = e.type.lanes
        mask = "splat (i1 true)" if e.mask is None else self.value(e.mask)
        p = self.address(e.buffer, e.index, exact=e.mask is None)
        return self.call(
            f"llvm.masked.gather.{self._memory_name(e.type)}.v{n}p0",
            t,
            (f"<{n} x ptr> align {size}", p),
            (f"<{n} x i1>", mask),
            (t, "zeroinitializer"),
        )

    def _guarded_load(self, e: k.Load, t: str, size: int) -> str:
        """A branch around the load: the vectoriser makes a masked load of it."""
        assert e.mask is not None
        mask, p = self.value(e.mask), self.address(e.buffer, e.index, exact=False)
        before, read, after = self.block, self.fresh("read"), self.fresh("after")
        self.put(f"br i1 {mask}, label %{read}, label %{after}")
        self.label(read)
        x = self.let(f"load {t}, ptr {p}, align {size}")
        self.put(f"br label %{after}")
        self.label(after)
        zero = "zeroinitializer"
        return self.let(f"phi {t} [ {zero}, %{before} ], [ {x}, %{read} ]")

    @staticmethod
    def _memory_name(t: KType) -> str:
        return f"v{t.lanes}i8" if t.dtype is boolean else mangled(t)

    def from_memory(self, raw: str, t: KType) -> str:
        return (
            self.let(f"icmp ne {memory(t)} {raw}, zeroinitializer") if t.dtype is boolean else raw
        )

    def to_memory(self, x: str, t: KType) -> str:
        return self.let(f"zext {register(t)} {x} to {memory(t)}") if t.dtype is boolean else x

    # ---- conversions

    def _cast(self, e: k.Cast) -> str:
        return self.cast(self.value(e.x), e.x.type, e.type)

    def cast(self, x: str, a: KType, b: KType) -> str:
        """`x` of type `a` as type `b`: as the op `cast` has it, NaN to 0, bool is ``!= 0``."""
        source, target = a.dtype, b.dtype
        if source is target:
            return x
        if target is boolean:
            if source is f16:  # LLVM would widen it first, perhaps by a library
                x, a = self.cast(x, a, self.wide(a)), self.wide(a)
            compare = "fcmp une" if source.is_floating_point else "icmp ne"
            return self.let(f"{compare} {register(a)} {x}, zeroinitializer")
        if source.is_floating_point:
            return self._from_float(x, a, b)
        if target.is_floating_point:
            return self._to_float(x, a, b)
        op = "trunc" if target.bits < self.width(source) else "sext" if source.signed else "zext"
        return (
            x
            if target.bits == self.width(source)
            else self.let(f"{op} {register(a)} {x} to {register(b)}")
        )

    @staticmethod
    def width(dtype: DType) -> int:
        return 1 if dtype is boolean else dtype.bits

    def _to_float(self, x: str, a: KType, b: KType) -> str:
        if b.dtype in HALVES:
            middle = KType(f32, b.lanes)
            return self.cast(self._to_float(x, a, middle), middle, b)
        op = "sitofp" if a.dtype.signed else "uitofp"
        return self.let(f"{op} {register(a)} {x} to {register(b)}")

    def _from_float(self, x: str, a: KType, b: KType) -> str:
        source, target, single = a.dtype, b.dtype, KType(f32, a.lanes)
        if source in HALVES and target is not f32:
            return self.cast(self.cast(x, a, single), single, b)
        if bits := target.is_integer and narrow_through(source, target):
            return self._wrapped(x, a, b, i64 if bits == 64 else i32)
        if target.is_integer:
            op = "fptosi" if target.signed else "fptoui"
            return self.call(
                f"llvm.{op}.sat.{mangled(b)}.{mangled(a)}", register(b), (register(a), x)
            )
        if source is bf16:
            return halves.widen_bf16(self.let, x, a)
        if target is bf16:
            return halves.round_bf16(self.let, self.cast(x, a, single), b)
        if source is f64 and target is f16:
            return self.cast(self._round_to_odd(x, a), single, b)
        if f16 in (source, target) and not self.module.target.converts_f16:
            return (halves.widen_f16 if source is f16 else halves.round_f16)(self.let, x, a.lanes)
        op = "fptrunc" if target.bits < source.bits else "fpext"
        return self.let(f"{op} {register(a)} {x} to {register(b)}")

    def _wrapped(self, x: str, a: KType, b: KType, through: DType) -> str:
        """A float as the low bits of an integer `through`, 0 where that does not hold it."""
        t, wide = register(a), KType(through, a.lanes)
        size = self.call(f"llvm.fabs.{mangled(a)}", t, (t, x))
        held = self.let(f"fcmp olt {t} {size}, {constant(2.0 ** (through.bits - 1), a)}")
        x = self.let(
            f"select {register(KType(boolean, a.lanes))} {held}, {t} {x}, {t} {constant(0.0, a)}"
        )
        x = self.let(f"fptosi {t} {x} to {register(wide)}")
        return (
            self.let(f"trunc {register(wide)} {x} to {register(b)}")
            if b.dtype.bits < through.bits
            else x
        )

    def _round_to_odd(self, x: str, a: KType) -> str:
        """f64 to f32 such that a second rounding to f16 equals one rounding (Boldo & Melquiond
        2005)."""
        single, t, n = KType(f32, a.lanes), KType(i32, a.lanes), a.lanes
        wide, yes = register(t), vector("i1", n)
        r = self.let(f"fptrunc {register(a)} {x} to {register(single)}")
        back = self.let(f"fpext {register(single)} {r} to {register(a)}")
        size = [
            self.call(f"llvm.fabs.{mangled(a)}", register(a), (register(a), v)) for v in (x, back)
        ]
        over = self.let(f"fcmp ogt {register(a)} {size[1]}, {size[0]}")
        inexact = self.let(f"fcmp one {register(a)} {x}, {back}")
        bits = self.let(f"bitcast {register(single)} {r} to {wide}")
        down = self.let(f"sub {wide} {bits}, {self.let(f'zext {yes} {over} to {wide}')}")
        odd = self.let(f"or {wide} {down}, {self.let(f'zext {yes} {inexact} to {wide}')}")
        return self.let(f"bitcast {wide} {odd} to {register(single)}")

    # ---- unary

    def _unary(self, e: k.Unary) -> str:
        if e.op == "rounded":
            return self._rounded(e.x)
        dtype, t = e.x.type.dtype, register(e.x.type)
        x = self.value(e.x)
        if e.op in ("bitcast_int", "bitcast_float"):
            return (
                self.let(f"bitcast {t} {x} to {register(e.type)}") if t != register(e.type) else x
            )
        if e.op == "isnan":
            return self._isnan(x, e.x.type) if dtype.is_floating_point else constant(False, e.type)
        if not dtype.is_floating_point:
            return self._int_unary(e.op, x, e.type)
        wide = self.wide(e.type)
        return self.cast(self._float_unary(e.op, self.cast(x, e.type, wide), wide), wide, e.type)

    def _rounded(self, x: Expr) -> str:
        before, self.strict = self.strict, True
        found = self.value(x)
        self.strict = before
        return found

    def _isnan(self, x: str, t: KType) -> str:
        wide = self.wide(t)
        return self.let(f"fcmp uno {register(wide)} {self.cast(x, t, wide)}, zeroinitializer")

    def _int_unary(self, op: str, x: str, t: KType) -> str:
        r = register(t)
        if op == "not":
            return self.let(f"xor {r} {x}, {constant(True if t.dtype is boolean else -1, t)}")
        if op == "neg":
            return x if t.dtype is boolean else self.let(f"sub {r} zeroinitializer, {x}")
        if op == "abs":
            return (
                self.call(f"llvm.abs.{mangled(t)}", r, (r, x), ("i1", "false"))
                if t.dtype.signed
                else x
            )
        if op in ("floor", "ceil", "trunc", "round"):
            return x
        raise TypeError(f"kernel op {op} on {t}: cast it to a floating-point type first")

    def _float_unary(self, op: str, x: str, t: KType) -> str:
        r = register(t)
        if op == "neg":
            return self.let(f"fneg {r} {x}")
        if op in FLOAT_UNARY:
            return self.call(f"{FLOAT_UNARY[op]}.{mangled(t)}", r, (r, x))
        if op == "rsqrt":
            root = self.call(f"llvm.sqrt.{mangled(t)}", r, (r, x))
            return self.let(f"fdiv {r} {constant(1.0, t)}, {root}")
        return self.math(op, t, x)

    def math(self, op: str, t: KType, *args: str) -> str:
        """A function of `kernels.maths` where it has one for the type, otherwise libm's, lane by
        lane."""
        r = register(t)
        own = self.module.math(op, t)
        if own is not None:
            return self.call(own, r, *((r, a) for a in args))
        name = self.module.libm(op, t.dtype, len(args))
        if t.lanes == 1:
            return self.call(name, r, *((r, a) for a in args))
        element, result = scalar(t.dtype), "poison"
        for i in range(t.lanes):
            lane = [(element, self.let(f"extractelement {r} {a}, i64 {i}")) for a in args]
            result = self.let(
                f"insertelement {r} {result}, {element} {self.call(name, element, *lane)}, i64 {i}"
            )
        return result

    # ---- binary

    def _binary(self, e: k.Binary, index: bool, reassoc: bool) -> str:
        linear = index and e.type.dtype is i64 and e.op in ("add", "sub", "mul", "div", "rem")
        a, b = self.value(e.a, index=linear), self.value(e.b, index=linear)
        t = e.a.type
        if e.op in COMPARISONS:
            return self._compare(e.op, a, b, t)
        if t.dtype.is_floating_point:
            wide = self.wide(t)
            a, b = self.cast(a, t, wide), self.cast(b, t, wide)
            return self.cast(self._float_binary(e.op, a, b, wide, reassoc), wide, t)
        if t.dtype is boolean and e.op in BOOL_BINARY:
            return self.let(f"{BOOL_BINARY[e.op]} {register(t)} {a}, {b}")
        if e.op in INT_BINARY:
            wrap = " nsw" if linear else ""
            return self.let(f"{INT_BINARY[e.op]}{wrap} {register(t)} {a}, {b}")
        divisor = e.b.value if isinstance(e.b, k.Const) else None
        return self._int_binary(e.op, a, b, t, divisor)

    def _compare(self, op: str, a: str, b: str, t: KType) -> str:
        r = register(t)
        if t.dtype.is_floating_point:
            if t.dtype in HALVES:
                wide = self.wide(t)
                a, b, r = self.cast(a, t, wide), self.cast(b, t, wide), register(wide)
            return self.let(f"fcmp {FLOAT_COMPARE[op]} {r} {a}, {b}")
        sign = "u" if op.endswith("_u") or not t.dtype.signed else "s"
        relation = op if op in ("eq", "ne") else sign + op.removesuffix("_u")
        return self.let(f"icmp {relation} {r} {a}, {b}")

    def _float_binary(self, op: str, a: str, b: str, t: KType, reassoc: bool) -> str:
        r = register(t)
        flags = "reassoc nsz contract " if reassoc and op in ("add", "mul") else self.flags()
        if op in FLOAT_BINARY:
            return self.let(f"{FLOAT_BINARY[op]} {flags}{r} {a}, {b}")
        if op in FLOAT_CALLS:
            flags = "nsz " if op in ("min", "max", "minnum", "maxnum") else ""
            return self.call(f"{FLOAT_CALLS[op]}.{mangled(t)}", r, (r, a), (r, b), flags=flags)
        if op in ("pow", "atan2", "nextafter"):
            return self.math(op, t, a, b)
        raise TypeError(f"kernel op {op} on {t}: cast it to an integer type first")

    def _int_binary(
        self, op: str, a: str, b: str, t: KType, constant_b: int | float | bool | None
    ) -> str:
        r = register(t)
        unsigned = op.endswith("_u") or not t.dtype.signed
        kind = op.removesuffix("_u")
        if kind in ("min", "max", "minnum", "maxnum"):
            return self.call(
                f"llvm.{'u' if unsigned else 's'}{kind[:3]}.{mangled(t)}", r, (r, a), (r, b)
            )
        if kind in ("div", "rem", "fmod"):
            return self._divide("rem" if kind == "fmod" else kind, a, b, t, unsigned, constant_b)
        if kind in ("shl", "shr"):
            return self._shift(kind, a, b, t, unsigned)
        if kind == "mulhi":
            return self._mulhi(a, b, t)
        raise TypeError(f"kernel op {op} on {t}: cast it to a floating-point type first")

    def _divide(
        self, op: str, a: str, b: str, t: KType, unsigned: bool, divisor: int | float | bool | None
    ) -> str:
        """Truncating; x/0 = x%0 = 0 and MIN/-1 wraps, where the hardware would trap."""
        r, c, zero, one = register(t), vector("i1", t.lanes), constant(0, t), constant(1, t)
        name = ("u" if unsigned else "s") + op
        if divisor is not None and divisor > 0:
            return self.let(f"{name} {r} {a}, {b}")
        none = self.let(f"icmp eq {r} {b}, {zero}")
        safe = self.let(f"select {c} {none}, {r} {one}, {r} {b}")
        if unsigned:
            q = self.let(f"{name} {r} {a}, {safe}")
            return self.let(f"select {c} {none}, {r} {zero}, {r} {q}")
        minus = self.let(f"icmp eq {r} {b}, {constant(-1, t)}")
        safe = self.let(f"select {c} {minus}, {r} {one}, {r} {safe}")
        q = self.let(f"{name} {r} {a}, {safe}")
        other = zero if op == "rem" else self.let(f"sub {r} {zero}, {a}")
        q = self.let(f"select {c} {minus}, {r} {other}, {r} {q}")
        return self.let(f"select {c} {none}, {r} {zero}, {r} {q}")

    def _shift(self, op: str, a: str, b: str, t: KType, unsigned: bool) -> str:
        """Shifts by a negative count or by the width and more give 0, or the sign for a signed
        >>."""
        r, c, bits = register(t), vector("i1", t.lanes), self.width(t.dtype)
        last = constant(bits - 1, t)
        count = self.call(f"llvm.umin.{mangled(t)}", r, (r, b), (r, last))
        if op == "shr" and not unsigned:
            return self.let(f"ashr {r} {a}, {count}")
        shifted = self.let(f"{'shl' if op == 'shl' else 'lshr'} {r} {a}, {count}")
        fits = self.let(f"icmp ule {r} {b}, {last}")
        return self.let(f"select {c} {fits}, {r} {shifted}, {r} zeroinitializer")

    def _mulhi(self, a: str, b: str, t: KType) -> str:
        bits = t.dtype.bits
        r, wide = register(t), vector(f"i{2 * bits}", t.lanes)
        x, y = (self.let(f"zext {r} {v} to {wide}") for v in (a, b))
        product = self.let(f"mul nuw {wide} {x}, {y}")
        shift = str(bits) if t.lanes == 1 else f"splat (i{2 * bits} {bits})"
        high = self.let(f"lshr {wide} {product}, {shift}")
        return self.let(f"trunc {wide} {high} to {r}")

    # ---- reductions over lanes

    def _reduce(self, e: k.Reduce) -> str:
        t = e.x.type
        if t.dtype in HALVES:
            wide = self.wide(t)
            x = self.cast(self.value(e.x), t, wide)
            return self.cast(self._reduce_lanes(e.op, x, wide), KType(f32), e.type)
        return self._reduce_lanes(e.op, self.value(e.x), t)

    def _reduce_lanes(self, op: str, x: str, t: KType) -> str:
        r, element, one = register(t), scalar(t.dtype), KType(t.dtype)
        if t.lanes == 1:
            return x
        if t.dtype.is_floating_point and op in ("add", "mul"):
            start = constant(-0.0 if op == "add" else 1.0, one)
            return self.call(
                f"llvm.vector.reduce.f{op}.{mangled(t)}",
                element,
                (element, start),
                (r, x),
                flags="reassoc ",
            )
        if t.dtype is boolean:
            name = BOOL_BINARY[op]
        elif op in ("min", "max"):
            name = (
                f"f{op}imum"
                if t.dtype.is_floating_point
                else f"{'s' if t.dtype.signed else 'u'}{op}"
            )
        else:
            name = VECTOR_REDUCE[op]
        return self.call(f"llvm.vector.reduce.{name}.{mangled(t)}", element, (r, x))


_EMIT: dict[type[Expr], Callable[..., str]] = {
    k.Const: Expressions._const,
    Name: Expressions._name,
    k.Splat: Expressions._splat,
    k.Lanes: Expressions._lanes,
    k.Shuffle: Expressions._shuffle,
    k.Dot: Expressions._dot,
    k.Select: Expressions._select,
    k.Load: Expressions._load,
    k.Cast: Expressions._cast,
    k.Unary: Expressions._unary,
    k.Reduce: Expressions._reduce,
}
