"""Writes at masks and indices of a tensor that shows places in memory several times, such as an
expanded one.

PyTorch does them, with a warning, where it refuses other writes: all elements of a place that was
hit show what was written there. https://docs.pytorch.org/docs/stable/tensor_view.html
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from .._deferred.tensor import Tensor
from .._settings import warn_user
from .base import FUNCTIONS, METHODS, REPEATED
from .creation import from_array
from .strides import as_strided
from .views import narrow


def _warn(name: str) -> None:
    warn_user(
        f"Use of {name} on expanded tensors is deprecated. Please clone() the tensor before "
        "performing this operation. This also applies to advanced indexing e.g. tensor[indices] = "
        "tensor",
    )


def _masked_fill(self: Tensor, mask: Tensor, value: Any) -> Tensor:
    _warn("masked_fill_")
    FUNCTIONS["masked_fill"](self, mask, value)  # raises what is wrong with them
    hit, once = mask.expand(self._type.shape), self
    for axis, (size, stride) in enumerate(zip(self._type.shape, self._strides, strict=True)):
        if stride == 0 and size != 1:
            hit, once = hit.any(axis, keepdim=True), narrow(once, axis, 0, 1)
    METHODS["masked_fill_"](once, hit, value)
    return self


def _index_fill(self: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    _warn("index_fill_")
    none = FUNCTIONS["zeros_like"](self, dtype=FUNCTIONS["isnan"](self).dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _masked_fill(self, FUNCTIONS["index_fill"](none, dim, index, True), value)
    return self


def _index_put(self: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    _warn("index_put_")
    places = np.zeros(self._type.shape, np.int64)  # type: ignore[arg-type]
    for axis, stride in enumerate(self._strides):
        steps = np.arange(places.shape[axis]) * stride
        places += steps.reshape([-1 if i == axis else 1 for i in range(places.ndim)])
    memory = as_strided(self, (int(places.max()) + 1,), (1,))
    key = tuple([slice(None) if index is None else index for index in indices])
    chosen = METHODS["__getitem__"](from_array(places).to(self.device), key)
    METHODS["index_put_"](memory, (chosen,), values, accumulate)
    return self


REPEATED.update(masked_fill_=_masked_fill, index_fill_=_index_fill, index_put_=_index_put)
