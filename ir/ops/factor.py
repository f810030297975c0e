"""Factorizations of matrices and the solution of triangular systems; leading dimensions are a
batch.

Gradients: M. Giles, "An extended collection of matrix derivative results for forward and reverse
mode algorithmic differentiation" (2008); I. Murray, "Differentiation of the Cholesky decomposition"
(2016); M. Seeger et al., "Auto-differentiating linear algebra" (2017); G. Golub and V. Pereyra,
"The differentiation of pseudo-inverses and nonlinear least squares problems whose variables
separate" (1973). Where eigenvalues or singular values coincide, gradients of the vectors are not
defined and come out as inf or nan.

Which of several factorizations it is (signs, bases, pivots) is stated in `factor_reference`.
"""

from __future__ import annotations

from ..dataclass import dataclass
from ..dtype import c64, c128, i32, i64
from ..graph import Node, Type, Value
from ..op import Attrs, Kind, Op, Weight
from ..shape import Dim
from . import factor_reference
from .batching import leading, unchanged
from .checks import attrs_of, listed
from .common import check_same_dtype, conj, expand_to, number, ops, swap_last, zeros

__all__ = ["cholesky", "eig", "eigh", "lu", "pinv_of", "qr", "svd", "triangular_solve"]

PHASE = 1e-2  # of a loss that is said to depend on phases, as PyTorch has it
PHASES = (
    "linalg_eig_backward: The eigenvectors in the complex case are specified up to multiplication "
    "by e^{i phi}. The specified loss function depends on this quantity, so it is ill-defined."
)


# shapes and checks --------------------------------------------------------------------------------


def _check_matrix(name: str, x: Type, square: bool = False) -> None:
    if x.rank < 2:
        raise RuntimeError(
            f"{name}: The input tensor A must have at least 2 dimensions, but got {listed(x.shape)}"
        )
    if x.dtype.name not in ("f32", "f64", "c64", "c128"):
        hint = "a low precision dtype" if x.dtype.is_floating_point else "an integer or bool dtype"
        raise RuntimeError(
            f"{name}: Expected a floating point or complex tensor as input. Got "
            f"{x.dtype.torch_name}, {hint}: convert it with .float() or .double()"
        )
    if square and x.shape[-1] != x.shape[-2]:
        raise RuntimeError(
            f"{name}: A must be batches of square matrices, but they are {x.shape[-2]} by "
            f"{x.shape[-1]} matrices"
        )


def _least(a: Dim, b: Dim) -> Dim:
    """The smaller of two sizes, which must be known to be ordered."""
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    if a <= b:
        return a
    return b


def adjoint(x: Value) -> Value:
    """The conjugate transpose of matrices."""
    return swap_last(conj(x))


# singular values ----------------------------------------------------------------------------------


def _svd_infer(attrs: Attrs, x: Type) -> tuple[Type, ...]:
    _check_matrix("linalg.svd", x)
    *batch, m, n = x.shape
    k = _least(m, n)
    return (
        x.with_shape((*batch, m, k)),
        Type(x.dtype.real, (*batch, k)),
        x.with_shape((*batch, k, n)),
    )


def _row(s: Value) -> Value:
    """A vector as the scale of columns: ``m * _row(s)`` is ``m @ diag(s)``."""
    return ops.reshape(s, shape=(*s.shape[:-1], 1, s.shape[-1]))


def _column(s: Value) -> Value:
    return ops.reshape(s, shape=(*s.shape, 1))


def _as_diagonal(s: Value) -> Value:
    """Square matrices with `s` on the diagonal."""
    shape = (*s.shape, s.shape[-1])
    return ops.mul(expand_to(_row(s), shape), _identity(shape, s))


def _identity(shape: tuple[Dim, ...], like: Value) -> Value:
    """Unit matrices of `shape`, of the dtype of `like`."""
    rows, columns = (ops.iota(shape=tuple(shape), dim=len(shape) - d, dtype=i64) for d in (2, 1))
    return ops.cast(ops.eq(rows, columns), dtype=like.dtype)


def _gaps(squares: Value) -> Value:
    """``E[i, j] = squares[j] - squares[i]``, 1 on the diagonal."""
    shape = (*squares.shape, squares.shape[-1])
    gaps = ops.sub(expand_to(_row(squares), shape), expand_to(_column(squares), shape))
    return ops.add(gaps, _identity(shape, squares))


def _real_scale(matrix: Value, scale: Value) -> Value:
    """A matrix times real factors."""
    return ops.mul(
        matrix, scale if scale.dtype is matrix.dtype else ops.cast(scale, dtype=matrix.dtype)
    )


def _skew(a: Value) -> Value:
    return ops.sub(a, adjoint(a))


def _svd_vjp(node: Node, gu: Value | None, gs: Value | None, gvh: Value | None) -> tuple[Value]:
    u, s, vh = node.results()
    if gu is None and gvh is None:
        assert gs is not None
        return (ops.matmul(_real_scale(u, _row(gs)), vh),)
    inner = None if gs is None else ops.cast(_as_diagonal(gs), dtype=u.dtype)
    gaps = ops.div(number(1, s.dtype), _gaps(ops.mul(s, s)))
    parts = [] if inner is None else [inner]
    if gu is not None:
        turned = _real_scale(_skew(ops.matmul(adjoint(u), gu)), gaps)
        parts.append(_real_scale(turned, _row(s)))
    if gvh is not None:
        turned = _real_scale(_skew(ops.matmul(vh, adjoint(gvh))), gaps)
        parts.append(_real_scale(turned, _column(s)))
    if u.dtype.is_complex and gu is not None:
        parts.append(_phase(ops.matmul(adjoint(u), gu), s))
    total = parts[0]
    for part in parts[1:]:
        total = ops.add(total, part)
    gradient = ops.matmul(ops.matmul(u, total), vh)
    inverse = ops.div(number(1, s.dtype), s)
    if gu is not None and node.operands[0].shape[-2] != s.shape[-1]:
        rest = ops.sub(gu, ops.matmul(u, ops.matmul(adjoint(u), gu)))
        gradient = ops.add(gradient, ops.matmul(_real_scale(rest, _row(inverse)), vh))
    if gvh is not None and node.operands[0].shape[-1] != s.shape[-1]:
        rest = ops.sub(gvh, ops.matmul(ops.matmul(gvh, adjoint(vh)), vh))
        gradient = ops.add(gradient, ops.matmul(u, _real_scale(rest, _column(inverse))))
    return (gradient,)


def _phase(uhgu: Value, s: Value) -> Value:
    """What fixes the phase of complex vectors: the imaginary diagonal of U^H gU over S."""
    imaginary = ops.div(ops.imag(uhgu), expand_to(_row(s), uhgu.shape))
    diagonal = ops.mul(imaginary, _identity(uhgu.shape, imaginary))
    return ops.complex(zeros(diagonal.type), diagonal)


svd = Op(
    "svd",
    "Singular value decomposition x = u diag(s) vh of matrices, s in descending order; reduced: "
    "min(m, n) columns of u and rows of vh. The largest component (the first of such) of a row of "
    "vh is positive, or, where m < n, of a column of u.",
    ("x",),
    infer=_svd_infer,
    vjp=_svd_vjp,
    reference=lambda attrs, x: factor_reference.svd(x),
    kind=Kind.WHOLE,
    weight=Weight.COSTLY,
    batch=unchanged,
)


# eigenvalues of symmetric matrices ----------------------------------------------------------------


def _eigh_infer(attrs: Attrs, x: Type) -> tuple[Type, ...]:
    _check_matrix("linalg.eigh", x, square=True)
    return Type(x.dtype.real, x.shape[:-1]), x


def _eigh_vjp(node: Node, gw: Value | None, gv: Value | None) -> tuple[Value]:
    w, v = node.results()
    inner = None if gw is None else ops.cast(_as_diagonal(gw), dtype=v.dtype)
    if gv is not None:
        turned = ops.matmul(adjoint(v), gv)
        half = number(0.5, w.dtype)
        off = ops.sub(half, ops.mul(half, _identity(turned.shape, w)))
        # of all gradients of what reads one triangle the symmetric one, which PyTorch's is
        turned = _real_scale(_skew(turned), ops.div(off, _gaps(w)))
        inner = turned if inner is None else ops.add(inner, turned)
    assert inner is not None
    return (ops.matmul(ops.matmul(v, inner), adjoint(v)),)


eigh = Op(
    "eigh",
    "Eigenvalues (ascending) and eigenvectors (columns) of symmetric or Hermitian matrices; reads "
    "the lower triangle. The largest component of a vector (the first of such) is positive.",
    ("x",),
    infer=_eigh_infer,
    vjp=_eigh_vjp,
    reference=lambda attrs, x: factor_reference.eigh(x),
    kind=Kind.WHOLE,
    weight=Weight.COSTLY,
    batch=unchanged,
)


# eigenvalues of general matrices ------------------------------------------------------------------


def _eig_infer(attrs: Attrs, x: Type) -> tuple[Type, ...]:
    _check_matrix("linalg.eig", x, square=True)
    kind = x.dtype if x.dtype.is_complex else c64 if x.dtype.itemsize == 4 else c128
    return Type(kind, x.shape[:-1]), Type(kind, x.shape)


def _eig_vjp(node: Node, gw: Value | None, gv: Value | None) -> tuple[Value]:
    """v^-H (diag(gw) + off(v^H (gv - v d) / gaps)) v^H, where v d is what keeps the length of
    vectors; C. Boeddeker et al., "On the computation of complex-valued gradients" (2017)."""
    w, v = node.results()
    vh = adjoint(v)
    inner = None if gw is None else _as_diagonal(gw)
    if gv is not None:
        turned = ops.matmul(vh, gv)
        along = ops.mul(turned, _identity(turned.shape, turned))
        lengths = ops.sum(ops.real(along), dims=(along.rank - 2,), keepdim=True)
        turned = ops.sub(turned, _real_scale(ops.matmul(vh, v), expand_to(lengths, along.shape)))
        off = ops.sub(number(1, turned.dtype), _identity(turned.shape, turned))
        turned = ops.mul(ops.div(turned, _gaps(conj(w))), off)
        turned = _same_for_all_phases(turned, along)
        inner = turned if inner is None else ops.add(inner, turned)
    assert inner is not None
    gradient = _solved(vh, ops.matmul(inner, vh))
    return (gradient if node.operands[0].dtype.is_complex else ops.real(gradient),)


def _same_for_all_phases(x: Value, along: Value) -> Value:
    """x, once it is known that what was made of the vectors does not change with their phases:
    `along` has no imaginary part."""
    size = ops.abs(ops.imag(along))
    depends = ops.any(
        ops.gt(size, number(PHASE, size.dtype)), dims=tuple(range(size.rank)), keepdim=False
    )
    return ops.require(x, ops.cast(depends, dtype=i32), message=PHASES, kind="runtime")  # type: ignore[no-any-return]


def _solved(a: Value, b: Value) -> Value:
    """a^-1 b."""
    packed, order, *_ = ops.lu(a)
    place = ops.expand(_column(order), shape=b.shape)
    b = ops.gather(b, place, dim=b.rank - 2)
    b = ops.triangular_solve(packed, b, upper=False, unit=True)
    return ops.triangular_solve(packed, b, upper=True)  # type: ignore[no-any-return]


eig = Op(
    "eig",
    "Eigenvalues and eigenvectors (columns) of square matrices, complex also where the matrices "
    "are real. Their order and phases are LAPACK's (geev): vectors have length 1, and their "
    "largest component is real.",
    ("x",),
    infer=_eig_infer,
    vjp=_eig_vjp,
    reference=lambda attrs, x: factor_reference.eig(x),
    kind=Kind.WHOLE,
    weight=Weight.COSTLY,
    batch=unchanged,
)


# orthogonal factor --------------------------------------------------------------------------------


@dataclass(frozen=True)
class QRAttrs(Attrs):
    """complete: all m columns of q instead of min(m, n)."""

    complete: bool = False


def _qr_infer(attrs: QRAttrs, x: Type) -> tuple[Type, ...]:
    _check_matrix("linalg.qr", x)
    *batch, m, n = x.shape
    k = m if attrs.complete else _least(m, n)
    return x.with_shape((*batch, m, k)), x.with_shape((*batch, k, n))


def _qr_vjp(node: Node, gq: Value | None, gr: Value | None) -> tuple[Value]:
    q, r = node.results()
    if q.shape[-1] != r.shape[-1]:
        raise RuntimeError(
            "The QR decomposition is not differentiable when mode='complete' and nrows > ncols, "
            "nor here for more columns than rows: take it of the first columns"
        )
    gq = zeros(q.type) if gq is None else gq
    gr = zeros(r.type) if gr is None else gr
    m = ops.sub(ops.matmul(gr, adjoint(r)), ops.matmul(adjoint(q), gq))
    upper = ops.triu(m, diagonal=1)
    symmetric = ops.add(ops.add(upper, adjoint(upper)), _real_diagonal(m))
    left = ops.add(gq, ops.matmul(q, adjoint(symmetric)))
    solved = ops.triangular_solve(r, adjoint(left), upper=True)
    return (adjoint(solved),)


def _real_diagonal(m: Value) -> Value:
    diagonal = ops.mul(m, _identity(m.shape, m))
    return ops.cast(ops.real(diagonal), dtype=m.dtype) if m.dtype.is_complex else diagonal


qr = Op(
    "qr",
    "x = q r with orthonormal columns of q and upper triangular r, with the signs of LAPACK's "
    "Householder reflections.",
    ("x",),
    infer=_qr_infer,
    vjp=_qr_vjp,
    reference=lambda attrs, x: factor_reference.qr(x, attrs.complete),
    attrs=QRAttrs,
    kind=Kind.WHOLE,
    weight=Weight.COSTLY,
    batch=unchanged,
)


# positive-definite matrices -----------------------------------------------------------------------


def _cholesky_infer(attrs: Attrs, x: Type) -> tuple[Type, ...]:
    _check_matrix("linalg.cholesky", x, square=True)
    return x, Type(i32, x.shape[:-2])


def _cholesky_vjp(node: Node, g: Value | None, _: Value | None = None) -> tuple[Value | None]:
    if g is None:
        return (None,)
    factor = node.result(0)
    m = ops.tril(ops.matmul(adjoint(factor), g), diagonal=0)
    m = ops.sub(m, ops.mul(ops.mul(m, _identity(m.shape, m)), number(0.5, m.dtype)))
    m = ops.add(m, adjoint(m))  # twice the symmetric part of Murray's P
    upper = adjoint(factor)
    half = ops.triangular_solve(upper, m, upper=True)
    whole = ops.triangular_solve(upper, adjoint(half), upper=True)
    return (ops.mul(adjoint(whole), number(0.5, m.dtype)),)


cholesky = Op(
    "cholesky",
    "The lower triangular factor l of x = l l^H, read from the lower triangle, and info: 0, or the "
    "order of the first leading minor that is not positive; l is 0 from that column on.",
    ("x",),
    infer=_cholesky_infer,
    vjp=_cholesky_vjp,
    reference=lambda attrs, x: factor_reference.cholesky(x),
    kind=Kind.WHOLE,
    weight=Weight.COSTLY,
    batch=unchanged,
)


# triangular factors -------------------------------------------------------------------------------


def _lu_infer(attrs: Attrs, x: Type) -> tuple[Type, ...]:
    _check_matrix("linalg.lu_factor", x)
    *batch, m, n = x.shape
    return x, Type(i64, (*batch, m)), Type(i64, (*batch, _least(m, n))), Type(i32, tuple(batch))


def _lu_vjp(node: Node, g: Value | None, *_: Value | None) -> tuple[Value | None]:
    if g is None:
        return (None,)
    packed, order = node.result(0), node.result(1)
    m, n = packed.shape[-2:]
    if m == n:
        turned = _lu_square(packed, ops.tril(g, diagonal=-1), ops.triu(g, diagonal=0))
    else:
        turned = (_lu_wide if m < n else _lu_tall)(packed, g)
    place = ops.expand(_column(order), shape=turned.shape)
    return (ops.scatter(zeros(turned.type), place, turned, dim=turned.rank - 2),)


def _lu_square(packed: Value, gl: Value, gu: Value) -> Value:
    """The gradient of l u for those of the triangles: l^-H (low(l^H gl) + up(gu u^H)) u^-H."""
    lower = ops.add(ops.tril(packed, diagonal=-1), _identity(packed.shape, packed))
    upper = ops.triu(packed, diagonal=0)
    left = ops.tril(ops.matmul(adjoint(lower), gl), diagonal=-1)
    right = ops.triu(ops.matmul(gu, adjoint(upper)), diagonal=0)
    inner = ops.triangular_solve(adjoint(lower), ops.add(left, right), upper=True, unit=True)
    return adjoint(ops.triangular_solve(upper, adjoint(inner), upper=True))


def _lu_wide(packed: Value, g: Value) -> Value:
    """[b1 b2] = l [u1 u2], so that u2 = l^-1 b2: its gradient adds to b2's, and by l to that of l
    u1."""
    m, n = packed.shape[-2:]
    first, rest = _part(packed, (0, m), (0, m)), _part(packed, (0, m), (m, n))
    g1, g2 = _part(g, (0, m), (0, m)), _part(g, (0, m), (m, n))
    b2 = ops.triangular_solve(adjoint(first), g2, upper=True, unit=True)
    gl = ops.tril(ops.sub(g1, ops.matmul(b2, adjoint(rest))), diagonal=-1)
    return ops.concat(_lu_square(first, gl, ops.triu(g1, diagonal=0)), b2, dim=g.rank - 1)


def _lu_tall(packed: Value, g: Value) -> Value:
    """[b1; b2] = [l1; l2] u, so that l2 = b2 u^-1: its gradient adds to b2's, and by u to that of
    l1 u."""
    m, n = packed.shape[-2:]
    first, rest = _part(packed, (0, n), (0, n)), _part(packed, (n, m), (0, n))
    g1, g2 = _part(g, (0, n), (0, n)), _part(g, (n, m), (0, n))
    b2 = adjoint(ops.triangular_solve(first, adjoint(g2), upper=True))
    gu = ops.triu(ops.sub(g1, ops.matmul(adjoint(rest), b2)), diagonal=0)
    return ops.concat(_lu_square(first, ops.tril(g1, diagonal=-1), gu), b2, dim=g.rank - 2)


def _part(x: Value, rows: tuple[Dim, Dim], columns: tuple[Dim, Dim]) -> Value:
    """Some rows and columns of matrices."""
    *batch, _, _ = x.shape
    return ops.slice(
        x,
        start=(*[0] * len(batch), rows[0], columns[0]),
        stop=(*batch, rows[1], columns[1]),
        step=(1,) * x.rank,
    )


lu = Op(
    "lu",
    "x[order] = l u by partial pivoting: both factors in one matrix (the unit diagonal of l left "
    "out), the order of the rows, the row exchanged at each step, and info: 0, or the first zero "
    "on the diagonal of u.",
    ("x",),
    infer=_lu_infer,
    vjp=_lu_vjp,
    reference=lambda attrs, x: factor_reference.lu(x),
    kind=Kind.WHOLE,
    weight=Weight.COSTLY,
    batch=unchanged,
)


@dataclass(frozen=True)
class TriangularAttrs(Attrs):
    """upper: which triangle of a is read; unit: take its diagonal as ones."""

    upper: bool
    unit: bool = False


def _triangular_infer(attrs: TriangularAttrs, a: Type, b: Type) -> tuple[Type, ...]:
    _check_matrix("linalg.solve_triangular", a, square=True)
    check_same_dtype("linalg.solve_triangular", a, b)
    if b.rank != a.rank or b.shape[:-1] != a.shape[:-1]:
        raise RuntimeError(
            "linalg.solve_triangular: Incompatible shapes of A and B for the equation AX = B "
            f"({listed(a.shape)} and {listed(b.shape)})"
        )
    return (b,)


def _triangular_vjp(node: Node, g: Value) -> tuple[Value, Value]:
    a, x = node.operands[0], node.result()
    attrs = attrs_of(node, TriangularAttrs)
    gb = ops.triangular_solve(adjoint(a), g, upper=not attrs.upper, unit=attrs.unit)
    ga = ops.neg(ops.matmul(gb, adjoint(x)))
    if attrs.upper:
        return ops.triu(ga, diagonal=1 if attrs.unit else 0), gb
    return ops.tril(ga, diagonal=-1 if attrs.unit else 0), gb


triangular_solve = Op(
    "triangular_solve",
    "The x with a x = b for triangular a [*B, n, n] and b [*B, n, k]; the other triangle is not "
    "read.",
    ("a", "b"),
    infer=_triangular_infer,
    vjp=_triangular_vjp,
    reference=lambda attrs, a, b: factor_reference.triangular_solve(a, b, attrs.upper, attrs.unit),
    attrs=TriangularAttrs,
    kind=Kind.WHOLE,
    weight=Weight.COSTLY,
    batch=leading,
)


# pseudo-inverses ----------------------------------------------------------------------------------


def _pinv_of_infer(attrs: Attrs, a: Type, p: Type) -> tuple[Type, ...]:
    _check_matrix("linalg.pinv", a)
    check_same_dtype("linalg.pinv", a, p)
    if p.shape != (*a.shape[:-2], a.shape[-1], a.shape[-2]):
        raise RuntimeError(
            f"linalg.pinv: a pseudo-inverse of {listed(a.shape)} is not {listed(p.shape)}"
        )
    return (p,)


def _pinv_of_vjp(node: Node, g: Value) -> tuple[Value, None]:
    """dP = -P dA P + P P^H dA^H (I - A P) + (I - P A) dA^H P^H P, with the products of the shorter
    side first. Singular values that coincide do no harm, nor do zeros while the rank stays."""
    a, p = node.operands[0], node.result()
    gh, ph = adjoint(g), adjoint(p)
    if _least(a.shape[-2], a.shape[-1]) == a.shape[-2]:
        k = ops.matmul(gh, p)
        kph = ops.matmul(k, ph)
        right = ops.sub(kph, ops.matmul(a, ops.matmul(p, kph)))
        left = ops.matmul(ops.matmul(ph, p), ops.sub(gh, ops.matmul(k, a)))
        turned = ops.matmul(p, k)
    else:
        k = ops.matmul(p, gh)
        phk = ops.matmul(ph, k)
        right = ops.matmul(ops.matmul(ops.sub(gh, ops.matmul(a, k)), p), ph)
        left = ops.sub(phk, ops.matmul(ops.matmul(phk, p), a))
        turned = ops.matmul(k, p)
    return ops.sub(ops.add(right, left), adjoint(turned)), None


pinv_of = Op(
    "pinv_of",
    "p [*B, n, m], which is the pseudo-inverse of a [*B, m, n], with its gradient: p carries none.",
    ("a", "p"),
    infer=_pinv_of_infer,
    vjp=_pinv_of_vjp,
    decompose=lambda node: (node.operands[1],),
    reference=lambda attrs, a, p: p,
    kind=Kind.WHOLE,
    weight=Weight.FREE,
    batch=leading,
)
