"""A mode that PyTorch's masks of attention enter while they index tensors inside of `vmap`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def TransformGetItemToIndex() -> Iterator[None]:
    """Nothing: indexing by a tensor of one element records an index here in any case."""
    yield


__all__ = ["TransformGetItemToIndex"]
