"""Statistics of samples, and of sampled functions: covariances, histograms, quantiles,
integrals."""

from __future__ import annotations

import itertools
import math
from typing import Any

from graphtorch.ir.dtype import SCALAR_NAMES

from .. import _types
from .._deferred.making import common_place
from .._deferred.tensor import Tensor
from ..autograd.keeps import keeps_as_one
from .base import FUNCTIONS, axis_of, check_tensor, checked, common_dtype, register, rounded_once
from .compare import where
from .order import sort


@register()
@rounded_once
def cov(
    input: Tensor,
    *,
    correction: int = 1,
    fweights: Tensor | None = None,
    aweights: Tensor | None = None,
) -> Tensor:
    """Covariances of variables (rows) over observations (columns); a vector is one variable.

    Args:
        correction: subtracted from the number of observations: 1 for the unbiased estimate.
        fweights: how often each observation counts (integers).
        aweights: how much each observation weighs.

    Raises:
        RuntimeError: more than two dims, or weights that do not fit.
    """
    check_tensor("cov", "input", input)
    if input.ndim > 2:
        raise RuntimeError(
            f"cov(): expected input to have two or fewer dimensions but got an input with "
            f"{input.ndim} dimensions"
        )
    if input.dtype.name == "bool":
        raise RuntimeError("cov(): bool dtype is not supported for input")
    x = input if input.is_floating_point() or input.is_complex() else input.float()
    x = x if input.ndim == 2 else x.reshape(1, -1)
    if aweights is not None:
        x = x.to(FUNCTIONS["promote_types"](x.dtype, aweights.dtype))
    weights = _weights(x, fweights, aweights)
    if weights is None:
        total: Any = x.shape[1]
        centred = x - x.mean(1, keepdim=True)
        scaled, norm = centred, total - correction
    else:
        total = weights.sum()
        centred = x - (x * weights).sum(1, keepdim=True) / total
        scaled = centred * weights
        mean_weight = total if aweights is None else (weights * aweights).sum() / total * correction
        norm = total - (correction if aweights is None else mean_weight)
    norm = max(norm, 0) if isinstance(norm, int) else norm.clamp(min=0)
    result = scaled.matmul(centred.conj().transpose(0, 1)) / norm
    return result if x.shape[0] != 1 else result.reshape(())


def _weights(x: Tensor, fweights: Tensor | None, aweights: Tensor | None) -> Tensor | None:
    for name, w, whole in (("fweights", fweights, True), ("aweights", aweights, False)):
        if w is None:
            continue
        if w.ndim > 1:
            raise RuntimeError(
                f"cov(): expected {name} to have one or fewer dimensions but got {name} with "
                f"{w.ndim} dimensions"
            )
        if whole and (w.is_floating_point() or w.is_complex() or w.dtype.name == "bool"):
            raise RuntimeError(
                "cov(): expected fweights to have integral dtype but got fweights with "
                f"{w.dtype} dtype"
            )
        if w.numel() != x.shape[1]:
            raise RuntimeError(
                f"cov(): expected {name} to have the same numel as there are observations in "
                f"the input but got {w.numel()} != {x.shape[1]}"
            )
    given = [w for w in (fweights, aweights) if w is not None]
    if not given:
        return None
    return (given[0] if len(given) == 1 else given[0] * given[1]).to(x.dtype)


@register()
@rounded_once
def corrcoef(input: Tensor) -> Tensor:
    """Pearson's correlation coefficients of variables (rows) over observations (columns)."""
    check_tensor("corrcoef", "input", input)
    if input.ndim > 2:
        raise RuntimeError(
            "corrcoef(): expected input to have two or fewer dimensions but got an input "
            f"with {input.ndim} dimensions"
        )
    c = cov(input)
    if c.ndim == 0:
        return c / c
    deviation = c.diagonal().real.sqrt() if c.is_complex() else c.diagonal().sqrt()
    c = c / deviation.unsqueeze(1) / deviation.unsqueeze(0)
    return c if c.is_complex() else c.clamp(-1, 1)


@register(out=True)
def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """How many elements fall into each of `bins` equal parts of min..max, or of the data's range if
    those are equal. Raises NotImplementedError for anything but real floats."""
    check_tensor("histc", "input", input)
    if not input._type.dtype.is_floating_point:
        raise NotImplementedError(
            f"\"histc\" not implemented for '{SCALAR_NAMES[input._type.dtype]}': "
            "convert it to a float dtype first"
        )
    if bins <= 0:
        raise RuntimeError("bins must be > 0")
    if not (math.isfinite(min) and math.isfinite(max)):
        raise RuntimeError(f"range of [{min}, {max}] is not finite")
    if min > max:
        raise RuntimeError("max must be larger than min")
    x = input.detach().reshape(-1)
    if min == max:
        x = checked(x, "finite", "torch.histc: the range of the elements is not finite")
    wide = x.double()
    low, high = _range(wide, min, max)
    place = ((wide - low) * (bins / (high - low))).floor()
    place = where(wide == high, float(bins - 1), place)
    inside = (wide >= low) & (wide <= high)
    counted = x.new_zeros(bins + 1)
    at = where(inside, place, float(bins)).long()  # what is outside is counted behind the last bin
    return counted.index_add(0, at, FUNCTIONS["ones_like"](x))[:bins]


def _range(x: Tensor, low: float, high: float) -> tuple[Any, Any]:
    """Ends of a histogram as 0-d tensors: a range of length 0 is widened by 1 on both sides."""
    if low != high or x.numel() == 0:
        same = float(low == high)
        return x.new_full((), low - same), x.new_full((), high + same)
    lowest, highest = x.amin(), x.amax()
    widened = (lowest == highest).double()
    return lowest - widened, highest + widened


def _bool() -> Any:
    return FUNCTIONS["zeros"]((), dtype=bool).dtype


@register("trapezoid", "trapz", method=False)
@rounded_once
def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: float = 1.0, dim: int = -1) -> Tensor:
    """The integral of samples `y` along `dim` by the trapezoidal rule, at places `x` or `dx`
    apart."""
    return _areas(y, x, dx, dim).sum(axis_of(dim, y.ndim))


@register(method=False)
@rounded_once
def cumulative_trapezoid(
    y: Tensor, x: Tensor | None = None, *, dx: float = 1.0, dim: int = -1
) -> Tensor:
    """The integral from the first sample to each of the others."""
    return _areas(y, x, dx, dim).cumsum(axis_of(dim, y.ndim))


def _areas(y: Tensor, x: Tensor | None, dx: float, dim: int) -> Tensor:
    check_tensor("trapezoid", "y", y)
    axis = axis_of(dim, y.ndim)
    size = max(y.shape[axis] - 1, 0)
    heights = (y.narrow(axis, 0, size) + y.narrow(axis, min(1, y.shape[axis]), size)) / 2
    if x is None:
        return heights * dx
    if x.ndim == 1:
        if x.shape[0] != y.shape[axis]:
            raise RuntimeError("trapezoid: There must be one `x` value for each sample point")
        x = x.reshape([-1 if d == axis else 1 for d in range(y.ndim)])
    along = axis - y.ndim
    return heights * (x.narrow(along, 1, size) - x.narrow(along, 0, size))


@register(method=False)
@keeps_as_one("input")
def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """The rows of `r` elements of a vector, in the order of ``itertools.combinations``."""
    if input.ndim != 1:
        raise RuntimeError(f"Expect a 1D vector, but got shape {list(input.shape)}")
    if r < 0:
        raise RuntimeError(f"Expect a non-negative number, but got {r}")
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    rows = list(choose(range(input.shape[0]), r))
    if r == 0:
        return input.new_empty(0)
    places = FUNCTIONS["tensor"](rows, dtype=_types.DTYPES["int64"], device=input.device)
    return input[places.reshape(len(rows), r)]


@register(method=False, out=True)
def isin(
    elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False
) -> Tensor:
    """Where `elements` are among `test_elements`; `invert` for where they are not."""
    common = _types.dtype._of[common_dtype(elements, test_elements)]
    place = common_place("isin", (elements, test_elements))
    x, tested = (
        t if isinstance(t, Tensor) else FUNCTIONS["tensor"](t, device=place)
        for t in (elements, test_elements)
    )
    x, flat = x.to(common), sort(tested.to(common).reshape(-1))[0]
    if flat.shape[0] == 0:
        return x.new_full(tuple(x.shape), invert, dtype=_bool())
    place = FUNCTIONS["searchsorted"](flat, x).clamp(max=flat.shape[0] - 1)
    found = flat[place] == x
    return ~found if invert else found


@register(method=False)
def unravel_index(indices: Tensor, shape: Any) -> tuple[Tensor, ...]:
    """Indices into a tensor of `shape` for indices into its elements in row-major order."""
    if indices.is_floating_point() or indices.is_complex() or indices.dtype.name == "bool":
        raise TypeError(f"expected 'indices' to be integer dtype, but got {indices.dtype}")
    sizes = (int(shape),) if not isinstance(shape, (tuple, list)) else tuple(int(s) for s in shape)
    if any(s < 0 for s in sizes):
        raise ValueError(f"'shape' cannot have negative values, but got {sizes}")
    found: list[Tensor] = []
    rest: Any = indices.to(FUNCTIONS["promote_types"](indices.dtype, _types.DTYPES["int64"]))
    for size in reversed(sizes):
        found.insert(0, rest % size)
        rest = rest // size
    return tuple(found)


@register(method=False)
@keeps_as_one("x1 x2 result")
@rounded_once
def cdist(
    x1: Tensor,
    x2: Tensor,
    p: float = 2.0,
    compute_mode: str = "use_mm_for_euclid_dist_if_necessary",
) -> Tensor:
    """p-norm distances [*, P, R] between rows of [*, P, M] and of [*, R, M], whatever
    `compute_mode` says."""
    if p < 0:
        raise RuntimeError("cdist only supports non-negative p values")
    for name, x in (("X1", x1), ("X2", x2)):
        if x.ndim < 2:
            raise RuntimeError(f"cdist only supports at least 2D tensors, {name} got: {x.ndim}D")
        if not x.is_floating_point():
            raise RuntimeError(f"cdist only supports floating-point dtypes, {name} got: {x.dtype}")
    if x1.shape[-1] != x2.shape[-1]:
        raise RuntimeError(
            f"X1 and X2 must have the same number of columns. X1: {x1.shape[-1]} X2: {x2.shape[-1]}"
        )
    return (x1.unsqueeze(-2) - x2.unsqueeze(-3)).norm(p, -1)
