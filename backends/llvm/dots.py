"""Products of the narrow numbers in words of 32 bits, `kernels.ir.Dot`, as LLVM instructions.

One instruction where the processor has it: ``pmaddwd`` multiplies pairs of i16 and adds them,
exactly but for the sum of two (-32768)**2, which wraps; ``vpdpbusd`` (VNNI) quads of u8 and i8,
and adds them to the sums; ``vdpbf16ps`` pairs of bf16. Else each number of a word is extended and
multiplied.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from graphtorch.ir.dtype import DType

from ..kernels.ir import WORDS, KType
from .types import register, scalar, vector


class Instruction(NamedTuple):
    """An LLVM intrinsic and what a processor needs for it.

    Attributes:
        adds: whether it takes the sums first, and gives those with the products added.
        element: the LLVM type of the numbers in its operands.
    """

    name: str
    needs: tuple[frozenset[str], ...]  # one of these sets
    adds: bool
    element: str


def _either(*sets: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(s.split()) for s in sets)


VNNI = _either("avx512vnni avx512vl", "avxvnni")
# by kind and lanes
INSTRUCTIONS: dict[tuple[str, int], Instruction] = {
    ("i16", 4): Instruction("llvm.x86.sse2.pmadd.wd", _either(""), False, "i16"),
    ("i16", 8): Instruction("llvm.x86.avx2.pmadd.wd", _either("avx2"), False, "i16"),
    ("i16", 16): Instruction("llvm.x86.avx512.pmaddw.d.512", _either("avx512bw"), False, "i16"),
    ("u8_i8", 4): Instruction("llvm.x86.avx512.vpdpbusd.128", VNNI, True, "i8"),
    ("u8_i8", 8): Instruction("llvm.x86.avx512.vpdpbusd.256", VNNI, True, "i8"),
    ("u8_i8", 16): Instruction("llvm.x86.avx512.vpdpbusd.512", _either("avx512vnni"), True, "i8"),
    ("bf16", 4): Instruction(
        "llvm.x86.avx512bf16.dpbf16ps.128", _either("avx512bf16 avx512vl"), True, "bfloat"
    ),
    ("bf16", 8): Instruction(
        "llvm.x86.avx512bf16.dpbf16ps.256", _either("avx512bf16 avx512vl"), True, "bfloat"
    ),
    ("bf16", 16): Instruction(
        "llvm.x86.avx512bf16.dpbf16ps.512", _either("avx512bf16"), True, "bfloat"
    ),
}


class Emitter(Protocol):
    """What emits instructions (`expr.Expressions`)."""

    def let(self, text: str) -> str: ...

    def call(self, function: str, result: str, *args: tuple[str, str], flags: str = "") -> str: ...

    def cast(self, x: str, a: KType, b: KType) -> str: ...


class Target(Protocol):
    """What is asked of a processor (`processor.Processor`)."""

    @property
    def is_x86(self) -> bool: ...

    @property
    def flags(self) -> frozenset[str]: ...

    @property
    def vector_bits(self) -> int: ...


def has(kind: str, target: Target) -> bool:
    """Whether there is an instruction of a kind for the vectors that `target` uses."""
    return _fitting(kind, target.vector_bits // 32, target) is not None


def _fitting(kind: str, lanes: int, target: Target) -> Instruction | None:
    found = INSTRUCTIONS.get((kind, lanes))
    if found is None or not target.is_x86:
        return None
    return found if any(target.flags >= needed for needed in found.needs) else None


def dot(emit: Emitter, target: Target, kind: str, t: KType, a: str, b: str, c: str) -> str:
    """``c`` plus the products of words `a` and `b`, operands of LLVM's; `t` is the type of `c`."""
    if kind == "i8_u8":
        kind, a, b = "u8_i8", b, a
    instruction = _fitting(kind, t.lanes, target)
    if instruction is None:
        return _spelled_out(emit, kind, t, a, b, c)
    count = t.lanes * (4 // WORDS[kind][0].itemsize)
    wide, words = vector(instruction.element, count), vector("i32", t.lanes)
    numbers = [(wide, emit.let(f"bitcast {words} {x} to {wide}")) for x in (a, b)]
    r = register(t)
    if instruction.adds:
        return emit.call(instruction.name, r, (r, c), *numbers)
    added = emit.let(f"add {r} {c}, {emit.call(instruction.name, r, *numbers)}")
    # LLVM would add products to each other first, for which there are no registers
    return emit.let(f'call {r} asm "", "=v,0"({r} {added})')


def _spelled_out(emit: Emitter, kind: str, t: KType, a: str, b: str, c: str) -> str:
    left, right, sums = WORDS[kind]
    r = register(t)
    for i in range(4 // left.itemsize):
        x, y = (
            emit.cast(_numbers(emit, v, dtype, t.lanes, i), KType(dtype, t.lanes), t)
            for v, dtype in ((a, left), (b, right))
        )
        if sums.is_floating_point:
            c = emit.let(f"fadd contract {r} {c}, {emit.let(f'fmul contract {r} {x}, {y}')}")
        else:
            c = emit.let(f"add {r} {c}, {emit.let(f'mul {r} {x}, {y}')}")
    return c


def _numbers(emit: Emitter, words: str, dtype: DType, lanes: int, which: int) -> str:
    """The numbers in place `which` of all words."""
    parts, element = 4 // dtype.itemsize, scalar(dtype)
    wide = vector(element, lanes * parts)
    all_of = emit.let(f"bitcast {vector('i32', lanes)} {words} to {wide}")
    if lanes == 1:
        return emit.let(f"extractelement {wide} {all_of}, i64 {which}")
    picked = ", ".join(f"i32 {i * parts + which}" for i in range(lanes))
    return emit.let(f"shufflevector {wide} {all_of}, {wide} poison, <{lanes} x i32> <{picked}>")
