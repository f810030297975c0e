"""Reductions over runs of neighbours of different lengths.

https://docs.pytorch.org/docs/stable/generated/torch.segment_reduce.html
"""

from __future__ import annotations

from typing import Any

from .._deferred.tensor import Tensor
from ..autograd.keeps import keeps_as_one, shown_as
from .accept import accepting
from .base import FUNCTIONS, axis_of, check_tensor, checked, known_elements, refuse

_REDUCTIONS = {"max": "amax", "min": "amin", **{k: k for k in ("sum", "mean", "prod")}}
_START = {"sum": 0.0, "mean": 0.0, "prod": 1.0, "amax": float("-inf"), "amin": float("inf")}
_NAME = "segment_reduce"


@shown_as("SegmentReduce")
@keeps_as_one()
def segment_reduce(
    data: Tensor,
    reduce: str,
    *,
    lengths: Tensor | None = None,
    indices: Tensor | None = None,
    offsets: Tensor | None = None,
    axis: int = 0,
    unsafe: bool = False,
    initial: Any = None,
) -> Tensor:
    """`data` reduced by sum, mean, prod, max or min over segments that follow one another along
    `axis`.

    Args:
        data: floats, [*batch, size, ...] with as many batch dimensions as `axis` says.
        lengths: [*batch, segments], which add up to the size unless `unsafe`.
        offsets: [*batch, segments + 1], in the place of `lengths`: where segments begin and end.
        initial: what each segment begins with, and what an empty one gives; without it a mean of
            nothing is NaN.

    Returns: [*batch, segments, ...].

    Raises:
        RuntimeError: neither lengths nor offsets; lengths that are negative or do not fit.
        NotImplementedError: integers.
    """
    check_tensor(_NAME, "data", data)
    kind = _REDUCTIONS.get(reduce, reduce)
    if kind not in _START:
        raise RuntimeError(
            f"reduce argument must be either sum, prod, mean, amax or amin, got {reduce}"
        )
    if indices is not None:
        raise RuntimeError(f"{_NAME}(): indices based reduction is not supported yet.")
    refuse("_segment_reduce_cpu", data._type.dtype, "bool", "integer", "complex")
    at = axis_of(axis, data.ndim)
    ends = _ends(data, at, lengths, offsets, unsafe)
    return _reduced(data, at, ends, kind, initial)


def _ends(data: Tensor, axis: int, lengths: Any, offsets: Any, unsafe: bool) -> Tensor:
    """Where segments begin and end along the last dimension, [*batch, segments + 1]."""
    given = lengths if offsets is None else offsets
    if given is None:
        raise RuntimeError(f"{_NAME}(): Either lengths or offsets must be defined.")
    name = "lengths" if offsets is None else "offsets"
    check_tensor(_NAME, name, given)
    if given.ndim != axis + 1 or tuple(given.shape[:-1]) != tuple(data.shape[:axis]):
        raise RuntimeError(
            f"{_NAME}(): expected {name} of shape [{', '.join([*map(str, data.shape[:axis]), 'n'])}"
            f"], one row for each entry before axis {axis} of data, got {list(given.shape)}"
        )
    if given._type.dtype.name not in ("i32", "i64"):
        raise RuntimeError(f"{_NAME}(): {name} must be of dtype int32 or int64, not {given.dtype}")
    if offsets is not None:
        return offsets.long()
    lengths = lengths.long()
    if not unsafe:
        lengths = checked(lengths, "not negative", "lengths contains negative value!")
        _check_sum(lengths, data.shape[axis])
    return FUNCTIONS["cat"]([lengths[..., :1] * 0, lengths.cumsum(-1)], -1)


def _check_sum(lengths: Tensor, size: int) -> None:
    known = known_elements(lengths)
    if known is not None and (known.sum(-1) != size).any():
        raise RuntimeError(
            f"{_NAME}(): Expected all rows of lengths along axis to sum to "
            f"data.size(lengths.dim()-1) when !unsafe: they are {known.sum(-1).tolist()}, not "
            f"{size}."
        )


def _reduced(data: Tensor, axis: int, ends: Tensor, kind: str, initial: Any) -> Tensor:
    size, count = data.shape[axis], ends.shape[-1] - 1
    batch, rest = tuple(data.shape[:axis]), tuple(data.shape[axis + 1 :])
    places = FUNCTIONS["arange"](size, device=data.device).expand((*batch, size)).contiguous()
    # 0 and count + 1 are what lies before the first and behind the last segment
    owner = FUNCTIONS["searchsorted"](ends.contiguous(), places, right=True)
    index = owner.reshape((*batch, size, *(1,) * len(rest))).expand(data.shape)
    start = _START[kind] if initial is None else initial
    made = FUNCTIONS["full"](
        (*batch, count + 2, *rest), start, dtype=data.dtype, device=data.device
    )
    combined = "sum" if kind == "mean" else kind
    made = FUNCTIONS["scatter_reduce"](made, axis, index, data, combined)
    made = made.narrow(axis, 1, count)
    if kind != "mean":
        return made  # type: ignore[no-any-return]
    sizes = ends.diff().reshape((*batch, count, *(1,) * len(rest)))
    divisor = sizes if initial is None else sizes.clamp(min=1)
    return made / divisor.to(data.dtype)  # type: ignore[no-any-return]


globals()[_NAME] = accepting(_NAME, segment_reduce, "graphtorch")
