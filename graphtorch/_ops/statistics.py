"""Statistics of samples, and of sampled functions: covariances, histograms, quantiles,
integrals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from graphtorch.ir.dtype import SCALAR_NAMES

from .. import _types
from .._deferred.making import common_place
from .._deferred.tensor import Tensor
from ..autograd.keeps import keeps_as_one, shown_as
from ..return_types import define
from .base import FUNCTIONS, axis_of, check_tensor, checked, common_dtype, register, rounded_once
from .compare import where
from .order import sort

HISTOGRAM = define("histogram", ("hist", "bin_edges"))
HISTOGRAMDD = define("histogramdd", ("hist", "bin_edges"))


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


@register()
def histogram(
    input: Tensor,
    bins: Any,
    *,
    range: tuple[float, float] | None = None,
    weight: Tensor | None = None,
    density: bool = False,
) -> Any:
    """How many elements of `input` (or how much of `weight`) fall into each bin.

    Args:
        bins: a number of equal parts of `range` (of the data's if None), or the bins' edges, in
            order: a vector of `input`'s dtype. The last bin has its upper edge.
        weight: what each element counts, of the shape and dtype of `input`.
        density: divide by the total and the widths of the bins.

    Returns: (hist, bin_edges), both of `input`'s dtype.

    Raises:
        RuntimeError: dtypes or shapes that differ, no bins, or ends out of order.
        NotImplementedError: `input` is not of real floats.
    """
    check_tensor("histogram", "input", input)
    x = input.detach().reshape(-1)
    _check_floats("histogram_cpu", input)
    if weight is not None and (weight.shape != input.shape or weight.dtype != input.dtype):
        raise RuntimeError(
            "torch.histogram(): if weight tensor is provided it should have the same shape and "
            f"dtype as input: {list(input.shape)} {input.dtype}, not {list(weight.shape)} "
            f"{weight.dtype}"
        )
    edges = _edges(x, bins, range)
    amounts = FUNCTIONS["ones_like"](x) if weight is None else weight.detach().reshape(-1)
    counted = _counted([x], [edges], amounts)
    if density:
        counted = counted / (counted.sum() * edges.diff())
    return HISTOGRAM(counted, edges)


def _check_floats(kernel: str, x: Tensor) -> None:
    if not x._type.dtype.is_floating_point:
        raise NotImplementedError(
            f"\"{kernel}\" not implemented for '{SCALAR_NAMES[x._type.dtype]}': "
            "convert it to a float dtype first"
        )


def _counted(columns: Sequence[Tensor], edges: Sequence[Tensor], amounts: Tensor) -> Tensor:
    """What the points with these coordinates amount to in each bin."""
    counts = [e.shape[0] - 1 for e in edges]
    total = math.prod(counts)
    inside: Any = True
    place: Any = 0
    for x, bounds, count in zip(columns, edges, counts, strict=True):
        at = FUNCTIONS["searchsorted"](bounds, x.contiguous(), right=True) - 1
        place = place * count + where(x == bounds[-1], count - 1, at)
        inside = (x >= bounds[0]) & (x <= bounds[-1]) & inside
    found = amounts.new_zeros(total + 1).index_add(0, where(inside, place, total), amounts)
    return found[:total].reshape(counts)  # type: ignore[no-any-return]


@register(method=False)
def histogramdd(
    input: Tensor,
    bins: Any,
    range: Sequence[float] | None = None,
    weight: Tensor | None = None,
    density: bool = False,
) -> Any:
    """How many points fall into each of the boxes that bins of their coordinates make.

    Args:
        input: floats, [..., n]: points of n coordinates.
        bins: for each coordinate the edges of its bins, or how many there are; or one number.
        range: low and high end for each coordinate, one after the other.
        weight: [...], what each point counts.
        density: divide by the total and the volumes.

    Returns: (hist, bin_edges): n dimensions, and a tuple of n vectors.

    Raises:
        RuntimeError: sizes that do not fit. NotImplementedError: integers.
    """
    check_tensor("histogramdd", "input", input)
    if input.ndim < 2:
        raise RuntimeError("torch.histogramdd: input tensor should have at least 2 dimensions")
    size = input.shape[-1]
    if weight is not None and tuple(weight.shape) != tuple(input.shape[:-1]):
        raise RuntimeError(
            "torch.histogramdd: if weight tensor is provided it should have the same shape as the "
            "input tensor excluding its innermost dimension, but got input with shape "
            f"{list(input.shape)} and weight with shape {list(weight.shape)}"
        )
    _check_floats("histogramdd", input)
    columns = input.detach().reshape(-1, size).unbind(1)
    edges = _edges_of_each(columns, bins, range)
    amounts = FUNCTIONS["ones_like"](columns[0]) if weight is None else weight.detach().reshape(-1)
    counted = _counted(columns, edges, amounts)
    if density:
        counted = counted / counted.sum()
        for axis, bounds in enumerate(edges):
            counted = counted / bounds.diff().reshape([-1] + [1] * (size - axis - 1))
    return HISTOGRAMDD(counted, tuple(edges))


def _edges_of_each(columns: Sequence[Tensor], bins: Any, ends: Any) -> list[Tensor]:
    size = len(columns)
    each = [bins] * size if isinstance(bins, int) else list(bins)
    if len(each) != size:
        raise RuntimeError(
            f"torch.histogramdd: expected {size} numbers of bins, or sequences of bin edges, for "
            f"a {size}-dimensional histogram but got {len(each)}: the size of bins must be equal "
            "to the innermost dimension of the input"
        )
    if ends is not None and len(ends) != 2 * size:
        raise RuntimeError(
            f"torch.histogramdd: for a {size}-dimensional histogram range should have {2 * size} "
            f"elements, but got {len(ends)}"
        )
    pairs = [None] * size if ends is None else [(ends[2 * i], ends[2 * i + 1]) for i in range(size)]
    return [_edges(x, b, e) for x, b, e in zip(columns, each, pairs, strict=True)]


def _edges(x: Tensor, bins: Any, ends: tuple[float, float] | None) -> Tensor:
    if isinstance(bins, Tensor):
        if ends is not None:
            raise TypeError("torch.histogram(): range is for a number of bins, not for their edges")
        if bins.dtype != x.dtype or bins.ndim != 1 or bins.shape[0] < 1:
            raise RuntimeError(
                "torch.histogram(): expected the edges of bins as a vector of the input's dtype, "
                f"{x.dtype}, not {list(bins.shape)} {bins.dtype}"
            )
        return bins.detach()
    if bins <= 0:
        raise RuntimeError(f"torch.histogram(): bins must be > 0, but got {bins}")
    if ends is None:
        ends = (x.amin().item(), x.amax().item()) if x.numel() else (0, 1)
    low, high = map(float, ends)
    if not (math.isfinite(low) and math.isfinite(high)) or low > high:
        raise RuntimeError(f"torch.histogram(): range {[low, high]} has to be finite and in order")
    if low == high:
        low, high = low - 0.5, high + 0.5
    return FUNCTIONS["linspace"](low, high, bins + 1, dtype=x.dtype, device=x.device)  # type: ignore[no-any-return]


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


@register(method=False)
def gradient(
    input: Tensor, *, spacing: Any = 1, dim: Any = None, edge_order: int = 1
) -> tuple[Tensor, ...]:
    """Derivatives of samples along each of `dim` (all dims if None): central differences inside,
    one-sided ones of order `edge_order` (1 or 2) at both ends.

    Args:
        spacing: the distance of samples: a number for all dims, or for each dim a number or the
            samples' places, a vector.

    Raises:
        RuntimeError: an order that is neither 1 nor 2, too few samples, or spacings that do not
            fit the dims.
    """
    check_tensor("gradient", "input", input)
    if edge_order not in (1, 2):
        raise RuntimeError("torch.gradient only supports edge_order=1 and edge_order=2.")
    if dim is None:
        dims = tuple(range(input.ndim))
    else:
        dims = tuple(axis_of(d, input.ndim) for d in ([dim] if isinstance(dim, int) else dim))
    if len(set(dims)) < len(dims):
        raise RuntimeError(f"torch.gradient: dim {dim} names a dim twice")
    spacings = list(spacing) if isinstance(spacing, (list, tuple)) else None
    if spacings is None:
        spacings = [1 if spacing is None else spacing] * len(dims)
    elif len(spacings) != len(dims):
        raise RuntimeError(
            "torch.gradient expected spacing to be unspecified, a scalar, or one for each of "
            f"{len(dims)} dims, but got {len(spacings)}"
        )
    for d in dims:
        if input.shape[d] < edge_order + 1:
            raise RuntimeError(
                "torch.gradient expected each dimension size to be at least edge_order+1, but dim "
                f"{d} has {input.shape[d]}"
            )
    return tuple(_slope(input, d, s, edge_order) for d, s in zip(dims, spacings, strict=True))


def _slope(x: Tensor, axis: int, spacing: Any, order: int) -> Tensor:
    """Derivatives along one dim, by the parabola through three neighbours."""
    size = x.shape[axis]

    def at(start: int, length: int = 1) -> Tensor:
        return x.narrow(axis, start, length)

    if isinstance(spacing, Tensor) and spacing.ndim == 1:
        if spacing.shape[0] != size:
            raise RuntimeError(
                f"torch.gradient expected a place for each of {size} samples of dim {axis}, but "
                f"got {spacing.shape[0]}"
            )
        steps = spacing.diff().reshape([-1 if d == axis else 1 for d in range(x.ndim)])
    else:
        steps = x.new_full([size - 1 if d == axis else 1 for d in range(x.ndim)], 1.0) * spacing
    before, after = steps.narrow(axis, 0, size - 2), steps.narrow(axis, 1, size - 2)
    inside = (
        at(0, size - 2) * (-after / (before * (before + after)))
        + at(1, size - 2) * ((after - before) / (before * after))
        + at(2, size - 2) * (before / (after * (before + after)))
    )
    first, last = steps.narrow(axis, 0, 1), steps.narrow(axis, size - 2, 1)
    if order == 1:
        ends = (at(1) - at(0)) / first, (at(size - 1) - at(size - 2)) / last
    else:
        second, other = steps.narrow(axis, 1, 1), steps.narrow(axis, size - 3, 1)
        ends = (
            at(0) * (-(2 * first + second) / (first * (first + second)))
            + at(1) * ((first + second) / (first * second))
            - at(2) * (first / (second * (first + second))),
            at(size - 3) * (last / (other * (last + other)))
            - at(size - 2) * ((last + other) / (last * other))
            + at(size - 1) * ((2 * last + other) / (last * (last + other))),
        )
    return FUNCTIONS["cat"]([ends[0], inside, ends[1]], axis)  # type: ignore[no-any-return]


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
    if not isinstance(elements, Tensor) and not isinstance(test_elements, Tensor):
        raise TypeError(
            "isin() received an invalid combination of arguments: two numbers, but one of elements "
            "and test_elements must be a Tensor"
        )
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
@shown_as("Cdist")
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
    if x1.dtype is not x2.dtype:
        raise RuntimeError(
            f"expected scalar type {SCALAR_NAMES[x1._type.dtype]} but found "
            f"{SCALAR_NAMES[x2._type.dtype]}: cdist takes two tensors of one dtype"
        )
    if x1.shape[-1] != x2.shape[-1]:
        raise RuntimeError(
            f"X1 and X2 must have the same number of columns. X1: {x1.shape[-1]} X2: {x2.shape[-1]}"
        )
    return (x1.unsqueeze(-2) - x2.unsqueeze(-3)).norm(p, -1)
