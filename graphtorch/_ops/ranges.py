"""Sequences of numbers: ranges, equal and logarithmic spacing, indices of triangles."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphtorch.ir import ops
from graphtorch.ir.dtype import SCALAR_NAMES, DType, f64, i64
from graphtorch.ir.graph import Type, Value
from graphtorch.ir.literal import Literal
from graphtorch.ir.shape import SymInt

from .. import _types
from .._deferred.storage import Leaf, recorder
from .._deferred.tensor import Tensor
from .._settings import warn_user
from .._types import check_device, to_ir
from .base import number_given, refuse, size_value
from .creation import _made, dtype_for, leaf_on, place_for


def arange(
    start: Any,
    end: Any = None,
    step: Any = 1,
    *,
    out: Tensor | None = None,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """start, start + step, ... up to `end`, which is left out."""
    place = place_for(device, out)
    if end is None:
        start, end = 0, start
    start, end, step = _numbers("arange", start, end, step)
    if any(isinstance(x, complex) for x in (start, end, step)):
        raise RuntimeError("value cannot be converted to type double without overflow")
    if step == 0:
        raise RuntimeError("step must be nonzero")
    if isinstance(start, SymInt):
        return (
            arange(0, end - start, step, dtype=dtype, device=place, requires_grad=requires_grad)
            + start
        )
    if (end - start) * step < 0:
        raise RuntimeError("upper bound and lower bound inconsistent with step sign")
    whole = all(isinstance(x, (int, SymInt)) for x in (start, end, step))
    ir = dtype_for(dtype, out, i64 if whole else _types.default_dtype())
    _check_range_dtype("arange", ir)
    count = -(-(end - start) // step) if whole else _count(start, end, step, ir)
    if not whole and ir.is_integer:  # as PyTorch: the ends are truncated first
        start, step, whole = int(start), int(step), True
    line = _ramp(count, start, step, ir, i64 if whole else None)
    return _made(line, requires_grad, out, place, "range")


def _numbers(name: str, start: Any, end: Any, step: Any) -> tuple[Any, ...]:
    given = {"start": start, "end": end, "step": step}
    return tuple(number_given(name, k, x, i + 1) for i, (k, x) in enumerate(given.items()))


def _check_range_dtype(name: str, ir: DType) -> None:
    refuse(f"{name}_cpu", ir, "bool", *(("complex",) if name == "arange" else ()))


def _count(start: Any, end: Any, step: Any, ir: DType) -> int:
    """How many numbers a range has whose ends are not all integers."""
    if not all(math.isfinite(x) for x in (start, end, step)):
        raise RuntimeError(f"unsupported range: {start} -> {end}")
    if ir is i64:
        first, last, by = int(start), int(end), int(step)
        if by == 0:
            raise RuntimeError("step must be nonzero")
        return max(0, int((last - first + by - (1 if by > 0 else -1)) / by))
    return max(0, math.ceil((end - start) / step))


def _ramp(count: int, start: Any, step: Any, ir: DType, exact: DType | None = None) -> Value:
    Type(ir, (count,))  # refuses more than can be addressed
    if exact is not None:  # integers: exact in i64, then converted
        line = ops.iota(shape=(count,), dim=0, dtype=i64)
        if step != 1:
            line = ops.mul(line, ops.constant(value=Literal.of(step, i64)))
        if start != 0:
            line = ops.add(line, ops.constant(value=Literal.of(start, i64)))
        return line if ir is i64 else ops.cast(line, dtype=ir)
    return Leaf.of((start + step * np.arange(count, dtype=np.float64)).astype(ir.numpy))


def range_(start: Any, end: Any = None, step: Any = 1, **options: Any) -> Tensor:
    """As `arange`, with `end` included (deprecated)."""
    warn_user(
        "torch.range is deprecated and will be removed in a future release because its behavior is "
        "inconsistent with Python's range builtin. Instead, use torch.arange, which produces "
        "values in [start, end).",
    )
    if end is None:
        start, end = 0, start
    start, end, step = _numbers("range", start, end, step)
    count = math.floor((end - start) / step) + 1
    out = options.get("out")
    ir = dtype_for(options.get("dtype"), out, _types.default_dtype())
    return _made(
        _ramp(count, start, step, ir),
        options.get("requires_grad", False),
        out,
        place_for(options.get("device"), out),
        "range",
    )


def linspace(
    start: Any,
    end: Any,
    steps: int,
    *,
    out: Tensor | None = None,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """`steps` numbers from start to end, both included."""
    place = place_for(device, out)
    _check_ends("linspace", start, end)
    if isinstance(steps, SymInt) or _are_recorded(start, end, steps, dtype, out):
        found, ir = _recorded_line(start, end, steps, dtype)
        return _made(ops.cast(found, dtype=ir), requires_grad, out, place)
    line, ir = _line(start, end, steps, dtype, out)
    return _made(leaf_on(_rounded(line, ir), place), requires_grad, out, place, "range")


def _check_ends(name: str, start: Any, end: Any) -> None:
    dims = [x.ndim if isinstance(x, Tensor) else 0 for x in (start, end)]
    for end_name, rank in zip(("start", "end"), dims, strict=True):
        if rank:
            raise RuntimeError(
                f"{name} only supports 0-dimensional start and end tensors, but got {end_name} "
                f"with {rank} dimension(s)."
            )


def _are_recorded(start: Any, end: Any, steps: int, dtype: Any, out: Tensor | None) -> bool:
    """Whether an end is a tensor in a recording, which goes on without its element."""
    ir = _types.default_dtype() if dtype is None else to_ir(dtype)
    ends = [x for x in (start, end) if isinstance(x, Tensor)]
    return (
        recorder.capture is not None
        and bool(ends)
        and out is None
        and steps >= 0
        and ir.is_floating_point
        and not any(x._type.dtype.is_complex for x in ends)
    )


def _recorded_line(start: Any, end: Any, steps: Any, dtype: Any) -> tuple[Value, DType]:
    """`_line` where the number of steps or an end may change: the same numbers, computed in the
    graph."""
    ir = _types.default_dtype() if dtype is None else to_ir(dtype)
    if not ir.is_floating_point:
        raise NotImplementedError(
            f"linspace of {ir.torch_name} with {steps} steps: give a known number"
        )
    first, last = (_end(x, ir) for x in (start, end))
    at = ops.cast(ops.iota(shape=(steps,), dim=0, dtype=i64), dtype=f64)
    one = ops.constant(value=Literal.of(1.0, f64))
    gaps = ops.sub(size_value(steps, f64), one)
    step = ops.div(ops.sub(last, first), ops.maximum(gaps, one))
    low = ops.add(first, ops.mul(step, at))
    high = ops.sub(last, ops.mul(step, ops.sub(gaps, at)))
    half = ops.cast(size_value(steps // 2, i64), dtype=f64)
    only = ops.eq(gaps, ops.constant(value=Literal.of(0.0, f64)))
    return ops.where(ops.logical_or(ops.lt(at, half), only), low, high), ir


def _end(x: Any, ir: DType) -> Value:
    """An end, rounded to the dtype of the result, as f64."""
    if isinstance(x, Tensor):
        return ops.cast(ops.cast(x.detach().reshape(())._value(), dtype=ir), dtype=f64)  # type: ignore[no-any-return]
    return ops.constant(value=Literal.of(float(ir.numpy.type(x)), f64))  # type: ignore[no-any-return]


def logspace(
    start: Any,
    end: Any,
    steps: int,
    base: float = 10.0,
    *,
    out: Tensor | None = None,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """base ** linspace(start, end, steps)."""
    place = place_for(device, out)
    _check_ends("logspace", start, end)
    if _are_recorded(start, end, steps, dtype, out):
        exponents, ir = _recorded_line(start, end, steps, dtype)
        powers = ops.pow(ops.constant(value=Literal.of(float(base), f64)), exponents)
        return _made(ops.cast(powers, dtype=ir), requires_grad, out, place)
    line, ir = _line(start, end, steps, dtype, out)
    with np.errstate(all="ignore"):
        powers = np.power(complex(base) if ir.is_complex else float(base), line)
    return _made(leaf_on(_rounded(powers, ir), place), requires_grad, out, place, "range")


def _line(
    start: Any, end: Any, steps: int, dtype: Any, out: Tensor | None
) -> tuple[np.ndarray, DType]:
    """Equally spaced doubles, and the dtype that was asked for or follows from the ends."""
    start, end = (x.item() if isinstance(x, Tensor) else x for x in (start, end))
    if steps < 0:
        raise RuntimeError("number of steps must be non-negative")
    complex_ends = isinstance(start, complex) or isinstance(end, complex)
    default = _types.default_dtype().complex if complex_ends else _types.default_dtype()
    ir = dtype_for(dtype, out, default)
    _check_range_dtype("linspace", ir)
    Type(ir, (steps,))  # refuses more than can be addressed
    if ir.is_integer:  # as PyTorch: the ends are truncated first
        start, end = int(start), int(end)
    if ir.is_floating_point and not complex_ends:  # the ends are rounded to the dtype first
        start, end = (float(ir.numpy.type(x)) for x in (start, end))
    first, last = np.float64(start) if not complex_ends else start, end
    if steps == 1:
        return np.array([first]), ir
    step = (last - first) / max(steps - 1, 1)
    at = np.arange(steps)
    return np.where(at < steps // 2, first + step * at, last - step * (steps - 1 - at)), ir


def _rounded(line: np.ndarray, ir: DType) -> np.ndarray:
    with np.errstate(all="ignore"):
        return line.astype(np.int64).astype(ir.numpy) if ir.is_integer else line.astype(ir.numpy)


def _check_sides(row: int, col: int) -> None:
    for name, size in (("row", row), ("col", col)):
        if size < 0:
            raise RuntimeError(f"{name} must be non-negative, got{size}")


def tril_indices(
    row: int,
    col: int,
    offset: int = 0,
    *,
    dtype: Any = None,
    device: Any = None,
    layout: Any = None,
) -> Tensor:
    """Indices of the lower triangle of a row x col matrix, as two rows."""
    _check_sides(row, col)
    return _indices("tril_indices", np.tril_indices(row, offset, col), dtype, device)


def triu_indices(
    row: int,
    col: int,
    offset: int = 0,
    *,
    dtype: Any = None,
    device: Any = None,
    layout: Any = None,
) -> Tensor:
    """Indices of the upper triangle of a row x col matrix, as two rows."""
    _check_sides(row, col)
    return _indices("triu_indices", np.triu_indices(row, offset, col), dtype, device)


def _indices(name: str, rows: tuple[np.ndarray, ...], dtype: Any, device: Any) -> Tensor:
    ir = i64 if dtype is None else to_ir(dtype)
    if not ir.is_integer:
        raise NotImplementedError(
            f"\"{name}\" not implemented for '{SCALAR_NAMES[ir]}': indices are integers"
        )
    made = np.stack(rows).astype(ir.numpy)
    place = check_device(device)
    return _made(leaf_on(made, place), False, place=place)


PUBLIC = {f.__name__: f for f in (arange, linspace, logspace, tril_indices, triu_indices)} | {
    "range": range_
}
