"""Names that PyTorch keeps from before ``torch.linalg``: what is deprecated, and what is gone."""

from __future__ import annotations

from typing import Any

from .._deferred.tensor import Tensor
from .._settings import warn_once
from .base import FUNCTIONS, METHODS, register
from .factor import lu_factor, lu_factor_ex

_GONE = "This function was deprecated since version 1.9 and is now removed."
# https://docs.pytorch.org/docs/stable/linalg.html
REMOVED = {
    "eig": (
        " `torch.linalg.eig` returns complex tensors of dtype `cfloat` or `cdouble` rather than "
        "real tensors mimicking complex tensors.\n\n"
        "L, _ = torch.eig(A) should be replaced with:\nL_complex = torch.linalg.eigvals(A)\n\n"
        "and\n\nL, V = torch.eig(A, eigenvectors=True) should be replaced with:\n"
        "L_complex, V_complex = torch.linalg.eig(A)"
    ),
    "symeig": (
        " The default behavior has changed from using the upper triangular portion of the matrix "
        "by default to using the lower triangular portion.\n\n"
        "L, _ = torch.symeig(A, upper=upper) should be replaced with:\n"
        "L = torch.linalg.eigvalsh(A, UPLO='U' if upper else 'L')\n\n"
        "and\n\nL, V = torch.symeig(A, eigenvectors=True) should be replaced with:\n"
        "L, V = torch.linalg.eigh(A, UPLO='U' if upper else 'L')"
    ),
    "lstsq": (
        " `torch.lstsq` is deprecated in favor of `torch.linalg.lstsq`.\n"
        "`torch.linalg.lstsq` has reversed arguments and does not return the QR decomposition in "
        "the returned tuple (although it returns other information about the problem).\n\n"
        "X, _ = torch.lstsq(B, A).solution[:A.size(1)]\nshould be replaced with:\n"
        "X = torch.linalg.lstsq(A, B).solution"
    ),
    "solve": (
        " `torch.solve` is deprecated in favor of `torch.linalg.solve`. `torch.linalg.solve` has "
        "its arguments reversed and does not return the LU factorization.\n\n"
        "To get the LU factorization see `torch.lu`, which can be used with `torch.lu_solve` or "
        "`torch.lu_unpack`.\nX = torch.solve(B, A).solution should be replaced with:\n"
        "X = torch.linalg.solve(A, B)"
    ),
    "matrix_rank": (
        "\nPlease use the `torch.linalg.matrix_rank` function instead. The parameter 'symmetric' "
        "was renamed in `torch.linalg.matrix_rank()` to 'hermitian'."
    ),
}


def _remove(name: str, instead: str) -> None:
    def gone(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(_GONE + instead)

    gone.__name__ = gone.__qualname__ = name
    gone.__doc__ = f"Raises RuntimeError: use torch.linalg ({name} was removed)."
    FUNCTIONS[name] = gone
    if name != "matrix_rank":  # never was a method
        METHODS[name] = gone


for _name, _instead in REMOVED.items():
    _remove(_name, _instead)


@register()
def lu(A: Tensor, pivot: bool = True, get_infos: bool = False, *, out: Any = None) -> Any:
    """(LU, pivots), and info where `get_infos` asks for it (deprecated in favour of
    torch.linalg.lu_factor and lu_factor_ex)."""
    warn_once(
        "torch.lu is deprecated in favor of torch.linalg.lu_factor / torch.linalg.lu_factor_ex and "
        "will be removed in a future PyTorch release."
    )
    factorize = lu_factor_ex if get_infos else lu_factor
    found = factorize(A, pivot=pivot, out=out)
    return found if get_infos else tuple(found)
