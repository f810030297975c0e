"""Factorizations for the table of tensor ops, as functions that do not depend on the sign of a
vector."""

from __future__ import annotations

from typing import Any

from graphtorch.ir import ops
from graphtorch.ir.dtype import i64
from graphtorch.ir.graph import Value
from tensor_cases import Case, T


def turned(x: Value) -> Value:
    return ops.permute(x, dims=(*range(x.rank - 2), x.rank - 1, x.rank - 2))


def squares(x: Value) -> Value:
    return ops.mul(x, x)


def unit(x: Value) -> Value:
    rows, columns = (ops.iota(shape=x.shape, dim=x.rank - d, dtype=i64) for d in (2, 1))
    return ops.cast(ops.eq(rows, columns), dtype=x.dtype)


def positive(x: Value) -> Value:
    return ops.add(ops.matmul(x, turned(x)), unit(x))


def positive_torch(x: Any) -> Any:
    return x @ x.mT + T().eye(x.shape[-1], dtype=x.dtype)


def singular(x: Value) -> tuple[Value, ...]:
    u, s, vh = ops.svd(x)
    return squares(u), s, squares(vh)


def singular_torch(x: Any) -> tuple[Any, ...]:
    u, s, vh = T().linalg.svd(x, full_matrices=False)
    return u * u, s, vh * vh


def eigen(x: Value) -> tuple[Value, ...]:
    values, vectors = ops.eigh(ops.add(x, turned(x)))
    return values, squares(vectors)


def eigen_torch(x: Any) -> tuple[Any, ...]:
    values, vectors = T().linalg.eigh(x + x.mT)
    return values, vectors * vectors


def general_eigen(x: Value) -> tuple[Value, ...]:
    values, vectors = ops.eig(x)
    return ops.abs(values), ops.abs(vectors)


def general_eigen_torch(x: Any) -> tuple[Any, ...]:
    values, vectors = T().linalg.eig(x)
    return values.abs(), vectors.abs()


def required(x: Value) -> Value:
    factor, info = ops.cholesky(positive(x))
    return ops.require(factor, info, message="not positive-definite")


def inverted(x: Value) -> Value:
    u, s, vh = ops.svd(x)
    scaled = ops.div(turned(vh), ops.reshape(s, shape=(*s.shape[:-1], 1, s.shape[-1])))
    return ops.pinv_of(x, ops.matmul(scaled, turned(u)))


def triangular(upper: bool, unit_diagonal: bool) -> Any:
    def solve(a: Value, b: Value) -> Value:
        return ops.triangular_solve(ops.add(a, unit(a)), b, upper=upper, unit=unit_diagonal)

    def solve_torch(a: Any, b: Any) -> Any:
        a = a + T().eye(a.shape[-1], dtype=a.dtype)
        a = a.triu() if upper else a.tril()
        if unit_diagonal:
            a = a - T().diag_embed(a.diagonal(0, -2, -1)) + T().eye(a.shape[-1], dtype=a.dtype)
        return T().linalg.solve_triangular(a, b, upper=upper, unitriangular=unit_diagonal)

    return solve, solve_torch


FACTOR = [
    Case("svd", ((4, 3),), singular, singular_torch, wide=True, symbolic=()),
    Case("svd wide batch", ((2, 3, 4),), singular, singular_torch, wide=True, symbolic=((0, 0),)),
    Case("svd empty", ((0, 3),), singular, singular_torch, wide=True),
    Case("eigh", ((2, 3, 3),), eigen, eigen_torch, wide=True, symbolic=((0, 0),)),
    Case("eig", ((2, 3, 3),), general_eigen, general_eigen_torch, wide=True, symbolic=((0, 0),)),
    Case("qr", ((2, 4, 3),), ops.qr, lambda x: T().linalg.qr(x), wide=True, symbolic=((0, 0),)),
    Case(
        "cholesky",
        ((2, 3, 3),),
        lambda x: ops.cholesky(positive(x)),
        lambda x: T().linalg.cholesky_ex(positive_torch(x)),
        wide=True,
        symbolic=((0, 0),),
    ),
    Case(
        "require", ((3, 3),), required, lambda x: T().linalg.cholesky(positive_torch(x)), wide=True
    ),
    *[
        Case(
            f"lu {shape}",
            (shape,),
            lambda x: ops.lu(x)[0],
            lambda x: T().linalg.lu_factor(x)[0],
            wide=True,
        )
        for shape in ((2, 3, 3), (2, 2, 4), (4, 3))
    ],
    *[
        Case(
            f"pinv_of {shape}",
            (shape,),
            inverted,
            lambda x: T().linalg.pinv(x),
            wide=True,
            symbolic=(),
        )
        for shape in ((4, 3), (2, 2, 4))
    ],
    *[
        Case(
            f"triangular_solve {upper} {one}",
            ((2, 3, 3), (2, 3, 2)),
            *triangular(upper, one),
            wide=True,
        )
        for upper in (False, True)
        for one in (False, True)
    ],
]
