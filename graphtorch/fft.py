"""Discrete Fourier transforms (``torch.fft``): https://docs.pytorch.org/docs/stable/fft.html

Every transform is made of one op, which compiles as products with small matrices
(`ir.ops.spectral`). `norm` says where the factor 1/n stands: "backward" (the default) with inverse
transforms, "forward" with the others, "ortho" as its root with both. `n` (or `s`, one for each of
`dim`) cuts or fills with zeros first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from graphtorch.ir import ops
from graphtorch.ir.dtype import SCALAR_NAMES

from ._deferred.tensor import Tensor
from ._deferred.write import cast_tensor
from ._ops.accept import accepting
from ._ops.base import FUNCTIONS, axis_of, check_tensor, floating, run, write_out
from ._torch.absent import attribute_of
from ._types import get_default_dtype
from .autograd.keeps import keeps_as_one

__all__ = [
    "fft",
    "fft2",
    "fftfreq",
    "fftn",
    "fftshift",
    "hfft",
    "hfft2",
    "hfftn",
    "ifft",
    "ifft2",
    "ifftn",
    "ifftshift",
    "ihfft",
    "ihfft2",
    "ihfftn",
    "irfft",
    "irfft2",
    "irfftn",
    "rfft",
    "rfft2",
    "rfftfreq",
    "rfftn",
]
NORMS = ("forward", "backward", "ortho")

# ------------------------------------------------------------------------------------ one dimension


def _real_or_complex(name: str, input: Any) -> Tensor:
    check_tensor(name, "input", input)
    if not input.ndim:
        raise RuntimeError(f"{name}: the input needs at least one dimension")
    dtype = floating(input._type.dtype)
    if dtype.bits < 32:
        raise RuntimeError(
            f"Unsupported dtype {SCALAR_NAMES[dtype]}: {name} computes in float32 or wider"
        )
    return input if input._type.dtype is dtype else cast_tensor(input, dtype)


def _complex(name: str, input: Any) -> Tensor:
    x = _real_or_complex(name, input)
    dtype = x._type.dtype
    return x if dtype.is_complex else cast_tensor(x, dtype.complex)


@keeps_as_one("x")
def _of_reals(x: Tensor) -> Tensor:
    """`x`, from now on complex where it is real, to be transformed: PyTorch keeps it."""
    return x if x._type.dtype.is_complex else cast_tensor(x, x._type.dtype.complex)


def _real(name: str, input: Any) -> Tensor:
    x = _real_or_complex(name, input)
    if x._type.dtype.is_complex:
        raise RuntimeError(f"{name} expects a real input tensor, but got {input.dtype}: use fft()")
    return x


def _sized(x: Tensor, n: Any, axis: int) -> Tensor:
    """`x` cut or filled with zeros to `n` elements along `axis`."""
    given = x.shape[axis]
    count = given if n is None else n
    if count < 1:
        raise RuntimeError(f"Invalid number of data points ({count}) specified")
    if count < given:
        return x.narrow(axis, 0, count)  # type: ignore[no-any-return]
    if count == given:
        return x
    rest = x.new_zeros((*x.shape[:axis], count - given, *x.shape[axis + 1 :]))
    return FUNCTIONS["cat"]((x, rest), axis)  # type: ignore[no-any-return]


def _factor(norm: str | None, inverse: bool, count: int) -> float:
    norm = "backward" if norm is None else norm
    if norm not in NORMS:
        raise RuntimeError(f"Invalid normalization mode: {norm!r}; give one of {', '.join(NORMS)}")
    if norm == "ortho":
        return 1 / math.sqrt(count)
    return 1 / count if inverse == (norm == "backward") else 1.0


def _scaled(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1.0 else x * factor  # type: ignore[no-any-return]


def _transformed(x: Tensor, axes: Sequence[int], inverse: bool, norm: str | None) -> Tensor:
    """Complex `x`, transformed along `axes`."""
    factor = _factor(norm, inverse, math.prod(x.shape[a] for a in axes))
    for axis in axes:
        x = run("FftC2C", ops.fft, x, dim=axis, inverse=inverse)
    return _scaled(x, factor)


def _half(x: Tensor, axis: int) -> Tensor:
    """The first half of a spectrum: that of real numbers says no more."""
    return x.narrow(axis, 0, x.shape[axis] // 2 + 1)  # type: ignore[no-any-return]


def _whole(x: Tensor, n: int, axis: int) -> Tensor:
    """The spectrum of n real numbers, of which `x` is (or holds) the first half."""
    x = _sized(x, n // 2 + 1, axis)
    rest = x.narrow(axis, 1, (n - 1) // 2).flip(axis).conj()
    return FUNCTIONS["cat"]((x, rest), axis)  # type: ignore[no-any-return]


def _to_real(name: str, input: Any, n: Any, dim: int, norm: str | None, inverse: bool) -> Tensor:
    x = _complex(name, input)
    axis = axis_of(dim, x.ndim)
    count = 2 * (x.shape[axis] - 1) if n is None or n == -1 else n
    if count < 1:
        raise RuntimeError(f"Invalid number of data points ({count}) specified")
    made = run("FftC2C", ops.fft, _whole(x, count, axis), dim=axis, inverse=inverse)
    return _scaled(made.real, _factor(norm, inverse, count))


def fft(
    input: Any, n: Any = None, dim: int = -1, norm: str | None = None, *, out: Any = None
) -> Tensor:
    """The transform along `dim`: complex, of n elements (default: as many as there are)."""
    x = _real_or_complex("fft", input)
    axis = axis_of(dim, x.ndim)
    return _out(_transformed(_of_reals(_sized(x, n, axis)), (axis,), False, norm), out)


def ifft(
    input: Any, n: Any = None, dim: int = -1, norm: str | None = None, *, out: Any = None
) -> Tensor:
    """The inverse of `fft`."""
    x = _real_or_complex("ifft", input)
    axis = axis_of(dim, x.ndim)
    return _out(_transformed(_of_reals(_sized(x, n, axis)), (axis,), True, norm), out)


def rfft(
    input: Any, n: Any = None, dim: int = -1, norm: str | None = None, *, out: Any = None
) -> Tensor:
    """The first n // 2 + 1 elements of the transform of real numbers; the others are their
    conjugates."""
    x = _real("rfft", input)
    axis = axis_of(dim, x.ndim)
    whole = _transformed(_of_reals(_sized(x, n, axis)), (axis,), False, norm)
    return _out(_half(whole, axis), out)


def irfft(
    input: Any, n: Any = None, dim: int = -1, norm: str | None = None, *, out: Any = None
) -> Tensor:
    """The n real numbers whose `rfft` is `input` (default of n: 2 (m - 1) for m elements)."""
    return _out(_to_real("irfft", input, n, dim, norm, True), out)


def hfft(
    input: Any, n: Any = None, dim: int = -1, norm: str | None = None, *, out: Any = None
) -> Tensor:
    """The real transform of n elements: `input` is the first half of them, the rest are its
    conjugates."""
    return _out(_to_real("hfft", input, n, dim, norm, False), out)


def ihfft(
    input: Any, n: Any = None, dim: int = -1, norm: str | None = None, *, out: Any = None
) -> Tensor:
    """The inverse of `hfft`."""
    x = _real("ihfft", input)
    axis = axis_of(dim, x.ndim)
    whole = _transformed(_of_reals(_sized(x, n, axis)), (axis,), True, norm)
    return _out(_half(whole, axis), out)


def _out(made: Tensor, out: Any) -> Tensor:
    return made if out is None else write_out("fft", made, out)


# ------------------------------------------------------------------------------- several dimensions


def _axes(name: str, x: Tensor, s: Any, dim: Any) -> tuple[list[int], list[Any]]:
    """Dimensions and the sizes asked for there; None where they stay."""
    sizes = None if s is None else [s] if isinstance(s, int) else list(s)
    dims = None if dim is None else [dim] if isinstance(dim, int) else list(dim)
    if dims is None:
        count = x.ndim if sizes is None else len(sizes)
        if count > x.ndim:
            raise RuntimeError(
                f"{name}: got shape with {count} values but input tensor only has {x.ndim} "
                "dimensions."
            )
        dims = list(range(x.ndim - count, x.ndim))
    axes = [axis_of(d, x.ndim) for d in dims]
    if len(set(axes)) != len(axes):
        raise RuntimeError(f"{name}: FFT dims must be unique, but got {dims}")
    if sizes is not None and len(sizes) != len(axes):
        raise RuntimeError(f"{name}: When given, dim and shape arguments must have the same length")
    return axes, [None] * len(axes) if sizes is None else sizes


def _all_sized(x: Tensor, axes: Sequence[int], sizes: Sequence[Any]) -> Tensor:
    for axis, size in zip(axes, sizes, strict=True):
        x = _sized(x, None if size == -1 else size, axis)
    return x


def fftn(
    input: Any, s: Any = None, dim: Any = None, norm: str | None = None, *, out: Any = None
) -> Tensor:
    """The transform along all of `dim` (default: every dimension, or as many of the last as `s`
    has)."""
    x = _complex("fftn", input)
    axes, sizes = _axes("fftn", x, s, dim)
    return _out(_transformed(_all_sized(x, axes, sizes), axes, False, norm), out)


def ifftn(
    input: Any, s: Any = None, dim: Any = None, norm: str | None = None, *, out: Any = None
) -> Tensor:
    """The inverse of `fftn`."""
    x = _complex("ifftn", input)
    axes, sizes = _axes("ifftn", x, s, dim)
    return _out(_transformed(_all_sized(x, axes, sizes), axes, True, norm), out)


def _from_real(name: str, input: Any, s: Any, dim: Any, norm: str | None, inverse: bool) -> Tensor:
    x = _real(name, input)
    axes, sizes = _axes(name, x, s, dim)
    if not axes:
        raise RuntimeError(f"{name} must transform at least one axis")
    x = _of_reals(_all_sized(x, axes, sizes))
    factor = _factor(norm, inverse, math.prod(x.shape[a] for a in axes))
    x = _half(run("FftC2C", ops.fft, x, dim=axes[-1], inverse=inverse), axes[-1])
    for axis in axes[:-1]:
        x = run("FftC2C", ops.fft, x, dim=axis, inverse=inverse)
    return _scaled(x, factor)


def _all_to_real(
    name: str, input: Any, s: Any, dim: Any, norm: str | None, inverse: bool
) -> Tensor:
    x = _complex(name, input)
    axes, sizes = _axes(name, x, s, dim)
    if not axes:
        raise RuntimeError(f"{name} must transform at least one axis")
    x = _all_sized(x, axes[:-1], sizes[:-1])
    x = _transformed(x, axes[:-1], inverse, norm)
    return _to_real(name, x, sizes[-1], axes[-1], norm, inverse)


def rfftn(
    input: Any, s: Any = None, dim: Any = None, norm: str | None = None, *, out: Any = None
) -> Tensor:
    """The transform of real numbers along `dim`: the first half along the last one."""
    return _out(_from_real("rfftn", input, s, dim, norm, False), out)


def irfftn(
    input: Any, s: Any = None, dim: Any = None, norm: str | None = None, *, out: Any = None
) -> Tensor:
    """The real numbers whose `rfftn` is `input`."""
    return _out(_all_to_real("irfftn", input, s, dim, norm, True), out)


def hfftn(
    input: Any, s: Any = None, dim: Any = None, norm: str | None = None, *, out: Any = None
) -> Tensor:
    """The real transform of what `input` is the first half of, along the last of `dim`."""
    return _out(_all_to_real("hfftn", input, s, dim, norm, False), out)


def ihfftn(
    input: Any, s: Any = None, dim: Any = None, norm: str | None = None, *, out: Any = None
) -> Tensor:
    """The inverse of `hfftn`."""
    return _out(_from_real("ihfftn", input, s, dim, norm, True), out)


def _plane(name: str, of: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def transform(
        input: Any, s: Any = None, dim: Any = (-2, -1), norm: str | None = None, *, out: Any = None
    ) -> Tensor:
        return of(input, s, dim, norm, out=out)

    transform.__name__ = transform.__qualname__ = name
    transform.__doc__ = f"`{of.__name__}` along two dimensions, by default the last ones."
    return transform


fft2, ifft2, rfft2, irfft2, hfft2, ihfft2 = (
    _plane(name, of)
    for name, of in (
        ("fft2", fftn),
        ("ifft2", ifftn),
        ("rfft2", rfftn),
        ("irfft2", irfftn),
        ("hfft2", hfftn),
        ("ihfft2", ihfftn),
    )
)

# ------------------------------------------------------------------------------ frequencies, shifts


def fftfreq(
    n: int,
    d: float = 1.0,
    *,
    out: Any = None,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """The frequencies [0, 1, ..., -2, -1] / (n d) of the elements of a transform."""
    parts = [
        FUNCTIONS["arange"](*ends, device=device) for ends in ((0, (n + 1) // 2), (-(n // 2), 0))
    ]
    return _frequencies(FUNCTIONS["cat"](parts), n, d, out, dtype, requires_grad)


def rfftfreq(
    n: int,
    d: float = 1.0,
    *,
    out: Any = None,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """The frequencies [0, 1, ..., n // 2] / (n d) of the elements of `rfft`."""
    return _frequencies(
        FUNCTIONS["arange"](n // 2 + 1, device=device), n, d, out, dtype, requires_grad
    )


def _frequencies(
    order: Tensor, n: int, d: float, out: Any, dtype: Any, requires_grad: bool
) -> Tensor:
    step = 1.0 / (n * d) if n * d else math.inf
    made = order.to(get_default_dtype() if dtype is None else dtype) * step
    made = _out(made, out)
    return made.requires_grad_() if requires_grad else made


def _shifted(input: Any, dim: Any, by: Callable[[int], int], name: str) -> Tensor:
    check_tensor(name, "input", input)
    dims = range(input.ndim) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    axes = [axis_of(d, input.ndim) for d in dims]
    return FUNCTIONS["roll"](input, tuple(by(input.shape[a]) for a in axes), tuple(axes))  # type: ignore[no-any-return]


def fftshift(input: Any, dim: Any = None) -> Tensor:
    """The frequency 0 moved to the middle of `dim` (default: of every dimension)."""
    return _shifted(input, dim, lambda n: n // 2, "fftshift")


def ifftshift(input: Any, dim: Any = None) -> Tensor:
    """The inverse of `fftshift`."""
    return _shifted(input, dim, lambda n: (n + 1) // 2, "ifftshift")


globals().update({name: accepting(name, globals()[name], "torch.fft") for name in __all__})
__getattr__ = attribute_of(__name__)
