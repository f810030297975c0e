"""The parametrization by matrices with orthonormal columns."""

from __future__ import annotations

from typing import Any

from ... import linalg
from ..._deferred.tensor import Tensor
from ..._ops.base import FUNCTIONS
from ..._types import finfo
from ...autograd import no_grad
from ..modules import Module
from . import parametrize

MAPS = ("matrix_exp", "cayley", "householder")


class _Orthogonal(Module):
    """Any matrix [*, n, k] -> one with orthonormal columns, or rows where n < k.

    Attributes:
        base: with it the result is this orthogonal matrix times that of the map, which starts at
            the identity (M. Lezcano-Casado, Trivializations for gradient-based optimization on
            manifolds, 2019).
    """

    base: Any

    def __init__(self, weight: Tensor, orthogonal_map: str, use_trivialization: bool):
        super().__init__()
        if weight.is_complex() and orthogonal_map == "householder":
            raise ValueError("The householder parametrization does not support complex tensors.")
        self.shape = weight.shape
        self.orthogonal_map = orthogonal_map
        if use_trivialization:
            self.register_buffer("base", None)

    def forward(self, X: Tensor) -> Tensor:
        wide = X.shape[-2] < X.shape[-1]
        x = X.mT if wide else X
        if self.orthogonal_map == "householder":
            below = x.tril(-1)
            q = linalg.householder_product(below, 2.0 / (1.0 + below.square().sum(-2)))
            q = q * x.diagonal(0, -2, -1).int().unsqueeze(-2)
        else:
            q = self._of_skew(x)
        base = getattr(self, "base", None)
        if base is not None:
            q = base @ q
        return q.mT if wide else q

    def _of_skew(self, x: Tensor) -> Tensor:
        """The exponential of a skew-symmetric matrix, or Cayley's map of it; its first columns."""
        rows, columns = x.shape[-2:]
        a = x.tril()
        if rows != columns:
            a = FUNCTIONS["cat"]([a, a.new_zeros((*a.shape[:-2], rows, rows - columns))], -1)
        a = a - a.mH
        if self.orthogonal_map == "matrix_exp":
            q = linalg.matrix_exp(a)
        else:
            unit = FUNCTIONS["eye"](rows, dtype=a.dtype, device=a.device)
            q = linalg.solve(unit - a * 0.5, unit + a * 0.5)
        return q[..., :columns]

    @no_grad()
    def right_inverse(self, Q: Tensor) -> Tensor:
        if Q.shape != self.shape:
            raise ValueError(
                f"Expected a matrix or batch of matrices of shape {self.shape}. Got a tensor of "
                f"shape {Q.shape}."
            )
        wide = Q.shape[-2] < Q.shape[-1]
        q = Q.mT if wide else Q
        if not hasattr(self, "base"):
            if self.orthogonal_map != "householder":
                raise NotImplementedError(
                    "It is not possible to assign to the matrix exponential or the "
                    "Cayley parametrizations when use_trivialization=False."
                )
            made = _reflections(q)
        else:
            self.base = _square(q)
            made = -FUNCTIONS["eye"](*q.shape[-2:], dtype=q.dtype, device=q.device).expand(q.shape)
        return made.mT.clone() if wide else made.clone()


def _square(q: Tensor) -> Tensor:
    """The orthogonal matrix that begins with the columns of `q`, made orthonormal and filled up at
    random."""
    rows, columns = q.shape[-2:]
    if rows == columns:
        rest = (q.mH @ q - FUNCTIONS["eye"](columns, dtype=q.dtype, device=q.device)).abs().amax()
        if rest <= 10 * columns * finfo(q.dtype).eps:
            return q.clone()
    more = FUNCTIONS["randn"]((*q.shape[:-2], rows, rows - columns), dtype=q.dtype, device=q.device)
    found, upper = linalg.qr(FUNCTIONS["cat"]([q, more], -1))
    return found * upper.diagonal(0, -2, -1).sgn().unsqueeze(-2)


def _reflections(q: Tensor) -> Tensor:
    """Householder vectors of `q` below the diagonal, as LAPACK's geqrf finds them, and signs on
    it."""
    columns = []
    rows = q.shape[-2]
    for i in range(q.shape[-1]):
        x = q[..., i:, i]
        first, below = x[..., :1], x[..., 1:].square().sum(-1, True)
        reflected = below > 0
        end = -FUNCTIONS["copysign"](x.square().sum(-1, True).sqrt(), first)
        scale = FUNCTIONS["where"](reflected, first - end, 1.0)
        v = FUNCTIONS["where"](reflected, x[..., 1:] / scale, 0.0)
        tau = FUNCTIONS["where"](
            reflected, (end - first) / FUNCTIONS["where"](reflected, end, 1.0), 0.0
        )
        sign = FUNCTIONS["where"](reflected, end.sign(), -first.sign())
        whole = FUNCTIONS["cat"]([FUNCTIONS["ones_like"](first), v], -1).unsqueeze(-1)
        part = q[..., i:, :]
        part = part - tau.unsqueeze(-1) * (whole @ (whole.mT @ part))
        q = FUNCTIONS["cat"]([q[..., :i, :], part], -2)
        columns.append(FUNCTIONS["cat"]([v.new_zeros((*v.shape[:-1], i)), sign, v], -1))
    assert all(c.shape[-1] == rows for c in columns)
    return FUNCTIONS["stack"](columns, -1)  # type: ignore[no-any-return]


def orthogonal(
    module: Module,
    name: str = "weight",
    orthogonal_map: str | None = None,
    *,
    use_trivialization: bool = True,
) -> Module:
    """Keep ``module.<name>``, a matrix [*, n, k], with orthonormal columns, or rows where n < k.

    Args:
        orthogonal_map: how: "matrix_exp", "cayley" or "householder"; the first for square and
            complex matrices by default, the last otherwise.
        use_trivialization: times a matrix that what is assigned becomes; without, nothing can be
            assigned but for "householder".

    Raises: ValueError where the module has no such parameter, it is no matrix, or the map is
        unknown.
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    if weight.ndim < 2:
        raise ValueError(
            f"Expected a matrix or batch of matrices. Got a tensor of {weight.ndim} dimensions."
        )
    if orthogonal_map is None:
        square = weight.shape[-2] == weight.shape[-1]
        orthogonal_map = "matrix_exp" if square or weight.is_complex() else "householder"
    if orthogonal_map not in MAPS:
        raise ValueError(
            'orthogonal_map has to be one of "matrix_exp", "cayley", "householder". Got: '
            f"{orthogonal_map}"
        )
    made = _Orthogonal(weight, orthogonal_map, use_trivialization)
    return parametrize.register_parametrization(module, name, made, unsafe=True)
