"""What the factorizations mean, in NumPy, and the conventions that make each of them unique.

A factorization leaves choices open: the sign of a vector, a basis where values are equal, the order
of equal pivots. They are made here so that rounding does not decide them, and code generators make
the same ones:

Vectors of equal values. Singular values or eigenvalues that differ by at most `SAME` times the
largest count
    as equal. Within such a group (mostly a single vector) the vectors are turned: the first takes
    all that the group has along one axis, the one where that is most, the second the same of what
    is left, and so on. That component is real and positive. Of components that differ by `SLACK`
    only the first is the largest. For `svd` this is said of the shorter vectors, those of v where x
    is tall or square, else of u; the others follow, and those of values that count as zero complete
    the orthonormal set, each by the axis that has most outside of it.
Reflections. A column's diagonal element in r has the sign opposite to that of the element that it
comes from,
    as in LAPACK; an element that is zero up to `SAME` counts as positive, and a column that
    vanishes below it is not reflected.
Elimination (`cholesky`, `lu`, `triangular_solve`). Each element is updated step by step, every
product and
    every difference rounded, so that pivots and failures are the same in every bit. The pivot is
    the first of the largest, never a nan where there is a number.

General matrices (`eig`). The order of the eigenvalues and the phases of the vectors are those of
    LAPACK's `geev` in f64 or c128: no target has code of its own for it, each calls this.

f32 and c64 are computed in f64 and c128, and rounded once. A matrix with an inf or nan has factors
of nan (elimination goes on with them).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .common import quiet

SAME = 2.0**-44  # of the largest value or of a column: less is rounding
SLACK = 2.0**-12  # by which a component may fall short of the largest and still be it

Factors = tuple[np.ndarray, ...]


def in_f64(function: Callable[..., Factors]) -> Callable[..., Factors]:
    """`function` on f64 or c128 matrices [batch, m, n], its floating-point results rounded to x's
    dtype."""

    @quiet
    def run(x: np.ndarray, *arguments: Any) -> Factors:
        real = np.zeros((), x.dtype).real.dtype
        wide = np.result_type(x.dtype, np.float64)
        found = function(
            x.reshape((math.prod(x.shape[:-2]), *x.shape[-2:])).astype(wide), *arguments
        )
        kinds = {"f": real, "c": x.dtype}
        return tuple(
            f.reshape((*x.shape[:-2], *f.shape[1:])).astype(kinds.get(f.dtype.kind, f.dtype))
            for f in found
        )

    return run


def adjoint(x: np.ndarray) -> np.ndarray:
    return np.conj(np.swapaxes(x, -1, -2))


def _cleaned(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x with zeros for the matrices that are not finite, and what to add to the factors of each: 0
    or nan."""
    finite = np.isfinite(x).all((1, 2))
    return np.where(finite[:, None, None], x, 0), np.where(finite, 0.0, np.nan)


def _first_largest(sizes: np.ndarray) -> np.ndarray:
    """The first position along the last axis that holds the largest number, up to `SLACK`."""
    return np.argmax(sizes >= (1 - SLACK) * sizes.max(-1, keepdims=True), -1)


# vectors of equal values --------------------------------------------------------------------------


def _settle(values: np.ndarray, rows: np.ndarray, others: np.ndarray) -> None:
    """Turn vectors [batch, k, *] in place, those in `others` along with those in `rows`."""
    if 0 in rows.shape:
        return
    axis = _first_largest(np.abs(rows) ** 2)[..., None]
    leading = np.take_along_axis(rows, axis, -1)
    phase = np.conj(leading) / np.abs(leading)
    rows *= phase
    others *= phase
    gaps = np.abs(np.diff(values, axis=-1))
    for place in np.flatnonzero((gaps <= _same(values)[:, None]).any(-1)):
        _settle_groups(values[place], rows[place], others[place])


def _same(values: np.ndarray) -> np.ndarray:
    return SAME * np.abs(values).max(-1)


def _settle_groups(values: np.ndarray, rows: np.ndarray, others: np.ndarray) -> None:
    end, same = 0, _same(values)
    for r in range(len(values)):
        if r == end:
            end = r + int(np.sum(np.abs(values[r:] - values[r]) <= same))
        axis = int(_first_largest((np.abs(rows[r:end]) ** 2).sum(0)))
        turn, first = np.linalg.qr(rows[r:end, axis, None], "complete")
        turn[:, 0] *= first[0, 0] / np.abs(first[0, 0])
        rows[r:end] = adjoint(turn) @ rows[r:end]
        others[r:end] = adjoint(turn) @ others[r:end]


def _complete(rows: np.ndarray, first: int) -> None:
    """Rows from `first` on become unit vectors orthogonal to those before."""
    for r in range(first, len(rows)):
        done = rows[:r]
        axis = int(_first_largest(1 - (np.abs(done) ** 2).sum(0)))
        row = np.zeros_like(rows[r])
        row[axis] = 1
        for _ in range(2):
            row -= (row @ adjoint(done)) @ done
        rows[r] = row / np.linalg.norm(row)


@in_f64
def svd(x: np.ndarray) -> Factors:
    """u, s, vh of the reduced decomposition."""
    m, n = x.shape[-2:]
    x, taint = _cleaned(x)
    u, s, vh = np.linalg.svd(x, full_matrices=False)
    left, right = adjoint(u).copy(), vh.copy()
    short, long = (left, right) if m < n else (right, left)
    _settle(s, short, long)
    for place in np.flatnonzero((s[:, -1:] <= _same(s)[:, None]).any(-1)) if s.size else ():
        _complete(long[place], int(np.sum(s[place] > _same(s[place]))))
    shift = taint[:, None, None]
    return adjoint(left) + shift, s + taint[:, None], right + shift


@in_f64
def eigh(x: np.ndarray) -> Factors:
    """Eigenvalues and eigenvectors, from the lower triangle."""
    x, taint = _cleaned(np.tril(x))
    values, vectors = np.linalg.eigh(x, "L")
    rows = adjoint(vectors).copy()
    _settle(values, rows, rows[..., :0])
    return values + taint[:, None], adjoint(rows) + taint[:, None, None]


@quiet
def eig(x: np.ndarray) -> Factors:
    """Eigenvalues and eigenvectors of matrices that need not be symmetric."""
    finite = np.isfinite(x).all((-2, -1))
    values, vectors = np.linalg.eig(np.where(finite[..., None, None], x, 0))
    wide = np.result_type(x.dtype, np.complex64)
    taint = np.where(finite, 0, np.nan).astype(wide)
    return values.astype(wide) + taint[..., None], vectors.astype(wide) + taint[..., None, None]


# reflections --------------------------------------------------------------------------------------


@in_f64
def qr(x: np.ndarray, complete: bool) -> Factors:
    """q and r: Householder's reflections (Golub, Van Loan, "Matrix Computations", 5.2)."""
    m, n = x.shape[-2:]
    k = m if complete else min(m, n)
    r, taint = _cleaned(x)
    largest = np.abs(r).max((1, 2), initial=2.0**-1000)
    # no square overflows or vanishes
    scale = np.ldexp(1.0, np.frexp(largest)[1] - 1)[:, None, None]
    r = r / scale
    q = np.broadcast_to(np.eye(m, k, dtype=x.dtype), (len(x), m, k)).copy()
    tiny = SAME * np.linalg.norm(r, axis=-2)
    reflectors = [_reflect(r, j, tiny[:, j]) for j in range(min(m, n))]
    for j, (u, factor) in reversed(list(enumerate(reflectors))):
        q[:, j:] -= factor * u * (adjoint(u) @ q[:, j:])
    taints = taint[:, None, None]
    return q + taints, np.triu(r[:, :k] * scale + taints)


def _reflect(r: np.ndarray, j: int, tiny: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reflect column j, in place, and those after it; the reflection is 1 - factor u u^H."""
    column = r[:, j:, j].copy()
    first, below = column[:, 0].copy(), np.linalg.norm(column[:, 1:], axis=-1)
    moved = (below > tiny) | (np.abs(first.imag) > tiny)
    length = np.where(moved, np.hypot(np.abs(first), below), 1)
    beta = np.where(first.real < -tiny, length, -length)
    column[:, 0] -= beta
    factor = np.where(moved, (1 - first / beta) / np.abs(column[:, 0]) ** 2, 0)
    u, factor = column[..., None], factor[:, None, None]
    r[:, j:, j:] -= np.conj(factor) * u * (adjoint(u) @ r[:, j:, j:])
    r[:, j + 1 :, j] = np.where(moved[:, None], 0, r[:, j + 1 :, j])
    return u, factor


# elimination --------------------------------------------------------------------------------------


@in_f64
def cholesky(x: np.ndarray) -> Factors:
    """The lower factor, zero from the column on whose pivot is not positive, and that column's
    number."""
    a, n = np.tril(x), x.shape[-1]
    info = np.zeros(len(a), np.int32)
    for j in range(n):
        pivot = a[:, j, j].real
        info = np.where((info == 0) & ~(pivot > 0), j + 1, info).astype(np.int32)
        root = np.sqrt(pivot)
        a[:, j, j] = root
        a[:, j + 1 :, j] /= root[:, None]
        a[info != 0, j:, j] = 0
        column = a[:, j + 1 :, j]
        a[:, j + 1 :, j + 1 :] -= column[:, :, None] * np.conj(column[:, None, :])
    return np.tril(a), info


@in_f64
def lu(x: np.ndarray) -> Factors:
    """Both factors in one matrix, the order of the rows, the row exchanged at each step, and
    info."""
    a, (batch, m, n) = x.copy(), x.shape
    order = np.broadcast_to(np.arange(m), (batch, m)).copy()
    pivots = np.zeros((batch, min(m, n)), np.int64)
    info, each = np.zeros(batch, np.int32), np.arange(batch)
    for j in range(min(m, n)):
        # of complex numbers as LAPACK does
        sizes = np.abs(a[:, j:, j].real) + np.abs(a[:, j:, j].imag)
        best = j + np.argmax(np.where(np.isnan(sizes), -1, sizes), -1)
        pivots[:, j] = best
        for lines in (a, order):
            lines[each, j], lines[each, best] = lines[each, best], lines[each, j].copy()
        good = a[:, j, j] != 0
        info = np.where((info == 0) & ~good, j + 1, info).astype(np.int32)
        a[good, j + 1 :, j] /= a[good, j, None, j]
        a[good, j + 1 :, j + 1 :] -= a[good, j + 1 :, j, None] * a[good, j, None, j + 1 :]
    return a, order, pivots, info


@quiet
def triangular_solve(a: np.ndarray, b: np.ndarray, upper: bool, unit: bool) -> np.ndarray:
    """Substitution: what is known of x is taken out of all rows that are left, then the next is
    known."""
    wide, n = np.result_type(a.dtype, np.float64), a.shape[-1]
    a, x = a.astype(wide), b.astype(wide)
    for i in range(n - 1, -1, -1) if upper else range(n):
        if not unit:
            x[..., i, :] /= a[..., i, i, None]
        left = slice(0, i) if upper else slice(i + 1, n)
        x[..., left, :] -= a[..., left, i, None] * x[..., i, None, :]
    return x.astype(b.dtype)
