"""Tensors taken apart for copying and pickling, and put together again; shared memory stays
shared."""

from __future__ import annotations

import copy
import copyreg
import math
from typing import Any

import numpy as np

from graphtorch.ir.dtype import DType
from graphtorch.ir.shape import contiguous_strides

from .._deferred.device_storage import DeviceStorage
from .._deferred.making import from_value
from .._deferred.storage import Bits, Leaf, Storage, ViewDtype
from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS, METHODS
from .._ops.creation import from_array
from .._types import CPU, META, check_device, device, dtype

Parts = tuple[Storage, int, tuple[int, ...], tuple[int, ...]]


def parts(tensor: Tensor) -> Parts:
    """Storage, offset, size and strides, counted in elements."""
    view = tensor._view
    if view is not None and any(isinstance(step, (Bits, ViewDtype)) for step in view.steps):
        tensor, view = tensor.detach().clone(), None  # another dtype than the storage's
    if view is None:
        size = tuple(tensor._type.shape)
        return tensor._storage, 0, size, contiguous_strides(size)  # type: ignore[return-value]
    return tensor._storage, view.offset, tuple(view.type.shape), tuple(view.strides)  # type: ignore[return-value, arg-type]


def rebuilt(
    storage: Storage, offset: int, size: tuple[int, ...], strides: tuple[int, ...]
) -> Tensor:
    """A tensor over the memory of `storage`, outside any autograd graph."""
    base = from_value(storage.value, storage.place)
    base._storage = storage
    if offset == 0 and size == tuple(base._type.shape) and strides == contiguous_strides(size):
        return base
    return base.reshape(-1).as_strided(size, strides, offset).detach()  # type: ignore[no-any-return]


def without_elements(dtype: Any, size: Any, strides: Any, requires_grad: bool = False) -> Tensor:
    """A tensor on "meta", put together again."""
    made: Tensor = FUNCTIONS["empty_strided"](
        tuple(size), tuple(strides), dtype=dtype, device="meta"
    )
    made = made.detach()
    return made.requires_grad_() if requires_grad else made


def user_attributes(tensor: Tensor) -> dict[str, Any]:
    """What a program set on the tensor itself, such as ``p.name = "weight"``."""
    return {k: v for k, v in tensor.__dict__.items() if not is_internal(k)}


def is_internal(name: str) -> bool:
    """Whether an attribute of a tensor belongs to its workings."""
    return name in Tensor.__annotations__ or name in Tensor.__dict__


def set_attributes(tensor: Any, attributes: Any) -> Any:
    """Put back `user_attributes`; nothing else is taken from the dictionary."""
    if isinstance(attributes, dict):
        tensor.__dict__.update({k: v for k, v in attributes.items() if not is_internal(str(k))})
    return tensor


# ------------------------------------------------------------------------------------- copy, pickle


def _deepcopy(self: Tensor, memo: dict[int, Any]) -> Tensor:
    if id(self) in memo:
        return memo[id(self)]
    if not self.is_leaf:
        raise RuntimeError(
            "Only Tensors created explicitly by the user (graph leaves) support the deepcopy "
            "protocol at the moment. If you were attempting to deepcopy a module, this may be "
            "because of a torch.nn.utils.weight_norm usage, see "
            "https://github.com/pytorch/pytorch/pull/103001"
        )
    storage, *place = parts(self)
    data = rebuilt(copy.deepcopy(storage, memo), *place)  # type: ignore[arg-type]
    made = Tensor._make_subclass(self.__class__, data, self.requires_grad)
    memo[id(self)] = made
    if self._grad is not None:
        made._grad = copy.deepcopy(self._grad, memo)
    return set_attributes(made, copy.deepcopy(user_attributes(self), memo))  # type: ignore[no-any-return]


def _rebuild(
    cls: type,
    storage: Storage,
    offset: int,
    size: tuple[int, ...],
    strides: tuple[int, ...],
    requires_grad: bool,
    attributes: dict[str, Any],
) -> Tensor:
    made = Tensor._make_subclass(cls, rebuilt(storage, offset, size, strides), requires_grad)
    return set_attributes(made, attributes)  # type: ignore[no-any-return]


def _rebuild_meta(cls: type, attributes: dict[str, Any], *facts: Any) -> Tensor:
    made = Tensor._make_subclass(cls, without_elements(*facts), facts[-1])
    return set_attributes(made, attributes)  # type: ignore[no-any-return]


def facts_of(tensor: Tensor) -> tuple[Any, ...]:
    """What `without_elements` takes."""
    return tensor.dtype, tuple(tensor._type.shape), tuple(tensor._strides), tensor.requires_grad


def _reduce_ex(self: Tensor, protocol: int) -> Any:
    if self.is_meta:
        return _rebuild_meta, (type(self), user_attributes(self), *facts_of(self))
    return _rebuild, (type(self), *parts(self), self.requires_grad, user_attributes(self))


def _copy_storage(self: Storage, memo: dict[int, Any]) -> Storage:
    # values are immutable: a copy is the same value in another cell
    return from_value(self.read(), self.place)._storage


def _rebuild_storage(array: np.ndarray, place: Any = CPU) -> Storage:
    return from_array(array, place=check_device(place))._storage


def _reduce_storage(self: Storage) -> Any:
    return _rebuild_storage, (np.ascontiguousarray(elements(self)), self.place)


def elements(storage: Storage) -> np.ndarray:
    """The elements of a storage as an array of the host, computed if need be. Read only."""
    base = object.__new__(Tensor)
    base._storage = storage
    return base._array()


METHODS["__deepcopy__"], METHODS["__reduce_ex__"] = _deepcopy, _reduce_ex
METHODS["__copy__"] = lambda self: set_attributes(
    Tensor._make_subclass(self.__class__, self, self._rg), user_attributes(self)
)
for _kind in (Storage, DeviceStorage):
    copyreg.pickle(_kind, _reduce_storage)  # type: ignore[type-var]


# --------------------------------------------------------------------------------------- from files


class LoadedStorage:
    """The elements of a storage in a file; the tensors made from it share memory.

    `location` is the device that the file names. `cpu` and `cuda` serve functions given as
    ``map_location``.
    """

    def __init__(self, array: np.ndarray, location: str = "cpu"):
        self.array = array
        self.location = location
        # where tensors made from it are: on "meta" they leave the elements where they are
        self.place = CPU
        self._storage: Storage | None = None

    def cpu(self) -> LoadedStorage:
        return self._on(CPU)

    def cuda(self, device: Any = None) -> LoadedStorage:
        """Raises: AssertionError: there is no GPU."""
        return self._on(check_device("cuda" if device is None else device))

    def _on(self, place: device) -> LoadedStorage:
        made = LoadedStorage(self.array, self.location)
        made.place = place
        return made

    def part(self, start: int, stop: int) -> LoadedStorage:
        """Some of the elements."""
        made = LoadedStorage(self.array[start:stop], self.location)
        made.place = self.place
        return made

    def filled(self) -> None:
        """The elements changed after tensors were made of them: those elsewhere see it as well."""
        if self._storage is not None and self.place is not CPU:
            self._storage.put(Leaf.of(self.array.reshape(self._storage.value.type.shape)))

    def nbytes(self) -> int:
        return int(self.array.nbytes)

    def tensor(self, offset: int, size: tuple[int, ...], strides: tuple[int, ...]) -> Tensor:
        """A tensor over these elements. Raises ValueError where it would reach outside them."""
        check_bounds(self.array.size, offset, size, strides)
        if self.place is META:
            return without_elements(dtype._of[DType.of(self.array.dtype)], size, strides)
        if self._storage is None:
            whole = (
                offset == 0
                and strides == contiguous_strides(size)
                and math.prod(size) == self.array.size
            )
            leaf = Leaf.of(self.array.reshape(size if whole else -1))
            self._storage = from_value(leaf, self.place)._storage
        return rebuilt(self._storage, offset, size, strides)


def check_bounds(count: int, offset: int, size: tuple[int, ...], strides: tuple[int, ...]) -> None:
    """Raise ValueError for a tensor that is not inside a storage of `count` elements."""
    ints = (offset, *size, *strides)
    if len(size) != len(strides) or not all(type(i) is int and i >= 0 for i in ints):
        raise ValueError(
            f"a tensor with offset {offset}, size {size} and strides {strides} cannot be"
        )
    last = offset + sum((s - 1) * t for s, t in zip(size, strides, strict=True))
    if 0 not in size and last >= count:
        raise ValueError(
            f"a tensor of size {size} and strides {strides} at offset {offset} reaches beyond "
            f"its storage of {count} elements"
        )
