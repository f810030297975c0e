"""Kernel expressions as CUDA C.

Where products and sums may fuse (`contract` elsewhere) plain operators are written, which NVRTC
fuses; in elementary functions and in what is `rounded`, functions that round each operation. f16
and bf16 are computed in f32 and rounded after each operation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from graphtorch.ir.dtype import DType, bf16, boolean, f16, f32, f64, i64, narrow_through

from ..kernels import ir as k
from ..kernels.ir import COMPARISONS, Buffer, Expr, KType, Name
from .ranges import Ranges
from .types import constant, register

INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|", "xor": "^"}
COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
ROUNDED = {"add": "gt_add_rn", "sub": "gt_sub_rn", "mul": "gt_mul_rn", "div": "gt_div_rn"}
BOOL_BINARY = {
    "add": "|",
    "mul": "&",
    "max": "|",
    "min": "&",
    "maxnum": "|",
    "minnum": "&",
    "and": "&",
    "or": "|",
    "xor": "^",
}
BOOL_REDUCE = {"add": "or", "max": "or", "or": "or", "mul": "and", "min": "and", "and": "and"}
FLOAT_CALLS = frozenset({"min", "max", "minnum", "maxnum", "copysign", "rem", "fmod", "quotient"})
FLOAT_UNARY = frozenset({"abs", "sqrt", "rsqrt", "floor", "ceil", "trunc", "round"})
HALVES = (f16, bf16)
# functions of f32 that CUDA's library computes within the errors of body/maths/functions.py, in a
# fraction of the instructions: by those that GPUs have for powers of 2, logarithms and reciprocals
LIBRARY = frozenset(
    {
        *("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "pow"),
        *("sin", "cos", "tan", "asin", "acos", "atan", "atan2"),
        *("sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc"),
    }
)
# functions of f32 that the prelude has
PRELUDE = frozenset({"sigmoid", "half_exp", "near_exp2", "exp_negative", "normal_cdf"})


class Functions(Protocol):
    """What holds an expression's unit: what the expression may call."""

    def math(self, op: str, dtype: DType) -> str | None:
        """The name of our own function for `op`, written into the unit; None where there is
        none."""

    def tiles(self, product: k.MultiplyTiles) -> str:
        """The name of the function that multiplies tiles, written into the unit."""


class Expressions:
    """Writes expressions; the enclosing writer of statements gives names to values and buffers."""

    def __init__(self, functions: Functions, kernel: str):
        self.functions = functions
        self.kernel = kernel
        self.names: dict[Name, str] = {}
        self.buffers: dict[Buffer, str] = {}
        self.sizes: dict[Buffer, int] = {}  # of scratch, in elements
        self.shared: set[Buffer] = set()
        self.private: set[Buffer] = set()
        self.ranges = Ranges()
        self.strict = False
        self.loops = 0  # around what is written now
        self.made_in: dict[Name, int] = {}  # how many loops were around a name's definition

    def value(self, e: Expr, index: bool = False) -> str:
        """The text of `e`. `index`: part of an address, which cannot overflow."""
        if isinstance(e, k.Binary):
            return self._binary(e, index)
        return _WRITE[type(e)](self, e)

    # ---- names and memory

    def _const(self, e: k.Const) -> str:
        return constant(e.value, e.type)

    def _name(self, e: Name) -> str:
        try:
            return self.names[e]
        except KeyError:
            raise KeyError(
                f"kernel {self.kernel}: {e.name!r} is used outside the block that defines it"
            ) from None

    def element(self, buffer: Buffer, index: Expr, stored: bool = False) -> str:
        """Element `index` of a buffer, to be read or `stored`, which the emulated device checks."""
        return f"GT_{self._access(buffer, stored)}({self._where(buffer, index)})"

    def elements(self, buffer: Buffer, index: Expr, count: int, stored: bool = False) -> str:
        """The address of `count` elements from `index` on."""
        return f"GT_{self._access(buffer, stored)}_MANY({self._where(buffer, index)}, {count})"

    def _access(self, buffer: Buffer, stored: bool) -> str:
        if buffer in self.shared:
            return "PUT" if stored else "GOT"
        return "IN" if buffer in self.sizes else "TO" if stored else "AT"

    def _where(self, buffer: Buffer, index: Expr) -> str:
        try:
            name = self.buffers[buffer]
        except KeyError:
            raise KeyError(
                f"kernel {self.kernel}: buffer {buffer.name!r} is not a parameter"
            ) from None
        size = f"{self.sizes[buffer]}, " if buffer in self.sizes else ""
        return f"{name}, {size}{self.value(index, index=True)}"

    def _load(self, e: k.Load) -> str:
        register(e.type)
        read = self.element(e.buffer, e.index)
        if e.type.dtype is boolean:
            read = f"({read} != 0)"
        if e.mask is None:
            return read
        zero = constant(0, e.type)
        return f"({self.value(e.mask)} ? {read} : {zero})"

    def _splat(self, e: k.Splat) -> str:
        register(e.type)
        return self.value(e.x)

    def _lanes(self, e: k.Lanes) -> str:
        register(e.type)
        return constant(0, e.type)

    def _shuffle(self, e: k.Shuffle) -> str:
        register(e.type)
        return self.value((e.a, e.b)[e.lanes[0]])

    def _reduce(self, e: k.Reduce) -> str:
        register(e.x.type)
        return self.value(e.x)

    def _warp_reduce(self, e: k.WarpReduce) -> str:
        if e.type.dtype in HALVES:
            raise TypeError(f"warp_{e.op} on {e.type.dtype}: cast it to f32 first")
        op = BOOL_REDUCE[e.op] if e.type.dtype is boolean else e.op
        return f"gt_warp_{op}<{e.width}>({self.value(e.x)}, GT_SITE)"

    def _from_lane(self, e: k.FromLane) -> str:
        if e.type.dtype in HALVES:
            raise TypeError(f"from_lane of {e.type.dtype}: cast it to f32 first")
        return f"gt_from_thread({self.value(e.x)}, (int){self.value(e.lane)}, GT_SITE)"

    def _pair(self, e: k.Pair) -> str:
        return f"gt_pair_{e.dtype.name}({self.value(e.low)}, {self.value(e.high)})"

    def _aligned(self, e: k.Aligned) -> str:
        return f"((unsigned long long){self.buffers[e.buffer]} % 16 == 0)"

    def _tf32(self, e: k.Tf32) -> str:
        return f"gt_tf32({self.value(e.x)})"

    def _select(self, e: k.Select) -> str:
        return f"({self.value(e.condition)} ? {self.value(e.a)} : {self.value(e.b)})"

    # ---- conversions

    @staticmethod
    def wide(dtype: DType) -> DType:
        """The dtype that `dtype` is computed in."""
        return f32 if dtype in HALVES else dtype

    def cast(self, text: str, a: DType, b: DType) -> str:
        """`text` of dtype `a` as `b`: wide integers saturate, narrow ones wrap, NaN is 0, bool ``!=
        0``."""
        if a is b:
            return text
        if a.is_floating_point and b.is_integer and (bits := narrow_through(self.wide(a), b)):
            return (
                f"gt_wrapped<{register(KType(b))}, gt_i{bits}>({self.cast(text, a, self.wide(a))})"
            )
        return f"gt_cast<{register(KType(b))}>({text})"

    def _cast(self, e: k.Cast) -> str:
        register(e.type)
        return self.cast(self.value(e.x), e.x.type.dtype, e.type.dtype)

    # ---- arithmetic

    def _fma(self, e: k.Fma) -> str:
        dtype = e.type.dtype
        wide = self.wide(dtype)
        a, b, c = (self.cast(self.value(x), dtype, wide) for x in (e.a, e.b, e.c))
        if not wide.is_floating_point:
            return f"gt_add(gt_mul({a}, {b}), {c})"
        return self.cast(f"gt_fma({a}, {b}, {c})", wide, dtype)

    def _unary(self, e: k.Unary) -> str:
        if e.op == "rounded":
            return self._rounded(e.x)
        dtype = e.x.type.dtype
        x = self.value(e.x)
        if e.op in ("bitcast_int", "bitcast_float"):
            return f"gt_bitcast<{register(e.type)}>({x})"
        if e.op == "isnan":
            wide = self.wide(dtype)
            return f"gt_isnan({self.cast(x, dtype, wide)})" if dtype.is_floating_point else "false"
        if not dtype.is_floating_point:
            return self._int_unary(e.op, x, dtype)
        wide = self.wide(dtype)
        return self.cast(self._float_unary(e.op, self.cast(x, dtype, wide), wide), wide, dtype)

    def _rounded(self, x: Expr) -> str:
        before, self.strict = self.strict, True
        found = self.value(x)
        self.strict = before
        return found

    def _int_unary(self, op: str, x: str, dtype: DType) -> str:
        if op == "not":
            return f"(!{x})" if dtype is boolean else f"gt_not({x})"
        if op == "neg":
            return x if dtype is boolean else f"gt_neg({x})"
        if op == "abs":
            return f"gt_abs({x})" if dtype.signed else x
        if op in ("floor", "ceil", "trunc", "round"):
            return x
        raise TypeError(f"kernel op {op} on {dtype}: cast it to a floating-point type first")

    def _float_unary(self, op: str, x: str, dtype: DType) -> str:
        if op == "neg":
            return f"(-{x})"
        if op in FLOAT_UNARY:
            return f"gt_{op}({x})"
        return self.math(op, dtype, x)

    def math(self, op: str, dtype: DType, *args: str) -> str:
        """A function of the prelude, of `kernels.maths`, or of the C library."""
        if dtype is f32 and op in PRELUDE:
            return f"gt_{op}({', '.join(args)})"
        own = None if dtype is f32 and op in LIBRARY else self.functions.math(op, dtype)
        if own is None and dtype not in (f32, f64):
            raise TypeError(f"kernel op {op} on {dtype}: cast it to f32 or f64 first")
        return f"{own or op + ('f' if dtype is f32 else '')}({', '.join(args)})"

    def _binary(self, e: k.Binary, index: bool) -> str:
        dtype = e.a.type.dtype
        register(e.type)
        linear = index and dtype is i64 and e.op in ("add", "sub", "mul", "div", "rem")
        a, b = self.value(e.a, index=linear), self.value(e.b, index=linear)
        if e.op in COMPARISONS:
            return self._compare(e.op, a, b, dtype)
        if dtype.is_floating_point:
            wide = self.wide(dtype)
            a, b = self.cast(a, dtype, wide), self.cast(b, dtype, wide)
            op = "quotient" if e.op == "div" and self._divides_many(e.b) else e.op
            return self.cast(self._float_binary(op, a, b, wide), wide, dtype)
        if dtype is boolean and e.op in BOOL_BINARY:
            return f"(bool)({a} {BOOL_BINARY[e.op]} {b})"
        known = isinstance(e.b, k.Const) and e.b.value > 0
        if known and e.op in ("div", "rem") and self.ranges.fits(e.a) and self.ranges.fits(e.b):
            return f"(gt_i64)((gt_u32){a} {'/' if e.op == 'div' else '%'} (gt_u32){b})"
        if linear and (e.op not in ("div", "rem") or known):
            return f"({a} {'%' if e.op == 'rem' else INFIX[e.op]} {b})"
        return self._int_binary(e.op, a, b, e.type, known)

    def _divides_many(self, divisor: Expr) -> bool:
        """Whether a loop divides by the same number all the time."""
        if self.strict or not isinstance(divisor, Name):
            return False
        return self.made_in.get(divisor, self.loops) < self.loops

    def _compare(self, op: str, a: str, b: str, dtype: DType) -> str:
        if op == "lt_u":
            return f"({a} < {b})" if dtype is boolean else f"gt_lt_u({a}, {b})"
        if dtype in HALVES:
            a, b = self.cast(a, dtype, f32), self.cast(b, dtype, f32)
        return f"({a} {COMPARE[op]} {b})"

    def _float_binary(self, op: str, a: str, b: str, dtype: DType) -> str:
        if op in ROUNDED:
            return f"{ROUNDED[op]}({a}, {b})" if self.strict else f"({a} {INFIX[op]} {b})"
        if op in FLOAT_CALLS:
            return f"gt_{op}({a}, {b})"
        if op in ("pow", "atan2", "nextafter"):
            return self.math(op, dtype, a, b)
        raise TypeError(f"kernel op {op} on {dtype}: cast it to an integer type first")

    def _int_binary(self, op: str, a: str, b: str, t: KType, known: bool) -> str:
        """`known`: the divisor is a positive constant."""
        kind = {"minnum": "min", "maxnum": "max", "fmod": "rem"}.get(op, op)
        if kind in ("and", "or", "xor"):
            return f"gt_{kind}({a}, {b})"
        if kind in ("div", "rem") and known:
            return f"({register(t)})({a} {'/' if kind == 'div' else '%'} {b})"
        return f"gt_{kind}({a}, {b})"


_WRITE: Mapping[type[Expr], Callable[..., str]] = {
    k.Const: Expressions._const,
    Name: Expressions._name,
    k.Load: Expressions._load,
    k.Splat: Expressions._splat,
    k.Lanes: Expressions._lanes,
    k.Shuffle: Expressions._shuffle,
    k.Reduce: Expressions._reduce,
    k.WarpReduce: Expressions._warp_reduce,
    k.FromLane: Expressions._from_lane,
    k.Pair: Expressions._pair,
    k.Tf32: Expressions._tf32,
    k.Aligned: Expressions._aligned,
    k.Select: Expressions._select,
    k.Cast: Expressions._cast,
    k.Fma: Expressions._fma,
    k.Unary: Expressions._unary,
}
