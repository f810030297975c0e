"""``torch.testing``: comparing results, and tensors to test with.
https://docs.pytorch.org/docs/stable/testing.html"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .. import _types
from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS
from .._torch.absent import attribute_of

_PRECISION = {
    "float16": (1e-3, 1e-5),
    "bfloat16": (1.6e-2, 1e-5),
    "float32": (1.3e-6, 1e-5),
    "float64": (1e-7, 1e-7),
    "complex64": (1.3e-6, 1e-5),
    "complex128": (1e-7, 1e-7),
}


def assert_close(
    actual: Any,
    expected: Any,
    *,
    allow_subclasses: bool = True,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
    check_device: bool = True,
    check_dtype: bool = True,
    check_layout: bool = True,
    check_stride: bool = False,
    msg: str | Callable[[str], str] | None = None,
) -> None:
    """Check ``abs(actual - expected) <= atol + rtol * abs(expected)``, in sequences and mappings
    too.

    Args:
        rtol, atol: both or neither; by default what the dtype allows.

    Raises:
        AssertionError: it does not hold, or shapes, devices, dtypes or structures differ.
        ValueError: one of rtol and atol is missing. TypeError: what cannot be compared.
    """
    if (rtol is None) != (atol is None):
        raise ValueError("rtol and atol must both be specified or both be unspecified")
    wrong = _difference(
        actual, expected, "", rtol, atol, equal_nan, check_dtype, check_stride, check_device
    )
    if wrong is not None:
        raise AssertionError(msg(wrong) if callable(msg) else wrong if msg is None else msg)


def _difference(a: Any, b: Any, place: str, *options: Any) -> str | None:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if set(a) != set(b):
            keys = f"{sorted(map(str, a))} and {sorted(map(str, b))}"
            return f"The keys of the mappings do not match: {keys}{place}"
        pairs = [(a[k], b[k], f"{place}\n\nThe failure occurred for item [{k!r}]") for k in a]
    elif isinstance(a, Sequence) and isinstance(b, Sequence) and not isinstance(a, str):
        if len(a) != len(b):
            return f"The length of the sequences mismatch: {len(a)} != {len(b)}{place}"
        pairs = [
            (x, y, f"{place}\n\nThe failure occurred for item [{i}]")
            for i, (x, y) in enumerate(zip(a, b, strict=True))
        ]
    else:
        return _of_leaves(a, b, place, *options)
    found = (_difference(x, y, where, *options) for x, y, where in pairs)
    return next((wrong for wrong in found if wrong is not None), None)


def _of_leaves(
    a: Any,
    b: Any,
    place: str,
    rtol: Any,
    atol: Any,
    equal_nan: bool,
    check_dtype: bool,
    check_stride: bool,
    check_device: bool,
) -> str | None:
    if a is None or b is None or isinstance(a, str):
        return None if a == b else f"{a!r} is not {b!r}{place}"
    numbers = not isinstance(a, Tensor) and not isinstance(b, Tensor)
    x, y = [t if isinstance(t, Tensor) else FUNCTIONS["as_tensor"](t) for t in (a, b)]
    what = "Scalars" if numbers else "Tensor-likes"
    if x.shape != y.shape:
        return f"The values for attribute 'shape' do not match: {x.shape} != {y.shape}.{place}"
    if x.device is not y.device:
        if check_device:
            return (
                f"The values for attribute 'device' do not match: {x.device} != {y.device}.{place}"
            )
        x, y = x.cpu(), y.cpu()
    if check_dtype and not numbers and x.dtype is not y.dtype:
        return f"The values for attribute 'dtype' do not match: {x.dtype} != {y.dtype}.{place}"
    if check_stride and x.stride() != y.stride():
        strides = f"{x.stride()} != {y.stride()}"
        return f"The values for attribute 'stride()' do not match: {strides}.{place}"
    if rtol is None:
        both = [_PRECISION.get(t.dtype.name, (0.0, 0.0)) for t in (x, y)]
        rtol, atol = max(r for r, _ in both), max(t for _, t in both)
    wide = FUNCTIONS["promote_types"](x.dtype, y.dtype)
    x, y = x.detach().to(wide), y.detach().to(wide)
    bad = ~FUNCTIONS["isclose"](x, y, rtol=rtol, atol=atol, equal_nan=equal_nan)
    count = int(bad.sum().item())
    return _report(what, x, y, bad, count, rtol, atol, place) if count else None


def _report(
    what: str, x: Tensor, y: Tensor, bad: Any, count: int, rtol: float, atol: float, place: str
) -> str:
    exact = rtol == atol == 0
    away = (
        (x.to(_types.DTYPES["float64"]) - y.to(_types.DTYPES["float64"])).abs()
        if not x.is_complex()
        else (x - y).abs()
    )
    return (
        f"{what} are not {'equal' if exact else 'close'}!\n\n"
        f"Mismatched elements: {count} / {x.numel()} ({100 * count / x.numel():.1f}%)\n"
        f"Greatest absolute difference: {away.masked_fill(~bad, 0).max().item()} (up to {atol} "
        "allowed)\nGreatest relative difference: "
        f"{(away / y.abs()).masked_fill(~bad, 0).max().item()} (up to {rtol} allowed){place}"
    )


def assert_allclose(
    actual: Any,
    expected: Any,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = True,
    msg: str = "",
) -> None:
    """As `assert_close`, of old: dtypes may differ."""
    wide: Any = {} if rtol is None and atol is None else {"rtol": rtol or 0.0, "atol": atol or 0.0}
    assert_close(actual, expected, equal_nan=equal_nan, check_dtype=False, msg=msg or None, **wide)


def make_tensor(
    *shape: Any,
    dtype: Any,
    device: Any = "cpu",
    low: float | None = None,
    high: float | None = None,
    requires_grad: bool = False,
    noncontiguous: bool = False,
    exclude_zero: bool = False,
    memory_format: Any = None,
) -> Tensor:
    """A tensor of numbers between `low` and `high`, -9 and 9 by default, drawn from the default
    generator."""
    size = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    ir = _types.to_ir(dtype)
    low = (0 if not ir.signed else -9) if low is None else low
    high = (2 if ir.is_bool else 9) if high is None else high
    if ir.is_bool or ir.is_integer:
        made = FUNCTIONS["randint"](int(low), int(high), tuple(size), dtype=dtype, device=device)
    else:
        made = FUNCTIONS["rand"](tuple(size), dtype=dtype, device=device) * (high - low) + low
    if exclude_zero:
        made = made.masked_fill(made == 0, 1)
    if noncontiguous and made.numel() > 1:
        made = FUNCTIONS["repeat_interleave"](made, 2, dim=-1)[..., ::2]
    return made.requires_grad_(requires_grad)  # type: ignore[no-any-return]


__all__ = ["assert_allclose", "assert_close", "make_tensor"]
__getattr__ = attribute_of(__name__)
