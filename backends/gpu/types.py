"""Kernel types and constants as CUDA C text."""

from __future__ import annotations

import struct

import numpy as np

from graphtorch.ir.dtype import DType, bf16, boolean, f16, f32

from ..kernels.ir import KType


def register(t: KType) -> str:
    """The C type of a value.

    Raises: TypeError for vectors, which kernels for GPUs do not have, and for complex numbers.
    """
    if t.lanes != 1:
        raise TypeError(
            f"CUDA kernels have no vectors, but a value is {t}: lower it one element a thread"
        )
    if t.dtype.is_complex:
        raise TypeError(
            f"kernels have no {t.dtype} values: lower complex numbers to pairs of {t.dtype.real}"
        )
    return (
        "bool"
        if t.dtype is boolean
        else "float"
        if t.dtype is f32
        else "double"
        if t.dtype.name == "f64"
        else f"gt_{t.dtype.name}"
    )


def memory(dtype: DType) -> str:
    """The C type of an element in a buffer: a bool is a byte there."""
    return "gt_u8" if dtype is boolean else register(KType(dtype))


def constant(value: int | float | bool, t: KType) -> str:
    """The text of a constant."""
    dtype = t.dtype
    if dtype is boolean:
        return "true" if value else "false"
    if dtype.is_integer:
        return _integer(int(value), dtype)
    if dtype is f16:
        return f"gt_f16{{{int(np.float16(value).view(np.uint16))}}}"
    if dtype is bf16:
        return f"gt_bf16{{{int(np.asarray(value, bf16.numpy).view(np.uint16))}}}"
    with np.errstate(over="ignore"):
        exact = float(np.float32(value)) if dtype is f32 else float(value)
    if not np.isfinite(exact):
        return _bits(exact, dtype)
    return f"{exact.hex()}{'f' if dtype is f32 else ''}"


def _integer(value: int, dtype: DType) -> str:
    suffix = ("" if dtype.signed else "u") + ("ll" if dtype.bits == 64 else "")
    if dtype.signed and value == -1 << (dtype.bits - 1):  # its digits alone are out of range
        return f"({register(KType(dtype))})({value + 1}{suffix} - 1)"
    text = f"{value}{suffix}" if value >= 0 else f"({value}{suffix})"
    return text if dtype.bits == 64 or dtype.name == "i32" else f"({register(KType(dtype))}){text}"


def _bits(value: float, dtype: DType) -> str:
    if dtype is f32:
        return f"gt_float_bits(0x{struct.unpack('<I', struct.pack('<f', value))[0]:08x}u)"
    return f"gt_double_bits(0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016x}ull)"
