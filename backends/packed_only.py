"""Weights whose elements are in packed memory only: their own memory is given to the system, and
filled again before anybody looks there.

A program packs its weights once: it copies them into the order in which its kernels read them, and
reads nothing else from then on. Where such a copy has every element of a weight, `put_away` lets
the weight's own pages go and makes the buffer a `PackedOnly`. That is a buffer whose `address` and
`owner` are properties: whoever asks for one of them, in whatever thread, finds the elements back in
place, bit for bit, and the buffer an ordinary one. The address itself never changes, and the memory
stays reserved.

So a weight may only be put away while nobody knows its address other than by asking each time.
Whoever keeps an address keeps the buffer alive, or what owns its memory: an array, a part, another
program that reads the weight, a call under way in another thread. `put_away` knows the few
references that there are to be; where it counts more, the weight stays.

Python's handlers of signals, and finalizers, may run between any two steps here, in the thread that
holds the lock. So each step leaves the buffer in a state in which it may be asked for its address,
and nothing is done to memory on the word of a step before.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Sequence
from sys import getrefcount
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from .buffer import MADV_DONTNEED, Block, Buffer, Exposed, Held
from .locks import lock_across_forks

if TYPE_CHECKING:
    from .record import Rearranged

LEAST = 64 << 10  # bytes: pages of smaller weights are not worth it
STAYS: Any = "at its address"  # in `Buffer.elsewhere`: it may never be put away
_lock = lock_across_forks()
_madvise = getattr(ctypes.CDLL(None), "madvise", None)
# Buffer's own attributes, of a buffer whose class has other ones
_address, _owner = (cast(Any, vars(Buffer)[name]).__get__ for name in ("address", "owner"))
_ONCE = 2  # references to what only one attribute has, and the argument


class PackedOnly(Buffer):
    """A buffer whose memory is to be filled before it is looked at; `elsewhere` is its `Copy`."""

    __slots__ = ()

    @property
    def address(self) -> int:  # type: ignore[override]
        bring_back(self)
        return cast(int, _address(self))

    @property
    def owner(self) -> Any:  # type: ignore[override]
        bring_back(self)
        return _owner(self)


class Copy:
    """The elements of a buffer as packed memory has them; whether they are back in their place."""

    __slots__ = ("block", "place", "returned")

    def __init__(self, block: Block, place: Rearranged):
        self.block = block
        self.place = place
        self.returned = False

    def fill(self, buffer: Buffer) -> None:
        """Write the elements to the memory of `buffer`, for as long as it waits for them."""
        size = buffer.dtype.itemsize
        packed = Exposed.from_address(self.block.address + self.place.offset)
        plain = Exposed.from_address(_address(buffer))
        for part in self.place.parts:
            target = _strided(plain, size, part.start, part.shape, part.strides)
            source = _strided(packed, size, part.packed_start, part.shape, part.packed_strides)
            if buffer.__class__ is not PackedOnly:
                return  # a handler was faster, and may have written there since
            target[...] = source
        self.returned = True


def _strided(
    memory: Any, size: int, start: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> np.ndarray:
    """Elements of `size` bytes as bits: numbers that are none are not to be made quiet."""
    return np.ndarray(shape, f"u{size}", memory, start * size, [s * size for s in strides])


def bring_back(buffer: Any) -> None:
    """Let the elements be where `buffer` says."""
    with _lock:
        if buffer.__class__ is PackedOnly:
            buffer.elsewhere.fill(buffer)
            if buffer.__class__ is PackedOnly:
                buffer.__class__ = Buffer  # type: ignore[assignment]
                buffer.elsewhere = None


def keep(buffer: Buffer) -> None:
    """From now on the elements stay at the buffer's address, where code outside may look without
    holding anything."""
    with _lock:
        bring_back(buffer)
        buffer.elsewhere = STAYS


def put_away(held: Held, inputs: Sequence[Buffer], position: int, known: int, copy: Copy) -> bool:
    """Let the memory of an input go, if nobody can tell.

    Args:
        held: the last ones of `inputs`, with who holds them.
        inputs: of a program that reads this one no more. One of them is it once.
        position: its place in `inputs`.
        known: how many more references the caller has.
        copy: has all of its elements.
    """
    number = position - len(inputs) + len(held)
    if number < 0 or held[number] is not inputs[position]:
        return False
    with _lock:
        buffer: Any = inputs[position]
        first, size = _pages(buffer)
        try:
            if buffer.elsewhere is not None:
                return False
        except AttributeError:  # as of almost all buffers
            pass
        buffer.elsewhere = copy
        buffer.__class__ = PackedOnly  # who asks from now on finds the elements in place
        if (
            held.holders[number].buffer is not buffer
            # `held`, its holder, `inputs`, `buffer` and the argument
            or getrefcount(inputs[position]) > known + 5
            or not _is_alone(buffer)
        ):
            bring_back(buffer)
            return False
        # between these two no other code of this thread runs, unless it is a finalizer
        if buffer.__class__ is PackedOnly:
            _madvise(first, size, MADV_DONTNEED)  # type: ignore[misc]
            if buffer.__class__ is not PackedOnly:
                buffer.elsewhere = copy
                buffer.__class__ = PackedOnly
                bring_back(buffer)
        return buffer.__class__ is PackedOnly


def _pages(buffer: Buffer) -> tuple[Any, Any]:
    """Where the whole pages of a buffer begin, and their bytes, for C."""
    first = -(-buffer.address // mmap.PAGESIZE) * mmap.PAGESIZE
    last = (buffer.address + buffer.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    return ctypes.c_void_p(first), ctypes.c_size_t(max(0, last - first))


def can_be_put_away(size: int) -> bool:
    """Whether memory of `size` bytes is worth it, on a system that takes pages."""
    return size >= LEAST and sys.platform == "linux" and _madvise is not None


def _is_alone(buffer: Buffer) -> bool:
    """Whether a buffer's memory is ours, and nothing else has to do with it."""
    # no local names: they would count
    if type(_owner(buffer)) is Block:
        return getrefcount(_owner(buffer)) <= _ONCE
    if type(_owner(buffer)) is not np.ndarray or getrefcount(_owner(buffer)) > _ONCE:
        return False
    if _owner(buffer).base is None:
        return bool(_owner(buffer).flags.owndata)
    return (  # an array that was cut out of another one, or was given another dtype
        type(_owner(buffer).base) is np.ndarray
        and getrefcount(_owner(buffer).base) <= _ONCE
        and bool(_owner(buffer).base.flags.owndata)
    )
