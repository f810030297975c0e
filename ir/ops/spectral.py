"""Discrete Fourier transforms, as products with small matrices.

A transform of a length n = a b is a transforms of length b after b transforms of length a, with a
factor for each element in between (Cooley and Tukey, "An algorithm for the machine calculation of
complex Fourier series", 1965). With j = b j1 + j2, k = k1 + a k2 and w(n) = exp(-2 pi i / n):

    X[k1 + a k2] = sum over j2 of w(b)^(j2 k2) w(n)^(j2 k1) sum over j1 of w(a)^(j1 k1) x[b j1 + j2]

Lengths up to `DIRECT` are one product with the matrix w(n)^(j k). A prime above is a convolution
(Bluestein, "A linear filtering approach to the computation of the discrete Fourier transform",
1970): with j k = (j^2 + k^2 - (k - j)^2) / 2, it is one of w(n)^(j^2 / 2) x[j] with w(n)^(-j^2 /
2), done by transforms of a length 2^m.
"""

from __future__ import annotations

import math

import numpy as np

from ..dataclass import dataclass
from ..dtype import DType
from ..graph import Node, Type, Value
from ..literal import Literal
from ..op import Attrs, Kind, Op, Weight
from ..shape import numel
from .batching import along
from .checks import attrs_of
from .common import ops

__all__ = ["fft"]

DIRECT = 64  # lengths up to here are one product


@dataclass(frozen=True)
class FourierAttrs(Attrs):
    dim: int
    inverse: bool


def _infer(attrs: FourierAttrs, x: Type) -> tuple[Type, ...]:
    if not x.dtype.is_complex:
        raise RuntimeError(f"fft: expected complex numbers, got {x.dtype}")
    if not 0 <= attrs.dim < x.rank:
        raise IndexError(f"fft: dimension {attrs.dim} is out of range for {x.rank} dimensions")
    return (x,)


def _reference(attrs: FourierAttrs, x: np.ndarray) -> np.ndarray:
    if not x.size:
        return x
    found = (
        np.fft.ifft(x, axis=attrs.dim, norm="forward")
        if attrs.inverse
        else np.fft.fft(x, axis=attrs.dim)
    )
    return found.astype(x.dtype)


def _vjp(node: Node, g: Value) -> tuple[Value]:
    attrs = attrs_of(node, FourierAttrs)
    return (ops.fft(g, dim=attrs.dim, inverse=not attrs.inverse),)  # the matrix is symmetric


# ------------------------------ in terms of products


def _decompose(node: Node) -> tuple[Value, ...]:
    attrs, (x,) = attrs_of(node, FourierAttrs), node.operands
    length = x.shape[attrs.dim]
    if not isinstance(length, int):
        raise NotImplementedError(
            f"fft: the length {length} of dimension {attrs.dim} has to be known when code is "
            "generated: leave it out of the symbolic sizes"
        )
    order = (*[i for i in range(x.rank) if i != attrs.dim], attrs.dim)
    last = x if attrs.dim == x.rank - 1 else ops.permute(x, dims=order)
    made = _last(last, length, attrs.inverse)
    if last is not x:
        made = ops.permute(made, dims=tuple(sorted(range(x.rank), key=order.__getitem__)))
    return (made,)


def _last(x: Value, n: int, inverse: bool) -> Value:
    """The transform of the last dimension, of length n."""
    if n <= 1 or 0 in x.shape:
        return ops.reshape(x, shape=x.shape)
    a = _divisor(n)
    if n <= DIRECT:
        return _product(x, _roots(np.outer(np.arange(n), np.arange(n)), n, inverse))
    if a == 1:
        return _convolved(x, n, inverse)
    b, lead = n // a, x.shape[:-1]
    swap = (*range(len(lead)), len(lead) + 1, len(lead))
    columns = ops.permute(ops.reshape(x, shape=(*lead, a, b)), dims=swap)  # [*lead, j2, j1]
    inner = _last(columns, a, inverse)  # [*lead, j2, k1]
    turned = ops.mul(inner, _like(inner, _roots(np.outer(np.arange(b), np.arange(a)), n, inverse)))
    outer = _last(ops.permute(turned, dims=swap), b, inverse)  # [*lead, k1, k2]
    return ops.reshape(ops.permute(outer, dims=swap), shape=(*lead, n))


def _divisor(n: int) -> int:
    """The largest divisor of n up to its square root: 1 for a prime."""
    return next(a for a in range(math.isqrt(n), 0, -1) if n % a == 0)


def _convolved(x: Value, n: int, inverse: bool) -> Value:
    """The transform of a prime length n."""
    places = np.arange(n, dtype=object)
    chirp = _roots(places * places, 2 * n, inverse)  # w(n)^(j^2 / 2)
    size = 1 << (2 * n - 2).bit_length()
    filter = np.zeros(size, np.complex128)
    filter[:n] = chirp.conj()
    filter[size - n + 1 :] = chirp[:0:-1].conj()
    spectrum = np.fft.fft(filter) / size
    zero = ops.constant(value=Literal.of(0, x.dtype))
    turned = ops.mul(x, _like(x, chirp))
    rest = ops.expand(zero, shape=(*x.shape[:-1], size - n))
    padded = ops.concat(turned, rest, dim=x.rank - 1)
    found = _last(ops.mul(_last(padded, size, False), _like(padded, spectrum)), size, True)
    start, step = (0,) * x.rank, (1,) * x.rank
    kept = ops.slice(found, start=start, stop=(*x.shape[:-1], n), step=step)
    return ops.mul(kept, _like(kept, chirp))


def _roots(exponents: np.ndarray, n: int, inverse: bool) -> np.ndarray:
    """w(n) to `exponents`, rounded once: they are taken mod n first."""
    angles = (exponents % n).astype(np.float64) * (2 * math.pi / n)
    return np.cos(angles) + (1j if inverse else -1j) * np.sin(angles)


def _product(x: Value, matrix: np.ndarray) -> Value:
    rows = ops.reshape(x, shape=(numel(x.shape[:-1]), x.shape[-1]))
    return ops.reshape(ops.matmul(rows, _constant(matrix, x.dtype)), shape=x.shape)


def _like(x: Value, factors: np.ndarray) -> Value:
    return ops.expand(_constant(factors, x.dtype), shape=x.shape)


def _constant(elements: np.ndarray, dtype: DType) -> Value:
    return ops.constant(value=Literal.of(elements.astype(dtype.numpy), dtype))


fft = Op(
    "fft",
    "sum over j of x[j] exp(-2 pi i j k / n) along `dim`, of length n; `inverse`: exp(+...). Not "
    "scaled.",
    ("x",),
    infer=_infer,
    vjp=_vjp,
    reference=_reference,
    attrs=FourierAttrs,
    decompose=_decompose,
    kind=Kind.WHOLE,
    weight=Weight.COSTLY,
    batch=along("dim"),
)
