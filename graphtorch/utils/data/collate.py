"""Making one batch of many samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..._deferred.tensor import Tensor
from ..._ops.base import FUNCTIONS
from ..._types import DTYPES


def default_convert(data: Any) -> Any:
    """NumPy arrays inside `data` as tensors; everything else as it is."""
    if isinstance(data, (np.ndarray, np.generic)) and data.dtype.kind not in "SUO":
        return FUNCTIONS["as_tensor"](data)
    if isinstance(data, Mapping):
        return _like(data, {key: default_convert(value) for key, value in data.items()})
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(default_convert(d) for d in data))
    if isinstance(data, (list, tuple)):
        return [default_convert(d) for d in data]
    return data


def pinned(data: Any) -> Any:
    """`data` with its tensors, and what else has `pin_memory`, in memory that GPUs read by
    themselves."""
    if hasattr(data, "pin_memory"):
        return data.pin_memory()
    if isinstance(data, Mapping):
        return _like(data, {key: pinned(value) for key, value in data.items()})
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(pinned(d) for d in data))
    return [pinned(d) for d in data] if isinstance(data, (list, tuple)) else data


def _like(mapping: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    """`items` as a mapping of the same class, where that takes them."""
    try:
        return type(mapping)(items)  # type: ignore[call-arg]
    except TypeError:
        return items


def default_collate(batch: Sequence[Any]) -> Any:
    """Stack tensors, arrays and numbers along a new first dim, inside containers of any depth.

    Raises RuntimeError for sequences of different lengths, TypeError for other element types.
    """
    first = batch[0]
    if isinstance(first, Tensor):
        return FUNCTIONS["stack"](list(batch), 0)
    if isinstance(first, (np.ndarray, np.generic)) and first.dtype.kind not in "SUO":
        return FUNCTIONS["as_tensor"](np.stack(batch))
    if isinstance(first, float):
        return FUNCTIONS["tensor"](list(batch), dtype=DTYPES["float64"])
    if isinstance(first, int):
        return FUNCTIONS["tensor"](list(batch))
    if isinstance(first, (str, bytes)):
        return batch
    if isinstance(first, Mapping):
        return _like(
            first, {key: default_collate([sample[key] for sample in batch]) for key in first}
        )
    if isinstance(first, (list, tuple)):
        if any(len(sample) != len(first) for sample in batch):
            raise RuntimeError("each element in list of batch should be of equal size")
        columns = [default_collate(column) for column in zip(*batch, strict=True)]
        return type(first)(*columns) if hasattr(first, "_fields") else columns
    raise TypeError(
        "default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; "
        f"found {type(first)}"
    )
