"""The mutable cell behind tensors, and the steps that lead from it to a view.

A `Storage` holds an immutable IR value: a `Leaf` (elements in memory) or a pending one. Writing replaces
the value; tensors that share the storage read through their chain of view steps.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphtorch.ir import ops
from graphtorch.ir.dtype import DType
from graphtorch.ir.graph import Type, Value
from graphtorch.ir.literal import Literal
from graphtorch.ir.shape import Dim, Shape, contiguous_strides

from ._memory import Buffer, Exposed

_TYPES = Type._table


class Leaf(Value):
    """A value whose elements are in memory."""

    __slots__ = ("buffer",)

    def __init__(self, buffer: Buffer):
        # as Value.__init__, at half its cost: every number in a program becomes a leaf
        self.type = _TYPES.get((buffer.dtype, buffer.shape)) or Type(buffer.dtype, buffer.shape)  # type: ignore[misc]
        self.node = None  # type: ignore[misc]
        self.index = 0  # type: ignore[misc]
        self.name = ""  # type: ignore[misc]
        self.buffer = buffer

    @staticmethod
    def of(array: np.ndarray) -> Leaf:
        """A leaf over a copy of `array` (none where it is ours alone: pass only fresh arrays)."""
        return Leaf(Buffer.of(np.ascontiguousarray(array).reshape(array.shape)))


class RuntimeScalar(Leaf):
    """A 0-d leaf whose number is read again at each replay of a captured graph."""

    __slots__ = ("getter",)

    def __init__(self, getter: Any, dtype: DType):
        super().__init__(Buffer.of(np.array(getter(), dtype.numpy)))
        self.getter = getter


class Version:
    """Counts in-place writes; shared by a tensor, its views and its detached aliases."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0


class Storage:
    """A mutable cell: the current value of a base tensor.

    Attributes:
        value: the elements, row-major, as an IR value.
        epoch: counts writes, those through ``.data`` included (`Version` leaves them out).
        host: the NumPy array whose memory this storage shares with code outside, if it does.
    """

    __slots__ = ("__weakref__", "epoch", "host", "value")

    capture: Any = None  # the capture in progress (compile.py); it watches reads and writes
    settle: Any = None  # computes the value of a storage; given by _record.py, which builds on this file
    elements: Any = None  # the elements of a value as an array; likewise

    def __init__(self, value: Value):
        self.value = value
        self.epoch = 0
        self.host: np.ndarray | None = None

    def read(self) -> Value:
        """The value now. Memory shared with NumPy is copied: later writes there must not be seen."""
        if Storage.capture is not None:
            return Storage.capture.read(self)
        if self.host is None:
            return self.value
        if _held_by_us_alone(self.host):
            self.host = None
            return self.value
        return Leaf.of(self.host.copy())

    def write(self, value: Value) -> None:
        """Replace the value."""
        if Storage.capture is not None:
            Storage.capture.written(self)
        self.epoch += 1
        if self.host is None or _held_by_us_alone(self.host):
            self.host = None
            self.value = value
        else:
            np.copyto(self.host, Storage.elements(value))  # a write to shared memory runs at once

    def share(self) -> np.ndarray:
        """The elements as an array that code outside may keep; from now on writes land in it."""
        if self.host is None:
            Storage.settle(self)
            if not self._is_sole_reader():
                self.value = Leaf.of(self.value.buffer.numpy().copy())  # type: ignore[attr-defined]
            self.host = self.value.buffer.expose()  # type: ignore[attr-defined]
        return self.host

    def _is_sole_reader(self) -> bool:
        """Whether no pending graph and no other storage can read the leaf, so writes to it are unseen."""
        leaf = self.value  # held by: value, leaf, getrefcount; its buffer by: leaf, getrefcount
        return sys.getrefcount(leaf) == 3 and sys.getrefcount(leaf.buffer) == 2  # type: ignore[attr-defined]


def _held_by_us_alone(array: np.ndarray) -> bool:
    # Ours are: `host`, this function's argument, getrefcount's own, and of a user's array the leaf's buffer.
    # A view given to the user holds on to `array`, so it counts.
    if type(array.base) is Exposed:
        return sys.getrefcount(array) < _OWN_REFERENCES
    return array.base is None and sys.getrefcount(array) <= _OWN_REFERENCES


@dataclass(frozen=True, slots=True)
class Reshape:
    """View step: the same elements under another shape."""

    shape: Shape
    before: Shape

    def read(self, x: Value) -> Value:
        return ops.reshape(x, shape=self.shape)

    def write(self, x: Value, new: Value) -> Value:
        return ops.reshape(new, shape=self.before)


@dataclass(frozen=True, slots=True)
class Permute:
    """View step: reordered dimensions."""

    dims: tuple[int, ...]

    def read(self, x: Value) -> Value:
        return ops.permute(x, dims=self.dims)

    def write(self, x: Value, new: Value) -> Value:
        return ops.permute(new, dims=tuple(sorted(range(len(self.dims)), key=self.dims.__getitem__)))


@dataclass(frozen=True, slots=True)
class Expand:
    """View step: sizes of 1 repeated. Cannot be written through unless all repeats are equal."""

    shape: Shape

    def read(self, x: Value) -> Value:
        return ops.expand(x, shape=self.shape)

    def write(self, x: Value, new: Value) -> Value:
        lead = len(self.shape) - x.rank
        stop = tuple(1 if i < lead or x.shape[i - lead] == 1 else d for i, d in enumerate(self.shape))
        zero = (0,) * len(self.shape)
        first = ops.slice(new, start=zero, stop=stop, step=(1,) * len(self.shape))
        return ops.reshape(first, shape=x.shape)


@dataclass(frozen=True, slots=True)
class Slice:
    """View step: start, stop and step for each dimension."""

    start: Shape
    stop: Shape
    step: tuple[int, ...]

    def read(self, x: Value) -> Value:
        return ops.slice(x, start=self.start, stop=self.stop, step=self.step)

    def write(self, x: Value, new: Value) -> Value:
        return ops.slice_update(x, new, start=self.start, stop=self.stop, step=self.step)


@dataclass(frozen=True, slots=True)
class Take:
    """View step: any elements of the flat tensor, in any arrangement (diagonal, as_strided, unfold)."""

    index: Literal
    shape: tuple[int, ...]

    def read(self, x: Value) -> Value:
        flat = ops.reshape(x, shape=(x.type.numel,))
        return ops.reshape(ops.index_select(flat, ops.constant(value=self.index), dim=0), shape=self.shape)

    def write(self, x: Value, new: Value) -> Value:
        flat = ops.reshape(x, shape=(x.type.numel,))
        source = ops.reshape(new, shape=self.index.shape)
        return ops.reshape(ops.scatter(flat, ops.constant(value=self.index), source, dim=0), shape=x.shape)


@dataclass(frozen=True, slots=True)
class ViewDtype:
    """View step between a complex dtype and pairs of its components (view_as_real, view_as_complex)."""

    to_complex: bool

    def read(self, x: Value) -> Value:
        return _join(x) if self.to_complex else _split(x)

    def write(self, x: Value, new: Value) -> Value:
        return _split(new) if self.to_complex else _join(new)


def _split(x: Value) -> Value:
    parts = [ops.reshape(p, shape=(*x.shape, 1)) for p in (ops.real(x), ops.imag(x))]
    return ops.concat(*parts, dim=x.rank)


def _join(x: Value) -> Value:
    zero, one = (0,) * x.rank, (1,) * x.rank
    real = ops.slice(x, start=zero, stop=(*x.shape[:-1], 1), step=one)
    imag = ops.slice(x, start=(*zero[:-1], 1), stop=x.shape, step=one)
    return ops.complex(ops.reshape(real, shape=x.shape[:-1]), ops.reshape(imag, shape=x.shape[:-1]))


Step = Reshape | Permute | Expand | Slice | Take | ViewDtype


class View:
    """How a tensor looks at its storage: view steps, and where that puts its elements in memory."""

    __slots__ = ("offset", "steps", "strides", "type")

    def __init__(self, steps: tuple[Step, ...], type: Type, offset: Dim, strides: Shape):
        self.steps = steps
        self.type = type
        self.offset = offset
        self.strides = strides


def read_steps(value: Value, steps: tuple[Step, ...]) -> Value:
    """What a chain of view steps shows of `value`."""
    for step in steps:
        value = step.read(value)
    return value


def write_steps(value: Value, steps: tuple[Step, ...], new: Value) -> Value:
    """`value` after `new` was written through a chain of view steps."""
    passed = [value]
    for step in steps[:-1]:
        passed.append(step.read(passed[-1]))
    for step, before in zip(reversed(steps), reversed(passed), strict=True):
        new = step.write(before, new)
    return new


def is_contiguous(shape: Shape, strides: Shape) -> bool:
    """Row-major without gaps; strides of sizes 1, and those of empty tensors, do not matter."""
    if 0 in shape:
        return True
    return all(d == 1 or s == c for d, s, c in zip(shape, strides, contiguous_strides(shape), strict=True))


def overlaps(shape: Shape, strides: Shape) -> bool:
    """Whether several elements certainly share one place in memory (an expanded tensor)."""
    return 0 not in shape and any(s == 0 and d != 1 for d, s in zip(shape, strides, strict=True))


_OWN_REFERENCES = 0


def _calibrate() -> None:
    # The number of references that a host array has when nobody outside holds it depends on how a
    # buffer keeps its owner; measured once with the code path that `Storage.read` takes.
    global _OWN_REFERENCES
    array = np.zeros(1)
    probe = Storage(Leaf.of(array))
    probe.host = array
    del array
    low = 0
    while not _held_by_us_alone(probe.host):
        low += 1
        _OWN_REFERENCES = low


_calibrate()
