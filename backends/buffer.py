"""Memory of arrays on the CPU: row-major, 64-byte aligned where it is ours, recycled through free
lists."""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphtorch.ir.dtype import BY_NUMPY, DType

ALIGNMENT = 64
HUGE = 4 << 20  # from here on memory is aligned for, and asks for, 2 MiB pages
# bytes that free lists may always keep, and beyond that as many as are in use: what a step of
# training frees the next one needs, and memory that is new takes the system twenty times as long as
# filling it
FREE_LIMIT = 1 << 30
MADV_DONTNEED, MADV_HUGEPAGE, MADV_PAGEOUT = 4, 14, 21
# bytes: less lies in an object of the interpreter's, which is there, and goes, in a quarter of the
# time of a `Block`
SMALL = 1024

_libc = ctypes.CDLL(None)
_libc.posix_memalign.argtypes = (ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t, ctypes.c_size_t)
_libc.free.argtypes = (ctypes.c_void_p,)
_libc.free.restype = None
_free: dict[int, list[int]] = {}
# bytes in `_free`, and all that came from the system; only a guide: two threads may miscount, and
# `_trim` counts the former anew
_kept = 0
_total = 0


def size_class(size: int) -> int:
    """`size` rounded up such that few different sizes occur: at most an eighth is lost."""
    if size <= 4096:
        return (size + 63) & ~63 or 64
    step = 1 << (size.bit_length() - 4)
    return (size + step - 1) & -step


class MappedFile(mmap.mmap):
    """A file mapped into memory, such that what is written to it stays in this process."""

    def __new__(cls, number: int) -> MappedFile:
        """Args: number: of the open file."""
        return super().__new__(cls, number, 0, access=mmap.ACCESS_COPY)


class Block:
    """Owns memory of one size class; goes back to the free list when nobody holds it."""

    __slots__ = ("address", "size")

    def __init__(self, size: int):
        """Args: size: a size class."""
        global _kept
        self.size = size
        addresses = _free.get(size)
        try:
            self.address = addresses.pop()  # type: ignore[union-attr]
        except (AttributeError, IndexError):
            self.address = _allocate(size)
        else:
            _kept -= size

    def __del__(self, free: dict[int, list[int]] = _free) -> None:
        global _kept
        try:
            size, address = self.size, self.address
        except AttributeError:
            return  # there was no memory for it
        try:
            free[size].append(address)
        except KeyError:
            free.setdefault(size, []).append(address)
        _kept += size
        if _kept > FREE_LIMIT and _kept + _kept > _total:
            _trim(max(FREE_LIMIT, _total - _kept) // 2)


_BYTES = bytes.__basicsize__ - 1  # where in such an object its bytes are


def small(size: int) -> tuple[bytes, int]:
    """Memory of at most `SMALL` bytes, aligned as a block's is: its owner and its address.

    The owner is an object whose bytes nobody reads as such, so that they may change.
    """
    owner = bytes(size + ALIGNMENT)
    return owner, (id(owner) + (_BYTES + ALIGNMENT - 1)) & -ALIGNMENT


def _allocate(size: int) -> int:
    global _total
    where = ctypes.c_void_p()
    huge = size >= HUGE
    code = _libc.posix_memalign(ctypes.byref(where), 2 << 20 if huge else ALIGNMENT, size)
    if code or not where.value:
        _trim(0)
        code = _libc.posix_memalign(ctypes.byref(where), ALIGNMENT, size)
    if code or not where.value:
        raise MemoryError(f"out of memory: could not get {size:,} bytes for an array")
    if huge:
        advise(where.value, where.value + size, MADV_HUGEPAGE)
    _total += size
    return where.value


def advise(first: int, last: int, advice: int) -> None:
    """Tell the system about pages; where it does not know how, nothing happens."""
    if hasattr(_libc, "madvise"):
        _libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), advice)


def _trim(limit: int) -> None:
    """Give memory back to the system, largest first, until at most `limit` bytes are kept."""
    global _kept, _total
    _kept = sum(size * len(addresses) for size, addresses in list(_free.items()))
    for size in sorted(_free, reverse=True):
        addresses = _free[size]
        while addresses and _kept > limit:
            try:
                _libc.free(addresses.pop())
            except IndexError:
                break  # another thread took the last
            _kept -= size
            _total -= size


def give_back() -> None:
    """Give the system what libc keeps of memory that others freed, where libc can."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(ctypes.c_size_t(0))


def discard(address: int, size: int) -> None:
    """Let the system take the pages of memory of ours whose contents nobody needs any more. The
    memory may be used again, and then takes pages again."""
    first = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    last = (address + size) // mmap.PAGESIZE * mmap.PAGESIZE
    if last > first and sys.platform == "linux":
        advise(first, last, MADV_DONTNEED)


class _Process(ctypes.Array):  # type: ignore[type-arg]
    """All memory that a process can have."""

    _type_ = ctypes.c_char
    _length_ = 1 << 47


_words = memoryview(_Process.from_address(0)).cast("B").cast("q")
# the word of an array that has the address of its elements: NumPy's ABI says so
_DATA = object.__basicsize__ // 8


def address_of(array: np.ndarray) -> int:
    """Where a row-major array begins; in a twentieth of the time that `__array_interface__`
    takes."""
    return _words[(id(array) >> 3) + _DATA]


class Buffer:
    """A row-major array in memory: `address`, `dtype`, `shape` (ints); `owner` keeps the memory
    alive.

    Buffers are values: only a donated one is ever written again, by the call that takes it over.
    `elsewhere`, mostly not even set, is for packed_only.py.
    """

    __slots__ = ("__weakref__", "address", "dtype", "elsewhere", "owner", "shape")

    elsewhere: Any

    def __init__(self, address: int, dtype: DType, shape: tuple[int, ...], owner: Any):
        self.address = address
        self.dtype = dtype
        self.shape = shape
        self.owner = owner

    @staticmethod
    def empty(dtype: DType, shape: Sequence[int]) -> Buffer:
        """New memory, not initialised."""
        shape = tuple(shape)
        size = math.prod(shape) * dtype.itemsize
        if size <= SMALL:
            owner, address = small(size)
            return Buffer(address, dtype, shape, owner)
        block = Block(size_class(size))
        return Buffer(block.address, dtype, shape, block)

    @staticmethod
    def of(array: np.ndarray) -> Buffer:
        """A buffer that shares a row-major array's memory; any other array is copied.

        Raises:
            TypeError: an element type that no DType stands for.
        """
        dtype = BY_NUMPY.get(array.dtype) or DType.of(array.dtype)
        flags = array.flags
        if flags.c_contiguous and flags.aligned:
            return Buffer(address_of(array), dtype, array.shape, array)
        made = Buffer.empty(dtype, array.shape)
        made.numpy()[...] = array
        return made

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def in_file(self) -> bool:
        """Whether this is memory that stands for a part of a file."""
        owner: Any = self
        while owner is not None and not isinstance(owner, MappedFile):
            if isinstance(owner, np.ndarray):
                owner = owner.base
            else:
                owner = getattr(owner, _OWNERS.get(type(owner), ""), None)
        return owner is not None

    def page_out(self) -> None:
        """Let the system take the memory of a buffer that is `in_file`: it is read again when it is
        used again. What was written to it stays.
        """
        first = -(-self.address // mmap.PAGESIZE) * mmap.PAGESIZE
        last = (self.address + self.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first and sys.platform == "linux":
            advise(first, last, MADV_PAGEOUT)

    def numpy(self) -> np.ndarray:
        """An array over the same memory that keeps it alive; the same one each time for memory of
        ours."""
        owner = self.owner
        if (
            type(owner) is np.ndarray
            and owner.shape == self.shape
            and owner.dtype == self.dtype.numpy
        ):
            return owner
        if type(owner) is not Block and type(owner) is not bytes:
            return self.expose()
        array = Buffer(self.address, self.dtype, self.shape, owner).expose()
        self.owner = array  # elements that are read one by one ask for it each time
        return array

    def expose(self) -> np.ndarray:
        """A new array over the same memory; its base is an `Exposed`, which keeps this buffer
        alive."""
        if not self.address and 0 not in self.shape:  # only its sizes count
            return np.broadcast_to(np.zeros((), self.dtype.numpy), self.shape)
        exposed: Any = Exposed.from_address(self.address)
        exposed.buffer = self
        return np.ndarray(self.shape, self.dtype.numpy, exposed)

    def part(self, offset: int, shape: Sequence[int]) -> Buffer:
        """The elements from `offset` on, as a buffer of `shape` over the same memory."""
        shape = tuple(shape)
        if 0 in shape:
            offset = 0  # no elements: a slice of an empty array may claim to start behind its end
        if offset < 0 or offset + math.prod(shape) > math.prod(self.shape):
            raise IndexError(
                f"elements {offset} to {offset + math.prod(shape)} of a buffer of shape "
                f"{self.shape}"
            )
        return Buffer(self.address + offset * self.dtype.itemsize, self.dtype, shape, self)

    def again(self) -> Buffer:
        """The same memory as another buffer, for which nothing stands that was made of this one."""
        return Buffer(self.address, self.dtype, self.shape, self.owner)

    def __repr__(self) -> str:
        return f"<buffer {self.dtype}[{', '.join(map(str, self.shape))}] at {self.address:#x}>"


class Held(list[Buffer]):
    """Buffers with the objects that hold them: each has its one as an attribute `buffer`, and reads
    from there what it wants to know of it, each time anew."""

    __slots__ = ("holders",)

    def __init__(self, buffers: Sequence[Buffer], holders: Sequence[Any]):
        super().__init__(buffers)
        self.holders = holders


class Exposed(ctypes.Array):  # type: ignore[type-arg]
    """The bytes of a buffer for NumPy: the base of the arrays over it, which so keep the buffer
    alive.

    Their number is that of no buffer: a type for each size takes longer to make than all else.
    """

    _type_ = ctypes.c_char
    _length_ = 1 << 46
    __slots__ = ("buffer",)

    buffer: Buffer


# where what keeps memory alive names what keeps it alive in turn
_OWNERS: dict[type, str] = {Buffer: "owner", Exposed: "buffer", memoryview: "obj"}
