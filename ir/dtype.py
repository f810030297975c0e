"""Element types and PyTorch's promotion between them.

A `DType` is one of fifteen interned objects (`f32`, `i64`, ...), so `is` compares them. Promotion
follows https://docs.pytorch.org/docs/stable/tensor_attributes.html#type-promotion: operands fall
into three ranks (tensors with dimensions, 0-d tensors, Python numbers); a lower rank only changes
the result when its category (bool < integer < float < complex) is higher. As in PyTorch, u16, u32
and u64 promote with floats only.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable

import ml_dtypes
import numpy as np

from .dataclass import dataclass


class Kind(enum.IntEnum):
    """Category of an element type, in promotion order."""

    BOOL = 0
    INT = 1
    FLOAT = 2
    COMPLEX = 3


@dataclass(frozen=True, eq=False)
class DType:
    """An element type. `name` is its spelling in IR text, `torch_name` its name in PyTorch."""

    name: str
    torch_name: str
    kind: Kind
    itemsize: int
    numpy: np.dtype
    signed: bool = True

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[object, ...]:
        return DType.named, (self.name,)

    @staticmethod
    def named(name: str) -> DType:
        """The dtype spelled `name` in IR text, such as ``f32``."""
        try:
            return BY_NAME[name]
        except KeyError:
            known = " ".join(BY_NAME)
            raise TypeError(f"unknown dtype {name!r}: expected one of {known}") from None

    @staticmethod
    def of(numpy_dtype: np.dtype | type) -> DType:
        """The dtype stored by a NumPy dtype."""
        try:
            return BY_NUMPY[np.dtype(numpy_dtype)]
        except KeyError:
            raise TypeError(
                f"can't convert a NumPy array of dtype {np.dtype(numpy_dtype)}: supported are "
                + ", ".join(str(d.numpy) for d in BY_NAME.values())
            ) from None

    @property
    def bits(self) -> int:
        return self.itemsize * 8

    @property
    def is_bool(self) -> bool:
        return self.kind is Kind.BOOL

    @property
    def is_integer(self) -> bool:
        """An integer type; `bool` is not one."""
        return self.kind is Kind.INT

    @property
    def is_floating_point(self) -> bool:
        return self.kind is Kind.FLOAT

    @property
    def is_complex(self) -> bool:
        return self.kind is Kind.COMPLEX

    @property
    def is_differentiable(self) -> bool:
        return self.kind >= Kind.FLOAT

    @property
    def ends(self) -> tuple[bool | int | float, bool | int | float]:
        """The lowest and the highest value, of floats the infinities; complex numbers have none."""
        if self.is_bool:
            return False, True
        if self.is_differentiable:
            return -math.inf, math.inf
        span = 1 << self.bits
        return (-span // 2, span // 2 - 1) if self.signed else (0, span - 1)

    @property
    def real(self) -> DType:
        """The type of one component: c64 -> f32, c128 -> f64, any other type itself."""
        return {"c64": f32, "c128": f64}.get(self.name, self)

    @property
    def complex(self) -> DType:
        """The complex type whose components have this precision (at least f32)."""
        return self if self.is_complex else c128 if self is f64 else c64


boolean = DType("bool", "bool", Kind.BOOL, 1, np.dtype(np.bool_), signed=False)
u8 = DType("u8", "uint8", Kind.INT, 1, np.dtype(np.uint8), signed=False)
u16 = DType("u16", "uint16", Kind.INT, 2, np.dtype(np.uint16), signed=False)
u32 = DType("u32", "uint32", Kind.INT, 4, np.dtype(np.uint32), signed=False)
u64 = DType("u64", "uint64", Kind.INT, 8, np.dtype(np.uint64), signed=False)
i8 = DType("i8", "int8", Kind.INT, 1, np.dtype(np.int8))
i16 = DType("i16", "int16", Kind.INT, 2, np.dtype(np.int16))
i32 = DType("i32", "int32", Kind.INT, 4, np.dtype(np.int32))
i64 = DType("i64", "int64", Kind.INT, 8, np.dtype(np.int64))
f16 = DType("f16", "float16", Kind.FLOAT, 2, np.dtype(np.float16))
bf16 = DType("bf16", "bfloat16", Kind.FLOAT, 2, np.dtype(ml_dtypes.bfloat16))
f32 = DType("f32", "float32", Kind.FLOAT, 4, np.dtype(np.float32))
f64 = DType("f64", "float64", Kind.FLOAT, 8, np.dtype(np.float64))
c64 = DType("c64", "complex64", Kind.COMPLEX, 8, np.dtype(np.complex64))
c128 = DType("c128", "complex128", Kind.COMPLEX, 16, np.dtype(np.complex128))

ALL = (boolean, u8, u16, u32, u64, i8, i16, i32, i64, f16, bf16, f32, f64, c64, c128)
BY_NAME = {d.name: d for d in ALL}
BY_NUMPY = {d.numpy: d for d in ALL}
# no integer dtype holds two of them, so none is the common one
WIDE_UNSIGNED = frozenset((u16, u32, u64))
SCALAR_NAMES = {
    boolean: "Bool",
    u8: "Byte",
    u16: "UInt16",
    u32: "UInt32",
    u64: "UInt64",
    i8: "Char",
    i16: "Short",
    i32: "Int",
    i64: "Long",
    f16: "Half",
    bf16: "BFloat16",
    f32: "Float",
    f64: "Double",
    c64: "ComplexFloat",
    c128: "ComplexDouble",
}  # as PyTorch's messages spell them


def promote(a: DType, b: DType) -> DType:
    """The smallest dtype that holds both, as ``torch.promote_types``: u8+i8 -> i16, f16+bf16 ->
    f32.

    Raises:
        RuntimeError: one is u16, u32 or u64 and the other is neither the same nor a real float.
    """
    if a is b:
        return a
    low, high = (a, b) if a.kind <= b.kind else (b, a)
    if not high.is_floating_point and not WIDE_UNSIGNED.isdisjoint((a, b)):
        raise RuntimeError(
            "Promotion for uint16, uint32, uint64 types is not supported, attempted to promote "
            f"{SCALAR_NAMES[a]} and {SCALAR_NAMES[b]}: convert one of them with .to(dtype)"
        )
    if high.is_complex:
        return c128 if f64 in (low.real, high.real) and low.kind >= Kind.FLOAT else high
    if low.kind < high.kind:
        return high
    if high.is_floating_point:
        return (
            f32 if low.itemsize == high.itemsize == 2 else max(low, high, key=lambda d: d.itemsize)
        )
    if u8 in (low, high):
        other = low if high is u8 else high
        return i16 if other is i8 else other
    return max(low, high, key=lambda d: d.itemsize)


def result_type(
    dims: Iterable[DType] = (),
    zero_dims: Iterable[DType] = (),
    numbers: Iterable[type] = (),
    default: DType = f32,
) -> DType:
    """The dtype of an operation, as ``torch.result_type``.

    Args:
        dims: dtypes of the tensor operands with at least one dimension.
        zero_dims: dtypes of the 0-d tensor operands; they count only by category.
        numbers: types of the Python number operands (bool, int, float, complex); weakest of all.
        default: dtype of a Python float where nothing else decides (``torch.get_default_dtype()``).
    """
    best: DType | None = None
    for rank in (tuple(dims), tuple(zero_dims), tuple(number_dtype(t, default) for t in numbers)):
        for dtype in rank[1:]:
            rank = (promote(rank[0], dtype),)
        if rank and (best is None or rank[0].kind > best.kind):
            best = rank[0] if best is None else promote_weak(best, rank[0])
    if best is None:
        raise TypeError("result_type needs at least one operand")
    return best


def promote_weak(strong: DType, weak: DType) -> DType:
    """The dtype beside a `weak` one of a higher category; a complex one keeps a float's
    precision."""
    if weak.is_complex:
        return strong.complex if strong.is_floating_point else weak
    return promote(strong, weak)


def number_dtype(number: type, default: DType = f32) -> DType:
    """The dtype a Python number takes on its own: bool, i64, the default float, its complex type.

    ``np.uint64`` stands for the integers that only u64 holds.
    """
    if issubclass(number, (bool, np.bool_)):
        return boolean
    if number is np.uint64:
        return u64
    if issubclass(number, (int, np.integer)):
        return i64
    if issubclass(number, (float, np.floating)):
        return default
    return default.complex


def narrow_through(source: DType, target: DType) -> int:
    """Bits of the integer through which a float becomes the integer `target`, and 0 where it
    saturates.

    As PyTorch on x86: narrow integers wrap, -1.5 as u8 is 255; what that integer does not hold
    gives 0.
    """
    if target.bits <= 16:
        return 64 if (source is f64 and target is u8) else 32
    return 64 if target is u32 else 0
