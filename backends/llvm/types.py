"""Kernel types and constants as LLVM IR text."""

from __future__ import annotations

import struct

import numpy as np

from graphtorch.ir.dtype import (
    DType,
    bf16,
    boolean,
    f16,
    f32,
    f64,
    i8,
    i16,
    i32,
    i64,
    u8,
    u16,
    u32,
    u64,
)

from ..kernels.ir import KType

REGISTER = {
    boolean: "i1",
    u8: "i8",
    u16: "i16",
    u32: "i32",
    u64: "i64",
    i8: "i8",
    i16: "i16",
    i32: "i32",
    i64: "i64",
    f16: "half",
    f32: "float",
    f64: "double",
    # Bits only: arithmetic is done in f32, and LLVM calls a library to select a scalar `bfloat`.
    bf16: "i16",
}


def scalar(dtype: DType) -> str:
    """The LLVM type of one element in a register."""
    try:
        return REGISTER[dtype]
    except KeyError:
        raise TypeError(
            f"kernels have no {dtype} values: lower complex numbers to pairs of {dtype.real}"
        ) from None


def register(t: KType) -> str:
    """The LLVM type of a value."""
    return vector(scalar(t.dtype), t.lanes)


def memory(t: KType) -> str:
    """The LLVM type of a value in a buffer: a bool is a byte there."""
    return vector("i8" if t.dtype is boolean else scalar(t.dtype), t.lanes)


def vector(element: str, lanes: int) -> str:
    return element if lanes == 1 else f"<{lanes} x {element}>"


def integer(t: KType) -> str:
    """The integer type of the same width as a float type."""
    return vector(f"i{t.dtype.bits}", t.lanes)


def mangled(t: KType) -> str:
    """The suffix of an overloaded intrinsic: ``f32``, ``v16f32``."""
    name = {"f16": "f16", "f32": "f32", "f64": "f64"}.get(t.dtype.name)
    name = name or scalar(t.dtype)
    return name if t.lanes == 1 else f"v{t.lanes}{name}"


def constant(value: int | float | bool, t: KType) -> str:
    """The operand text of a constant, in every lane."""
    text = _scalar_constant(value, t.dtype)
    return text if t.lanes == 1 else f"splat ({scalar(t.dtype)} {text})"


def _scalar_constant(value: int | float | bool, dtype: DType) -> str:
    if dtype is boolean:
        return "true" if value else "false"
    if dtype.is_integer:
        return str(int(value))
    if dtype is f16:
        return f"0xH{int(np.float16(value).view(np.uint16)):04X}"
    if dtype is bf16:
        return str(int(np.asarray(value, bf16.numpy).view(np.int16)))
    with np.errstate(over="ignore"):
        exact = float(np.float32(value)) if dtype is f32 else float(value)
    return f"0x{struct.unpack('<Q', struct.pack('<d', exact))[0]:016X}"
