"""The memory behind tensors as objects: `UntypedStorage` counts bytes, the older `TypedStorage`
elements."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from .._deferred import running
from .._deferred.storage import FreedLeaf, recorder
from .._deferred.tensor import Tensor
from .._settings import warn_user
from .._types import device, dtype
from ..autograd.grad_mode import no_grad
from .base import METHODS, register
from .creation import from_array, from_numpy, full_value


class _Memory(ABC):
    """What both share. Two tensors that share memory have equal storages."""

    is_sparse = False

    def __init__(self, tensor: Tensor):
        base = object.__new__(Tensor)
        base._storage, base._counter = tensor._storage, tensor._counter
        self._tensor = base

    @property
    def device(self) -> device:
        return self._tensor.device

    @property
    def is_cuda(self) -> bool:
        return self._tensor.is_cuda

    def data_ptr(self) -> int:
        """The address of the first element; 0 where there are none."""
        return METHODS["data_ptr"](self._tensor)  # type: ignore[no-any-return]

    def nbytes(self) -> int:
        return self._tensor.nbytes

    def is_shared(self) -> bool:
        return False

    def is_pinned(self, device: Any = None) -> bool:
        return METHODS["is_pinned"](self._tensor)  # type: ignore[no-any-return]

    def cpu(self) -> Any:
        """In the host's memory: itself, or a copy."""
        return self._on(METHODS["cpu"])

    def cuda(self, device: Any = None, non_blocking: bool = False) -> Any:
        """On a GPU: itself, or a copy."""
        return self._on(lambda x: METHODS["cuda"](x, device))

    def _on(self, move: Callable[[Tensor], Tensor]) -> Any:
        moved = move(self._tensor)
        return self if moved is self._tensor else type(self)(moved)

    def _elements(self) -> np.ndarray:
        return self._tensor._array().reshape(-1)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._tensor._storage is self._tensor._storage

    def __hash__(self) -> int:
        return id(self._tensor._storage)

    def __len__(self) -> int:
        return self.size()

    def __iter__(self) -> Any:
        return iter(self.tolist())

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            raise RuntimeError(
                "slices of a storage are not supported: slice the tensor, or its .tolist()"
            )
        return self.tolist()[index]

    @abstractmethod
    def size(self) -> int:
        """The number of elements."""

    @abstractmethod
    def tolist(self) -> list[Any]:
        """The elements as numbers."""

    def __repr__(self) -> str:
        shown = "...\n" if self._tensor.is_meta else "".join(f" {x}\n" for x in self)
        return shown + self._title()

    def _title(self) -> str:
        return f"[torch.storage.{type(self).__name__}(device={self.device}) of size {len(self)}]"


class UntypedStorage(_Memory):
    """The memory behind a tensor, in bytes."""

    is_storage = True  # `as_tensor` gives its bytes

    @classmethod
    def from_file(
        cls, filename: str | os.PathLike[str], shared: bool = False, nbytes: int = 0
    ) -> UntypedStorage:
        """The bytes of a file, mapped: read when somebody looks at them.

        Args:
            shared: whether writes reach the file, which is then made as long as `nbytes`.
            nbytes: how many; 0 is all of them.

        Raises:
            RuntimeError: the file has fewer.
        """
        place = os.fspath(filename)
        if shared and (not os.path.exists(place) or os.path.getsize(place) < nbytes):
            with open(place, "ab") as file:
                file.truncate(nbytes)
        size = os.path.getsize(place)
        if size < nbytes:
            raise RuntimeError(
                f"UntypedStorage.from_file: {place} has {size} bytes, but {nbytes} were asked for"
            )
        if not (nbytes or size):
            return cls(from_numpy(np.empty(0, np.uint8)))
        return cls(
            from_numpy(np.memmap(place, np.uint8, "r+" if shared else "c", shape=(nbytes or size,)))
        )

    def __getitem__(self, index: Any) -> Any:
        """A byte; or, for a slice, the storage of that part."""
        part = self.__array__()[index]
        if not isinstance(index, slice):
            return int(part)
        return UntypedStorage(
            from_array(part, place=self.device) if self.is_cuda else from_numpy(part)
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The bytes; they are not copied."""
        return np.asarray(self._elements().view(np.uint8), dtype)

    def size(self) -> int:
        return self.nbytes()

    def nbytes(self) -> int:
        return 0 if type(self._tensor._storage.value) is FreedLeaf else super().nbytes()

    def resize_(self, nbytes: int) -> UntypedStorage:
        """Give the memory back (`nbytes` is 0), or get as much again, of zeros.

        Raises:
            RuntimeError: the memory is shared with code outside.
            NotImplementedError: it is to have another size.
        """
        storage, full = self._tensor._storage, super().nbytes()
        if nbytes == self.nbytes():
            return self
        if storage.host is not None:
            raise RuntimeError("Trying to resize storage that is not resizable")
        if recorder.capture is not None:
            recorder.capture.rebound(self._tensor)
        if nbytes not in (0, full):
            raise NotImplementedError(
                f"a storage of {full} bytes can be resized to 0 and back to {full}, but not to "
                f"{nbytes}: use resize_ of the tensor"
            )
        value = self._tensor._type
        if nbytes == 0:
            storage.put(FreedLeaf(value))
        else:
            running.store(storage, full_value(value.shape, 0, value.dtype))
        return self

    def element_size(self) -> int:
        return 1

    def untyped(self) -> UntypedStorage:
        return self

    _untyped = untyped

    def tolist(self) -> list[int]:
        return self._elements().view(np.uint8).tolist()  # type: ignore[no-any-return]


class TypedStorage(_Memory):
    """The memory behind a tensor, as elements of its dtype."""

    @property
    def dtype(self) -> dtype:
        return self._tensor.dtype

    def size(self) -> int:
        return int(self._tensor.numel())

    def element_size(self) -> int:
        return self._tensor.itemsize

    def untyped(self) -> UntypedStorage:
        return UntypedStorage(self._tensor)

    def tolist(self) -> list[Any]:
        return self._tensor.reshape(-1).tolist()  # type: ignore[attr-defined, no-any-return]

    def __setitem__(self, index: Any, value: Any) -> None:
        with no_grad():
            self._tensor.view(-1)[index] = value  # type: ignore[attr-defined]

    def fill_(self, value: Any) -> TypedStorage:
        self[:] = value
        return self

    def copy_(self, source: Any, non_blocking: bool = False) -> TypedStorage:
        self[:] = source._tensor.reshape(-1)
        return self

    def clone(self) -> TypedStorage:
        return TypedStorage(self._tensor.clone())  # type: ignore[attr-defined]

    def _title(self) -> str:
        kind = f"torch.storage.TypedStorage(dtype={self.dtype}, device={self.device})"
        return f"[{kind} of size {len(self)}]"


@register(function=False)
def untyped_storage(self: Tensor) -> UntypedStorage:
    """The memory behind this tensor, in bytes."""
    return UntypedStorage(self)


@register(function=False)
def storage(self: Tensor) -> TypedStorage:
    """The memory behind this tensor, as elements (deprecated: use untyped_storage())."""
    warn_user(
        "TypedStorage is deprecated. It will be removed in the future and UntypedStorage will be "
        "the only storage class. This should only matter to you if you are using storages "
        "directly. To access UntypedStorage directly, use tensor.untyped_storage() instead of "
        "tensor.storage()",
    )
    return TypedStorage(self)
