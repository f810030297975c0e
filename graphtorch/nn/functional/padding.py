"""Padding in all modes."""

from __future__ import annotations

from collections.abc import Sequence

from ..._deferred.tensor import Tensor
from ..._ops.autocast import single_precision_on_cpus
from ..._ops.orders import format_kept
from ...autograd.keeps import keeps_as_one, shown_as
from ._common import call, cat


def pad(
    input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """Pad the trailing dims of `input`; `pad` lists (low, high) pairs from the last dim backwards.

    `mode` is "constant" (with `value`, default 0; negative amounts crop), "reflect", "replicate" or
    "circular". Raises RuntimeError for an odd or too long `pad` and for amounts the mode cannot
    serve, NotImplementedError for an unknown mode.
    """
    amounts = tuple(int(p) for p in pad)
    if len(amounts) % 2:
        raise RuntimeError(f"Padding length must be divisible by 2, got {list(amounts)}")
    if len(amounts) > 2 * input.dim():
        raise RuntimeError(
            "Padding length should be less than or equal to two times the input dimension but "
            f"got padding length {len(amounts)} and input of dimension "
            f"{input.dim()}"
        )
    pairs = [(amounts[i], amounts[i + 1]) for i in range(0, len(amounts), 2)]
    if mode == "constant":
        return _constant(input, pairs, 0 if value is None else value)
    if value is not None and value != 0:
        raise RuntimeError(f'Padding mode "{mode}" doesn\'t take in value argument')
    if mode not in _SIDES:
        raise NotImplementedError(
            f"Unrecognised padding mode {mode}: expected constant, reflect, replicate or circular"
        )
    if len(pairs) not in (1, 2, 3) or input.dim() not in (len(pairs) + 1, len(pairs) + 2):
        raise NotImplementedError(
            "Only 2D, 3D, 4D, 5D padding with non-constant padding are supported for "
            f"now: got padding of length {len(amounts)} for an input of "
            f"shape {list(input.shape)}"
        )
    return (_all_dims if mode == "circular" else _edges)(input, pairs, mode)


@keeps_as_one("x")
@format_kept
@single_precision_on_cpus
def _edges(x: Tensor, pairs: list[tuple[int, int]], mode: str) -> Tensor:
    return _all_dims(x, pairs, mode)


def _all_dims(x: Tensor, pairs: list[tuple[int, int]], mode: str) -> Tensor:
    for i, (low, high) in enumerate(pairs):
        x = _one_dim(x, x.dim() - 1 - i, low, high, mode)
    return x


@shown_as("ConstantPadNd")
@format_kept
def _constant(x: Tensor, pairs: list[tuple[int, int]], value: float) -> Tensor:
    for i, (low, high) in enumerate(pairs):
        if low < 0 or high < 0:
            dim = x.dim() - 1 - i
            start, size = max(-low, 0), x.shape[dim] + min(low, 0) + min(high, 0)
            if size < 0:
                raise RuntimeError(
                    f"The input size {x.shape[dim]}, plus negative padding {low} and {high} "
                    "resulted in a negative output size, which is invalid."
                )
            x = x.narrow(dim, start, size)
    fill = [(max(low, 0), max(high, 0)) for low, high in pairs]
    if not any(low or high for low, high in fill):
        return x.clone()
    rest = [(0, 0)] * (x.dim() - len(fill))
    sides = [*rest, *reversed(fill)]
    scalar = _scalar_for(x, value)
    return call(
        "pad", x, low=tuple(s[0] for s in sides), high=tuple(s[1] for s in sides), value=scalar
    )


def _scalar_for(x: Tensor, value: float) -> float | int | bool:
    if x.dtype.is_floating_point or x.dtype.is_complex:
        return float(value)
    return bool(value) if str(x.dtype).endswith("bool") else int(value)


def _one_dim(x: Tensor, dim: int, low: int, high: int, mode: str) -> Tensor:
    size = x.shape[dim]
    limit = {"reflect": size - 1, "circular": size}.get(mode)
    if limit is not None and max(low, high) > limit:
        what = (
            "Padding size should be less than the corresponding input dimension"
            if mode == "reflect"
            else "Padding value causes wrapping around more than once"
        )
        raise RuntimeError(
            f"{what}, but got: padding ({low}, {high}) at dimension {dim} of input {list(x.shape)}"
        )
    if isinstance(size, int) and size == 0 and (low > 0 or high > 0):
        raise RuntimeError(
            f"Expected a non-empty dimension {dim} to pad in mode {mode}, got {list(x.shape)}"
        )
    start = max(-low, 0)
    middle = x.narrow(dim, start, size - start - max(-high, 0)) if low < 0 or high < 0 else x
    source = middle if mode == "circular" else x  # PyTorch wraps around what is left after cropping
    before, after = _SIDES[mode](source, dim, max(low, 0), max(high, 0))
    parts = [p for p in (before, middle, after) if p is not None]
    return cat(parts, dim) if len(parts) > 1 else middle


def _reflect(x: Tensor, dim: int, low: int, high: int) -> tuple[Tensor | None, Tensor | None]:
    return (
        x.narrow(dim, 1, low).flip(dim) if low else None,
        x.narrow(dim, x.shape[dim] - 1 - high, high).flip(dim) if high else None,
    )


def _replicate(x: Tensor, dim: int, low: int, high: int) -> tuple[Tensor | None, Tensor | None]:
    def edge(at: int, count: int) -> Tensor | None:
        shape = list(x.shape)
        shape[dim] = count
        return x.narrow(dim, at, 1).expand(shape) if count else None

    return edge(0, low), edge(x.shape[dim] - 1, high)


def _circular(x: Tensor, dim: int, low: int, high: int) -> tuple[Tensor | None, Tensor | None]:
    return (
        x.narrow(dim, x.shape[dim] - low, low) if low else None,
        x.narrow(dim, 0, high) if high else None,
    )


_SIDES = {"reflect": _reflect, "replicate": _replicate, "circular": _circular}
