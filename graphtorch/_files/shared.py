"""Memory that processes share: tensors that forked processes read and write in common."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np

from .._deferred.door import Buffer
from .._deferred.storage import Leaf, Storage
from .._deferred.tensor import Tensor
from .._ops.base import METHODS
from .pickling import elements


class _Memory(mmap.mmap):
    """Anonymous memory that a fork does not copy."""


def _is_shared(storage: Storage) -> bool:
    owner: Any = storage.host
    while isinstance(owner, (np.ndarray, memoryview)):
        owner = owner.base if isinstance(owner, np.ndarray) else owner.obj
    return isinstance(owner, _Memory)


def share_memory_(self: Tensor) -> Tensor:
    """Move this tensor's storage to memory that processes forked from now on share; views move
    along.

    A write in one process shows in the others, without locks. Processes started by "spawn" get
    copies. A tensor on a GPU stays where it is: another process gets a copy of it.
    """
    storage = self._storage
    if self.is_cuda:  # as PyTorch's
        return self
    if not self.is_cpu:
        raise RuntimeError(
            f"share_memory_: only available on CPU, and this tensor is on '{self.device}'"
        )
    if not _is_shared(storage):
        array = elements(storage)
        memory = _Memory(-1, max(1, array.nbytes))  # lives as long as an array over it
        shared = np.frombuffer(memory, array.dtype, array.size).reshape(array.shape)
        shared[...] = array
        storage.value = Leaf(Buffer.of(shared))
        # from now on reads take the bytes as they are, and writes land in them
        storage.host = shared
    return self


def is_shared(self: Any) -> bool:
    """Whether this tensor is in memory that forked processes share."""
    return self.is_cuda or _is_shared(self._storage)


METHODS["share_memory_"], METHODS["is_shared"] = share_memory_, is_shared
