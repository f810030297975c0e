"""The mutable cell behind tensors, and the steps that lead from it to a view.

A `Storage` holds an immutable IR value: a `Leaf` (elements in memory) or a pending one. Writing
replaces the value; tensors that share the storage read through their chain of view steps.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from sys import getrefcount
from typing import Any
from weakref import getweakrefcount, ref

import numpy as np

from graphtorch.backends.locks import lock_across_forks
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, bf16
from graphtorch.ir.graph import Type, Value
from graphtorch.ir.literal import Literal
from graphtorch.ir.ops.checks import attrs_of
from graphtorch.ir.ops.shape import ConstantAttrs
from graphtorch.ir.shape import Dim, Shape, contiguous_strides

from .._torch.dataclass import dataclass
from .._types import CPU, device
from .door import Block, Buffer, DeviceBuffer, Exposed, keep

_TYPES = Type._table


class Leaf(Value):
    """A value whose elements are in memory."""

    __slots__ = ("buffer",)

    def __init__(self, buffer: Buffer | DeviceBuffer):
        # as Value.__init__, at half its cost: every number in a program becomes a leaf
        self.type = _TYPES.get((buffer.dtype, buffer.shape)) or Type(buffer.dtype, buffer.shape)  # type: ignore[misc]
        self.node = None  # type: ignore[misc]
        self.index = 0  # type: ignore[misc]
        self.name = ""  # type: ignore[misc]
        self.buffer = buffer

    @staticmethod
    def of(array: np.ndarray) -> Leaf:
        """A leaf over a copy of `array` (none where it is ours alone: pass only fresh arrays)."""
        return Leaf(Buffer.of(np.asarray(array)))


class MetaLeaf(Leaf):
    """The value of a tensor on the device "meta": it has a type, and no elements.

    What is computed of one is recorded for its types and its gradient, and replaced by another such
    leaf.
    """

    __slots__ = ()
    used = False  # whether there ever was one: programs without pay for nothing else

    def __init__(self, type_: Type):
        MetaLeaf.used = True
        self.type = type_  # type: ignore[misc]
        self.node = None  # type: ignore[misc]
        self.index = 0  # type: ignore[misc]
        self.name = ""  # type: ignore[misc]

    @property
    def buffer(self) -> Buffer:  # type: ignore[override]
        raise NotImplementedError(
            "Cannot copy out of meta tensor; no data! Make the tensor on a device that has "
            "elements, or give a module on 'meta' some with to_empty(device='cpu') or "
            "load_state_dict(state, assign=True)"
        )


class FreedLeaf(Leaf):
    """The value of memory that ``untyped_storage().resize_(0)`` gave back: it has a type, and no
    elements."""

    __slots__ = ()

    def __init__(self, type_: Type):
        self.type = type_  # type: ignore[misc]
        self.node = None  # type: ignore[misc]
        self.index = 0  # type: ignore[misc]
        self.name = ""  # type: ignore[misc]

    @property
    def buffer(self) -> Buffer:  # type: ignore[override]
        raise RuntimeError(
            "the memory of a tensor was given back by untyped_storage().resize_(0): resize it to "
            f"{self.type.numel * self.type.dtype.itemsize} bytes before its elements are read"
        )


def any_meta(values: Iterable[Any]) -> bool:
    """Whether one of `values` is that of a tensor without elements."""
    for value in values:  # noqa: SIM110 - asked at every operation of programs that have such tensors
        if type(value) is MetaLeaf:
            return True
    return False


class RuntimeScalar(Leaf):
    """A 0-d leaf whose number is read again at each replay of a captured graph."""

    __slots__ = ("getter",)

    def __init__(self, getter: Any, dtype: DType, number: Any = None):
        """Args: number: what it is now, if that is not what the getter says while the capture goes
        on."""
        super().__init__(Buffer.of(np.array(getter() if number is None else number, dtype.numpy)))
        self.getter = getter


class Recorder(threading.local):
    """What a thread has recorded and not yet run. What one thread records never holds another's
    writes.

    Attributes:
        capture: the capture in progress in this thread; it watches reads and writes.
        pending: storages whose values wait to be computed.
        differentiable: nodes of the autograd graph made since the last run.
    """

    capture: Any = None

    def __init__(self) -> None:
        self.pending: list[ref[Storage]] = []
        self.differentiable: list[ref[Any]] = []

    def adopt(self, storage: Storage) -> None:
        """`storage`, just made, has a value that waits to be computed."""
        capture = self.capture
        if capture is None:
            self.pending.append(ref(storage))
        else:
            capture.adopt(storage)


recorder = Recorder()
# what the value that goes leaves behind may write to another storage
_replacing = lock_across_forks()


class Version:
    """Counts in-place writes; shared by a tensor, its views and its detached aliases."""

    # of the class until the first write: every tensor has one of these, few are written to
    number = 0


class _OnCPU:
    """Where the elements of most storages are: a class's attribute, so that they need no place for
    it."""

    __slots__ = ()
    place: device = CPU


class Storage(_OnCPU):
    """A mutable cell: the current value of a base tensor.

    Attributes:
        place: the device that the elements are on, or are to be computed on.
        value: the elements, row-major, as an IR value.
        epoch: counts writes, those through ``.data`` included (`Version` leaves them out).
        host: the NumPy array whose memory this storage shares with code outside, if it does.
    """

    __slots__ = ("__weakref__", "epoch", "host", "value")

    def __init__(self, value: Value):
        self.value = value
        self.epoch = 0
        self.host: np.ndarray | None = None

    def read(self) -> Value:
        """The value now. Memory shared with NumPy is copied: later writes there must not be
        seen."""
        if recorder.capture is not None:
            return recorder.capture.read(self)
        if self.host is None:
            return self.value
        if self._holds_host_alone():
            self.host = None
            return self.value
        return Leaf.of(self.host.copy())

    def read_part(self, view: View) -> Leaf | None:
        """A part of memory shared with NumPy, copied; None where `read` copies nothing, or no
        more."""
        if self.host is None or recorder.capture is not None or self._holds_host_alone():
            return None
        if view.type.numel >= self.host.size:
            return None
        return Leaf.of(view.over(self.host).copy())

    def now(self) -> Value:
        """The value as this thread sees it: what a capture in progress wrote, else what everybody
        sees."""
        capture = recorder.capture
        return self.value if capture is None else capture.writes.get(self, self.value)  # type: ignore[no-any-return]

    def put(self, value: Value) -> None:
        """Replace the value of memory that is not shared with code outside."""
        with _replacing:
            self.epoch += 1
            self.value = value

    def shared_memory(self) -> np.ndarray | None:
        """The array of code outside, in which writes have to land; None where there is none any
        more."""
        if self.host is not None and self._holds_host_alone():
            self.host = None
        return self.host

    def land(self, leaf: Leaf) -> None:
        """Put elements of this type into the memory that is shared."""
        np.copyto(self.host, leaf.buffer.numpy())  # type: ignore[arg-type]
        self.epoch += 1

    def look(self) -> np.ndarray:
        """The elements of memory that is shared. Read only."""
        assert self.host is not None
        return self.host

    def expose(self) -> np.ndarray:
        """Elements in memory as an array that code outside may keep; from now on writes land in
        it."""
        if self.host is None:
            self.own()
            keep(self.value.buffer)  # type: ignore[attr-defined]
            self.host = self.value.buffer.expose()  # type: ignore[attr-defined]
        return self.host

    def __deepcopy__(self, memo: Any) -> Storage:
        # values are immutable: a copy is the same value in another cell
        made = Storage(self.read())
        if type(made.value) is Value:
            recorder.adopt(made)
        return made

    def memory(self) -> np.ndarray | None:
        """The elements, for a write that runs at once and that nobody sees who read them before.

        None where they are pending, and where a capture has to see the write.
        """
        if recorder.capture is not None:
            return None
        if self.host is not None:
            return self.host
        if type(self.value) is Leaf:
            self.own()
        else:
            filled = _filled(self.value)
            if filled is None:
                return None
            self.value = Leaf(filled)
        return self.value.buffer.numpy()

    def own(self) -> None:
        """Make the memory of a leaf one that nobody else knows, so that a program may change it.
        Memory shared with code outside stays that."""
        if self.host is None and not self._is_sole_reader():
            self.value = Leaf(copied(self.value.buffer))  # type: ignore[attr-defined]

    def _holds_host_alone(self) -> bool:
        """Whether nobody outside holds the array of `host` any more.

        References to it are counted where no frame has one. An array that is passed on, or has a
        local name, has more of them while somebody watches the interpreter: a hook of evaluation
        (PEP 523: PyTorch's compiler, debuggers) makes callers hold on to arguments as well, a trace
        function that looks at local variables copies them.
        """
        # Ours are: `host`, getrefcount's own, and of a user's array the leaf's buffer. A view given
        # to the user holds on to the array, so it counts.
        base = self.host.base  # type: ignore[union-attr]
        if type(base) is Exposed:
            return getrefcount(self.host) < _OWN_REFERENCES
        return base is None and getrefcount(self.host) <= _OWN_REFERENCES

    def _is_sole_reader(self: Any) -> bool:
        """Whether nothing else (pending graphs, other storages, what programs packed of it, arrays)
        knows the memory of the leaf, so that writes to it are unseen. (No local names: as above.)
        """
        if (
            getrefcount(self.value) > _HELD_ONCE
            or getrefcount(self.value.buffer) > _HELD_ONCE
            or getweakrefcount(self.value.buffer)
        ):
            return False
        if not _is_exposed(self.value.buffer.owner):
            owned = _is_ours(self.value.buffer.owner)
            return owned and getrefcount(self.value.buffer.owner) <= _HELD_ONCE
        return (  # kept by `Buffer.numpy`
            getrefcount(self.value.buffer.owner) <= _HELD_ONCE
            and getrefcount(self.value.buffer.owner.base) <= _HELD_ONCE
            and getrefcount(self.value.buffer.owner.base.buffer) <= _HELD_ONCE
            and _is_ours(self.value.buffer.owner.base.buffer.owner)
            and getrefcount(self.value.buffer.owner.base.buffer.owner) <= _HELD_ONCE
        )


def computed(held: Iterable[tuple[Storage, Value]], leaves: Iterable[Leaf]) -> None:
    """The elements of the values that storages held are known; another thread may have written
    since."""
    with _replacing:
        for (storage, before), leaf in zip(held, leaves, strict=True):
            if storage.value is before:
                storage.value = leaf


def _is_exposed(owner: Any) -> bool:
    return type(owner) is np.ndarray and type(owner.base) is Exposed


def _is_ours(owner: Any) -> bool:
    """Whether that is memory of its own, and no part of another's."""
    return type(owner) in (Block, bytes) or (type(owner) is np.ndarray and owner.base is None)


def number_in_all(value: Value) -> np.ndarray | None:
    """The number that a pending value such as zeros repeats; None for others."""
    node = value.node
    if node is None or node.op is not ops.expand:
        return None
    number = node.operands[0]
    if type(number) is Leaf and number.buffer.shape == () and isinstance(number.buffer, Buffer):
        return number.buffer.numpy()
    if number.node is not None and number.node.op is ops.constant:
        elements = attrs_of(number.node, ConstantAttrs).value.numpy()
        return elements if elements.ndim == 0 else None
    return None


def _filled(value: Value) -> Buffer | None:
    """The elements of a pending value that is one number repeated, such as zeros; None for
    others."""
    elements = number_in_all(value)
    if elements is None:
        return None
    made = Buffer.empty(value.dtype, value.type.shape)  # type: ignore[arg-type]  # of ints outside a capture
    made.numpy()[...] = elements
    return made


def copied(buffer: Any) -> Any:
    """The same elements in other memory of their device."""
    if not isinstance(buffer, Buffer):
        return buffer.copy()
    made = Buffer.empty(buffer.dtype, buffer.shape)
    made.numpy()[...] = buffer.numpy()
    return made


# Steps never change; `frozen` would double the cost of making them, which every x[i] does.


@dataclass(slots=True, eq=False)
class Reshape:
    """View step: the same elements under another shape."""

    shape: Shape
    before: Shape

    def read(self, x: Value) -> Value:
        return ops.reshape(x, shape=self.shape)

    def write(self, x: Value, new: Value) -> Value:
        return ops.reshape(new, shape=self.before)


@dataclass(slots=True, eq=False)
class Permute:
    """View step: reordered dimensions."""

    dims: tuple[int, ...]

    def read(self, x: Value) -> Value:
        return ops.permute(x, dims=self.dims)

    def write(self, x: Value, new: Value) -> Value:
        return ops.permute(
            new, dims=tuple(sorted(range(len(self.dims)), key=self.dims.__getitem__))
        )


@dataclass(slots=True, eq=False)
class Expand:
    """View step: sizes of 1 repeated. Cannot be written through unless all repeats are equal."""

    shape: Shape

    def read(self, x: Value) -> Value:
        return ops.expand(x, shape=self.shape)

    def write(self, x: Value, new: Value) -> Value:
        lead = len(self.shape) - x.rank
        stop = tuple(
            1 if i < lead or x.shape[i - lead] == 1 else d for i, d in enumerate(self.shape)
        )
        zero = (0,) * len(self.shape)
        first = ops.slice(new, start=zero, stop=stop, step=(1,) * len(self.shape))
        return ops.reshape(first, shape=x.shape)


@dataclass(slots=True, eq=False)
class Slice:
    """View step: start, stop and step for each dimension."""

    start: Shape
    stop: Shape
    step: tuple[int, ...]

    def read(self, x: Value) -> Value:
        return ops.slice(x, start=self.start, stop=self.stop, step=self.step)

    def write(self, x: Value, new: Value) -> Value:
        return ops.slice_update(x, new, start=self.start, stop=self.stop, step=self.step)


@dataclass(slots=True, eq=False)
class Take:
    """View step: any elements of the flat tensor, in any arrangement (diagonal, as_strided,
    unfold)."""

    index: Literal
    shape: tuple[int, ...]

    def read(self, x: Value) -> Value:
        flat = ops.reshape(x, shape=(x.type.numel,))
        return ops.reshape(
            ops.index_select(flat, ops.constant(value=self.index), dim=0), shape=self.shape
        )

    def write(self, x: Value, new: Value) -> Value:
        flat = ops.reshape(x, shape=(x.type.numel,))
        source = ops.reshape(new, shape=self.index.shape)
        return ops.reshape(
            ops.scatter(flat, ops.constant(value=self.index), source, dim=0), shape=x.shape
        )


@dataclass(slots=True, eq=False)
class ViewDtype:
    """View step between a complex dtype and pairs of its components (view_as_real,
    view_as_complex)."""

    to_complex: bool

    def read(self, x: Value) -> Value:
        return _join(x) if self.to_complex else _split(x)

    def write(self, x: Value, new: Value) -> Value:
        return _split(new) if self.to_complex else _join(new)


@dataclass(slots=True, eq=False)
class Bits:
    """View step to another dtype whose elements have the same bytes."""

    dtype: DType

    def read(self, x: Value) -> Value:
        return ops.bitcast(x, dtype=self.dtype)

    def write(self, x: Value, new: Value) -> Value:
        return ops.bitcast(new, dtype=x.dtype)


def _split(x: Value) -> Value:
    parts = [ops.reshape(p, shape=(*x.shape, 1)) for p in (ops.real(x), ops.imag(x))]
    return ops.concat(*parts, dim=x.rank)


def _join(x: Value) -> Value:
    zero, one = (0,) * x.rank, (1,) * x.rank
    real = ops.slice(x, start=zero, stop=(*x.shape[:-1], 1), step=one)
    imag = ops.slice(x, start=(*zero[:-1], 1), stop=x.shape, step=one)
    return ops.complex(ops.reshape(real, shape=x.shape[:-1]), ops.reshape(imag, shape=x.shape[:-1]))


Step = Reshape | Permute | Expand | Slice | Take | ViewDtype | Bits


class View:
    """How a tensor looks at its storage: view steps, and where that puts its elements in memory."""

    __slots__ = ("offset", "steps", "strides", "type")

    def __init__(self, steps: tuple[Step, ...], type: Type, offset: Dim, strides: Shape):
        self.steps = steps
        self.type = type
        self.offset = offset
        self.strides = strides

    def over(self, array: np.ndarray) -> np.ndarray:
        """What this view shows of the elements of its storage; shares their memory."""
        dtype = self.type.dtype.numpy
        shape: Any = self.type.shape
        if 0 in shape:
            return np.empty(shape, dtype)
        if array.dtype == bf16.numpy:
            array = array.view(np.uint16)  # its own elements are not offered as bytes
        size = dtype.itemsize
        return np.ndarray(shape, dtype, array, self.offset * size, [s * size for s in self.strides])  # type: ignore[misc]


def read_steps(value: Value, steps: tuple[Step, ...]) -> Value:
    """What a chain of view steps shows of `value`."""
    for step in steps:
        value = step.read(value)
    return value


def _places_of(shape: Shape, steps: tuple[Step, ...]) -> Take:
    """What a chain of view steps shows of a tensor of `shape`, element by element."""
    if not all(isinstance(d, int) for d in shape):
        raise RuntimeError(
            "a write to a part of an expanded tensor of symbolic size: clone() it before the write"
        )
    places = np.arange(math.prod(shape)).reshape(shape)  # type: ignore[arg-type]
    for step in steps:
        if isinstance(step, Reshape):
            places = places.reshape(step.shape)  # type: ignore[arg-type]
        elif isinstance(step, Permute):
            places = places.transpose(step.dims)
        elif isinstance(step, Expand):
            places = np.broadcast_to(places, step.shape)  # type: ignore[arg-type]
        elif isinstance(step, Slice):
            bounds: Any = zip(step.start, step.stop, step.step, strict=True)
            places = places[tuple(slice(*b) for b in bounds)]
        elif isinstance(step, Take):
            places = places.reshape(-1)[step.index.numpy()].reshape(step.shape)
        else:
            raise RuntimeError(
                "a write to a part of an expanded view of another dtype: clone() it first"
            )
    return Take(Literal.of(np.ascontiguousarray(places).reshape(-1)), places.shape)


def _without_idle(value: Value, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The steps without expansions that repeat nothing (``x.expand(1, *x.shape)``)."""
    if not any(type(step) is Expand for step in steps):
        return steps
    kept: list[Step] = []
    for step in steps:
        before, value = value, step.read(value)
        if type(step) is not Expand:
            kept.append(step)
            continue
        lead = len(step.shape) - before.rank
        if step.shape[lead:] != before.shape or any(d != 1 for d in step.shape[:lead]):
            kept.append(step)
        elif lead:
            kept.append(Reshape(step.shape, before.shape))
    return tuple(kept)


def write_steps(value: Value, steps: tuple[Step, ...], new: Value) -> Value:
    """`value` after `new` was written through a chain of view steps."""
    steps = _without_idle(value, steps)
    if not steps:
        return new
    if any(type(step) is Expand for step in steps[:-1]):
        # a part of repeated elements: all repeats see the write
        steps = (_places_of(value.shape, steps),)
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
    return all(
        d == 1 or s == c for d, s, c in zip(shape, strides, contiguous_strides(shape), strict=True)
    )


def overlaps(shape: Shape, strides: Shape) -> bool:
    """Whether several elements certainly share one place in memory (an expanded tensor)."""
    return 0 not in shape and any(s == 0 and d != 1 for d, s in zip(shape, strides, strict=True))


_OWN_REFERENCES = 0
_HELD_ONCE = 0


def _calibrate() -> None:
    # The number of references that a host array has when nobody outside holds it depends on how a
    # buffer keeps its owner, and what `getrefcount` adds on the interpreter; measured once with the
    # code paths that `Storage.read` and `Storage.memory` take.
    global _HELD_ONCE, _OWN_REFERENCES
    alone = Storage(Leaf(Buffer.empty(bf16, ())))
    while not alone._is_sole_reader():
        _HELD_ONCE += 1
    array = np.zeros(1)
    probe = Storage(Leaf.of(array))
    probe.host = array
    del array
    while not probe._holds_host_alone():
        _OWN_REFERENCES += 1


_calibrate()
